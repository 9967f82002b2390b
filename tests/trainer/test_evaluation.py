import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocessing.manifest import DatasetManifest
from trainer import evaluation
from trainer.evaluation import EvaluationConfig, evaluate
from trainer.input_pipeline import read_examples
from trainer.run_folder import load_best_model


@pytest.fixture(scope="module")
def evaluated(trained_run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("evaluated")
    evaluate(EvaluationConfig(run=trained_run, out=out, write_masks=True))
    return out


def test_metrics_are_those_of_the_written_masks(evaluated, dataset):
    report = json.loads((evaluated / "evaluation.json").read_text())
    by_slice = {entry["slice_id"]: entry for entry in report["by_slice"]}
    intersections = areas = 0
    examples = read_examples(dataset, DatasetManifest.load(dataset), "validation")
    for example in examples.as_numpy_iterator():
        slice_id = example["slice_id"].decode()
        with Image.open(evaluated / "predicted_masks" / f"{slice_id}.png") as file:
            predicted = np.asarray(file)
        assert set(np.unique(predicted)) <= {0, 255}
        assert predicted.shape == (40, 40)  # the size of the slice, not of the model
        lung = example["mask"][:, :, 0] == 1
        both, area = int((lung & (predicted > 0)).sum()), int(lung.sum() + (predicted > 0).sum())
        assert by_slice[slice_id]["dice"] == pytest.approx(2 * both / area if area else 1)
        intersections, areas = intersections + both, areas + area
    assert report["num_slices"] == len(by_slice) == 5
    assert report["overall"]["dice_pooled"] == pytest.approx(2 * intersections / areas)


def test_patients_are_told_apart(trained_run, tmp_path):
    report = evaluate(EvaluationConfig(run=trained_run, out=tmp_path, split="train"))
    assert list(report["by_patient"]) == ["anna", "bela"]
    assert report["by_patient"]["anna"]["num_slices"] == 5


def test_pictures_are_drawn(evaluated):
    with Image.open(evaluated / "predictions.png") as picture:
        assert picture.width > 1000


def test_other_dataset_without_manifest_is_refused(trained_run, tmp_path):
    with pytest.raises(ValueError, match="holds no dataset.json"):
        evaluate(EvaluationConfig(run=trained_run, out=tmp_path / "out", data=tmp_path))


def test_dataset_that_is_gone_is_named_with_the_flag_that_helps(dataset, trained_run, tmp_path):
    shutil.copytree(trained_run, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["data"] = "/gone"
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="was trained on /gone, which .*; or give --data, where"):
        evaluate(EvaluationConfig(run=tmp_path / "run", out=tmp_path / "out"))
    report = evaluate(EvaluationConfig(run=tmp_path / "run", out=tmp_path / "out", data=dataset))
    assert report["num_slices"] == 5


def test_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no training run"):
        evaluate(EvaluationConfig(run=tmp_path, out=tmp_path / "out"))


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="--split is 'test'; expected one of train, validation"):
        EvaluationConfig(run=Path("r"), out=Path("o"), split="test")


@pytest.mark.parametrize(("bias", "warned"), [(-100.0, True), (100.0, False)])
def test_model_that_marks_no_lung_is_told_loudly(
    trained_run, tmp_path, monkeypatch, caplog, bias, warned
):
    def with_bias(run_dir):
        config, model = load_best_model(run_dir)
        model.get_layer("logits").bias.assign([bias])
        return config, model

    monkeypatch.setattr(evaluation, "load_best_model", with_bias)
    evaluate(EvaluationConfig(run=trained_run, out=tmp_path))
    assert ("THE MODEL MARKS NO LUNG AT ALL" in caplog.text) == warned
