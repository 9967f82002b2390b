import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocessing.manifest import FILENAME, DatasetManifest
from trainer import simulated_scanners
from trainer.cross_validation import job
from trainer.cross_validation.config import CrossValidationConfig
from trainer.cross_validation.job import cross_validate
from trainer.evaluation.slices import DatasetSlices

SMALL = {
    "image_size": 32,
    "filters": 4,
    "depth": 2,
    "global_batch_size": 4,
    "epochs": 2,
    "learning_rate": 5e-3,
    "devices": "cpu",
}


@pytest.fixture(autouse=True)
def two_scanners(monkeypatch):
    """Two of the scanners, to save time."""
    chosen = {name: simulated_scanners.SCANNERS[name] for name in ("clahe", "vertical_flip")}
    monkeypatch.setattr("trainer.evaluation.job.SCANNERS", chosen)
    monkeypatch.setattr(job, "SCANNERS", chosen)


def make(data: Path, out: Path, **settings) -> CrossValidationConfig:
    own = {name: settings.pop(name) for name in ("folds", "flips") if name in settings}
    return CrossValidationConfig(data=data, out=out, settings={**SMALL, **settings}, **own)


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory) -> Path:
    """Cross-validation of all three patients; do not write to it."""
    out = tmp_path_factory.mktemp("cross") / "out"
    with pytest.MonkeyPatch.context() as patch:
        chosen = {name: simulated_scanners.SCANNERS[name] for name in ("clahe", "vertical_flip")}
        patch.setattr("trainer.evaluation.job.SCANNERS", chosen)
        patch.setattr(job, "SCANNERS", chosen)
        cross_validate(make(dataset, out))
    return out


def test_each_patient_of_every_split_is_left_out_once(finished):
    report = json.loads((finished / "cross_validation.json").read_text())
    assert list(report["by_patient"]) == ["anna", "bela", "cleo"]
    assert report["num_slices"] == 15
    assert report["num_slices_with_lung"] == 12
    assert report["folds_missing"] == []
    assert report["recipe"].startswith("reference, but --")
    assert "hold" not in report["recipe"]
    assert set(report["scanners"]["by_scanner"]) == {"clahe", "vertical_flip"}
    for patient in ("anna", "bela", "cleo"):
        measured = json.loads(
            (finished / f"fold-{patient}" / "last_epoch" / "evaluation.json").read_text()
        )
        assert list(measured["by_patient"]) == [patient]
        assert measured["hold_out"] == patient
        assert measured["split"] == "validation"
        assert (
            report["by_patient"][patient]["dice_pooled"]
            == measured["by_patient"][patient]["dice_pooled"]
        )
    assert (finished / "cross_validation.md").read_text().startswith("# Cross-validation")


def test_last_epoch_is_measured_and_not_the_best(finished):
    measured = json.loads((finished / "fold-anna" / "last_epoch" / "evaluation.json").read_text())
    assert measured["checkpoint"].endswith("checkpoints/latest/epoch-0003-step-000000")
    assert not (finished / "fold-anna" / "evaluation.json").exists()
    assert not (finished / "fold-anna" / "MODEL_CARD.md").exists()


def test_worst_slices_are_drawn(finished):
    with Image.open(finished / "fold-anna" / "last_epoch" / "worst.png") as picture:
        assert picture.width > 1000
        assert picture.height > 1000


def test_finished_folds_are_kept_and_a_lost_one_is_run_again(
    dataset, tmp_path, monkeypatch, caplog
):
    config = make(dataset, tmp_path / "out", epochs=1, folds=("anna",))
    cross_validate(config)
    ran = []
    run = job.train.run
    monkeypatch.setattr(
        job.train, "run", lambda config, **rest: (ran.append(config.hold_out), run(config, **rest))
    )
    with caplog.at_level("INFO"):
        report = cross_validate(dataclasses.replace(config, folds=("bela", "anna")))
    assert ran == ["bela"]
    assert "fold-anna is finished, and kept" in caplog.text
    assert list(report["by_patient"]) == ["anna", "bela"]
    assert report["folds_missing"] == ["cleo"]
    assert "not run yet: cleo" in caplog.text
    (tmp_path / "out" / "fold-anna" / "fold.json").unlink()  # killed before it was measured
    cross_validate(config)
    assert ran == ["bela", "anna"]


def test_fold_that_was_stopped_goes_on(dataset, tmp_path, monkeypatch):
    config = make(dataset, tmp_path / "out", epochs=1, folds=("anna",))

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(job, "evaluate", stop)
        with pytest.raises(KeyboardInterrupt):
            cross_validate(config)
    history = (tmp_path / "out" / "fold-anna" / "history.csv").read_text()
    assert not (tmp_path / "out" / "cross_validation.json").exists()
    report = cross_validate(config)
    assert (tmp_path / "out" / "fold-anna" / "history.csv").read_text() == history
    assert list(report["by_patient"]) == ["anna"]


def test_other_flips_are_measured_anew_without_training(dataset, tmp_path, monkeypatch):
    config = make(dataset, tmp_path / "out", epochs=1, folds=("anna",))
    cross_validate(config)
    checkpoint = next((tmp_path / "out/fold-anna/checkpoints/latest").iterdir())
    before = checkpoint.stat().st_mtime_ns
    report = cross_validate(dataclasses.replace(config, flips="horizontal"))
    assert report["flips"] == "horizontal"
    assert checkpoint.stat().st_mtime_ns == before


def test_folder_of_another_recipe_is_refused(dataset, tmp_path):
    config = make(dataset, tmp_path / "out", epochs=1, folds=("anna",))
    cross_validate(config)
    with pytest.raises(ValueError, match="holds another run .*--seed 0 there, 5 here"):
        cross_validate(make(dataset, tmp_path / "out", epochs=1, folds=("anna",), seed=5))


def test_run_with_more_epochs_than_are_asked_for_is_refused(dataset, tmp_path):
    cross_validate(make(dataset, tmp_path / "out", epochs=2, folds=("anna",)))
    with pytest.raises(ValueError, match="was trained for 2 epochs; expected 1: give as many"):
        cross_validate(make(dataset, tmp_path / "out", epochs=1, folds=("anna",)))


def test_several_workers_are_refused(dataset, tmp_path, monkeypatch):
    cluster = {"worker": ["a:1", "b:1"]}
    text = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}})
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="several workers .* give each machine other --folds"):
        cross_validate(make(dataset, tmp_path / "out"))


def test_patient_who_is_not_there_is_refused(dataset, tmp_path):
    with pytest.raises(ValueError, match="--folds names zoe, .* expected some of anna, bela, cleo"):
        cross_validate(make(dataset, tmp_path / "out", folds=("anna", "zoe")))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("patients", "message"),
    [
        ({}, "does not tell whose slices it has"),
        ({"": 15}, "does not tell whose slices it has"),
        ({"anna": 15}, "has one patient, anna; expected at least 2"),
    ],
)
def test_dataset_without_patients_to_leave_out_is_refused(dataset, tmp_path, patients, message):
    manifest = DatasetManifest.load(dataset)
    splits = {
        name: dataclasses.replace(split, patients=patients)
        for name, split in manifest.splits.items()
    }
    (tmp_path / FILENAME).write_text(dataclasses.replace(manifest, splits=splits).to_json())
    with pytest.raises(ValueError, match=message):
        cross_validate(make(tmp_path, tmp_path / "out"))


def test_worst_slices_come_first_and_slices_without_lung_are_no_candidates(
    dataset, tmp_path, monkeypatch
):
    drawn = []
    monkeypatch.setattr(
        job, "draw_predictions", lambda predictions, path: drawn.extend(predictions)
    )
    slices = DatasetSlices(dataset, DatasetManifest.load(dataset), "validation", hold_out="anna")
    dices = {"anna_z000": 1.0, "anna_z001": 0.9, "anna_z002": 0.3, "anna_z003": 0.5}
    for slice_id in dices:
        (tmp_path / "predicted_masks").mkdir(exist_ok=True)
        pixels = np.full([40, 40], 255, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "predicted_masks" / f"{slice_id}.png")
    entries = [
        {
            "slice_id": slice_id,
            "dice": dice,
            "mask_area_px": 0 if slice_id == "anna_z000" else 9,
            "predicted_area_px": 0,
        }
        for slice_id, dice in dices.items()
    ]
    job._draw_worst({"by_slice": entries}, slices, tmp_path)
    assert [each.slice_id for each in drawn] == ["anna_z002", "anna_z003", "anna_z001"]
    assert [each.kind for each in drawn] == ["worst, 1", "worst, 2", "worst, 3"]
    assert drawn[0].predicted_mask.all()
    assert drawn[0].mask.shape == (40, 40)
    drawn.clear()
    job._draw_worst({"by_slice": entries[:1]}, slices, tmp_path)
    assert drawn == []
