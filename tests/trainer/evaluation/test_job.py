import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from preprocessing.manifest import DatasetManifest
from trainer.evaluation import job
from trainer.evaluation.config import EvaluationConfig
from trainer.evaluation.job import choose_slices, evaluate
from trainer.evaluation.models import MeasuredModel
from trainer.evaluation.results import SliceResult, make_row
from trainer.export import ExportConfig, export
from trainer.input_pipeline import read_examples
from trainer.metrics import TOTALS

MASK = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
MARKED = [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
EMPTY = np.zeros([4, 4])


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


def test_pictures_are_drawn(evaluated):
    with Image.open(evaluated / "predictions.png") as picture:
        assert picture.width > 1000


def test_patients_are_told_apart(trained_run, tmp_path):
    report = evaluate(EvaluationConfig(run=trained_run, out=tmp_path, split="train"))
    assert list(report["by_patient"]) == ["anna", "bela"]
    assert report["by_patient"]["anna"]["num_slices"] == 5
    dices = sorted(entry["dice_pooled"] for entry in report["by_patient"].values())
    assert report["intervals"]["by_metric"]["dice_pooled"] == pytest.approx(dices)


def test_checkpoint_of_the_best_epoch_is_the_run(evaluated, trained_run, tmp_path):
    (checkpoint, *_) = (trained_run / "checkpoints" / "best").iterdir()
    report = evaluate(EvaluationConfig(checkpoint=checkpoint, out=tmp_path))
    expected = json.loads((evaluated / "evaluation.json").read_text())
    assert report["overall"] == expected["overall"]
    assert report["checkpoint"] == str(checkpoint)
    assert "run" not in report


def test_dataset_that_is_gone_is_named_with_the_flag_that_helps(dataset, trained_run, tmp_path):
    shutil.copytree(trained_run, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["data"] = "/gone"
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="was trained on /gone, which .*; or give --data, where"):
        evaluate(EvaluationConfig(run=tmp_path / "run", out=tmp_path / "out"))
    report = evaluate(EvaluationConfig(run=tmp_path / "run", out=tmp_path / "out", data=dataset))
    assert report["num_slices"] == 5


def test_saved_model_on_folders_as_counted_by_hand(saved_model, folders, tmp_path):
    folders.add("P1_z1", marked=MARKED, mask=MASK)
    folders.add("P1_z2", marked=EMPTY, mask=EMPTY)
    folders.add("P2_z1", marked=MASK, mask=MASK)
    folders.add("P2_z2", marked=MARKED, mask=EMPTY)
    out = tmp_path / "out"
    report = evaluate(
        EvaluationConfig(model=saved_model, out=out, pixel_spacing_mm=2.0, **folders.settings())
    )
    assert report == json.loads((out / "evaluation.json").read_text())
    assert report["model"] == str(saved_model / "7")
    assert report["num_patients"] == 2
    assert report["num_slices"] == 4
    assert report["distance_unit"] == "mm"
    overall = report["overall"]
    # Lung: 4 + 0 + 4 + 0 pixels, marked: 5 + 0 + 4 + 5, both: 2 + 0 + 4 + 0, of 64.
    assert overall["loss"] is None
    assert overall["accuracy"] == pytest.approx((64 - 2 - 3 - 5) / 64)
    assert overall["dice_pooled"] == pytest.approx(2 * 6 / (8 + 14))
    assert overall["iou_pooled"] == pytest.approx(6 / 16)
    assert overall["precision"] == pytest.approx(6 / 14)
    assert overall["sensitivity"] == pytest.approx(6 / 8)
    assert overall["specificity"] == pytest.approx(48 / 56)
    assert overall["dice_per_slice_mean"] == pytest.approx((4 / 9 + 1 + 1 + 0) / 4)
    # The first slice: from the mask 1, 0, 1, 0; from what is marked 0, 1, 0, 1 and, from the pixel
    # in the corner, the square root of 8. The larger 95th percentile is between the last two.
    hausdorff, average = 1 + 0.8 * (8**0.5 - 1), (4 + 8**0.5) / 9
    assert report["by_slice"][0]["hausdorff_95"] == pytest.approx(2 * hausdorff)
    assert report["by_slice"][0]["average_surface_distance"] == pytest.approx(2 * average)
    assert overall["hausdorff_95_per_slice_mean"] == pytest.approx(2 * hausdorff / 2)
    assert report["num_slices_with_distances"] == 2
    assert report["num_slices_one_mask_empty"] == report["num_slices_both_masks_empty"] == 1
    assert report["by_slice"][3]["hausdorff_95"] is None
    assert report["by_patient"]["P1"]["dice_pooled"] == pytest.approx(4 / 9)
    assert report["by_patient"]["P2"]["dice_pooled"] == pytest.approx(8 / 13)
    assert report["intervals"]["by_metric"]["dice_pooled"] == pytest.approx([4 / 9, 8 / 13])
    assert report["intervals"]["by_metric"]["loss"] is None


def test_without_a_spacing_distances_are_in_pixels(saved_model, folders, tmp_path):
    folders.add("P1_z1", marked=MARKED, mask=MASK)
    config = EvaluationConfig(model=saved_model, out=tmp_path / "out", **folders.settings())
    report = evaluate(config)
    assert (report["distance_unit"], report["pixel_spacing_mm"]) == ("px", None)
    assert report["by_slice"][0]["average_surface_distance"] == pytest.approx((4 + 8**0.5) / 9)


def test_slices_of_several_sizes_are_measured(saved_model, folders, tmp_path):
    folders.add("P1_z1", marked=np.ones([3, 5]), mask=np.ones([3, 5]))
    folders.add("P1_z2", marked=np.ones([7, 2]), mask=np.zeros([7, 2]))
    config = EvaluationConfig(model=saved_model, out=tmp_path / "out", **folders.settings())
    assert evaluate(config)["overall"]["accuracy"] == pytest.approx(15 / 29)


def test_flips_are_averaged_and_the_loss_is_that_of_the_slice_as_it_came(trained_run, tmp_path):
    masks, losses = {}, []
    for flips in ("none", "horizontal", "all"):
        out = tmp_path / flips
        report = evaluate(EvaluationConfig(run=trained_run, out=out, flips=flips, write_masks=True))
        assert report["flips"] == flips
        assert report["overall"]["dice_pooled"] > 0.8
        losses.append(report["overall"]["loss"])
        masks[flips] = [path.read_bytes() for path in sorted(out.glob("predicted_masks/*.png"))]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
    assert masks["none"] != masks["horizontal"] != masks["all"]


def test_run_and_its_saved_model_give_the_same_figures_with_flips_and_cleaning(
    trained_run, dataset, tmp_path
):
    export(ExportConfig(run=trained_run, out=tmp_path / "model"))
    reports = [
        evaluate(
            EvaluationConfig(
                **what,
                data=dataset,
                out=tmp_path / "out",
                flips="all",
                postprocess=True,
            )
        )
        for what in ({"run": trained_run}, {"model": tmp_path / "model"})
    ]
    of_run, of_model = ({**report["overall"], "loss": None} for report in reports)
    assert of_run == of_model


def test_mean_of_flips_is_taken_before_the_threshold(saved_model, folders, tmp_path, monkeypatch):
    def sure_at_the_left(image: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """0.9, 0.3 and 0 at the three columns, whatever is there."""
        row = tf.constant([0.9, 0.3, 0.0])[tf.newaxis, tf.newaxis, :, tf.newaxis]
        return tf.zeros_like(image, tf.float32) + row, tf.fill([tf.shape(mask)[0]], 0.5)

    model = MeasuredModel(flag="model", path=saved_model, predict=sure_at_the_left, config=None)
    monkeypatch.setattr(job, "load_measured_model", lambda config: model)
    folders.add("P1_z1", marked=np.zeros([1, 3]), mask=[[1, 0, 0]])
    areas = {}
    for flips in ("none", "horizontal"):
        config = EvaluationConfig(
            model=saved_model,
            out=tmp_path / "out",
            flips=flips,
            postprocess=False,
            **folders.settings(),
        )
        areas[flips] = evaluate(config)["by_slice"][0]["predicted_area_px"]
    # The means are 0.45, 0.3 and 0.45.
    assert areas == {"none": 1, "horizontal": 0}


def test_masks_are_cleaned_where_that_is_asked_for(saved_model, folders, tmp_path):
    lung = np.zeros([120, 120])
    lung[20:100, 20:50] = 1
    marked = lung.copy()
    marked[50:52, 30:32] = 0  # a vessel: 4 pixels of 14,400
    marked[110, 110] = 1  # a speck
    folders.add("P1_z1", marked=marked, mask=lung)
    for postprocess, dice in ((False, 2 * 2396 / (2400 + 2397)), (True, 1.0)):
        report = evaluate(
            EvaluationConfig(
                model=saved_model,
                out=tmp_path / "out",
                postprocess=postprocess,
                **folders.settings(),
            )
        )
        assert report["postprocess"] is postprocess
        assert report["overall"]["dice_pooled"] == pytest.approx(dice)
        assert report["by_slice"][0]["predicted_area_px"] == (2400 if postprocess else 2397)


def test_where_no_name_tells_a_patient_the_report_says_so(saved_model, folders, tmp_path):
    folders.add("first", marked=MARKED, mask=MASK)
    folders.add("second", marked=MASK, mask=MASK)
    config = EvaluationConfig(model=saved_model, out=tmp_path / "out", **folders.settings())
    report = evaluate(config)
    assert report["num_patients"] is None
    assert report["intervals"]["by_metric"] is None
    assert "no name or folder tells whose slice it is" in report["intervals"]["reason"]
    assert list(report["by_patient"]) == [""]


def test_refused_files_are_listed(saved_model, folders, tmp_path):
    for index in range(100):
        folders.add(f"P1_z{index:03}", marked=MARKED, mask=MASK)
    folders.damage("P1_z007")
    config = EvaluationConfig(model=saved_model, out=tmp_path / "out", **folders.settings())
    report = evaluate(config)
    assert (report["num_slices"], report["num_refused_files"]) == (99, 1)
    assert report["refused"][0]["file"] == "images/P1_z007.png"
    assert report["refused"][0]["reason"].startswith("is a GIF; expected BMP, PNG")


def test_too_many_refused_files_leave_no_report(saved_model, folders, tmp_path):
    for index in range(3):
        folders.add(f"P1_z{index}", marked=MARKED, mask=MASK)
    folders.damage("P1_z2")
    config = EvaluationConfig(model=saved_model, out=tmp_path / "out", **folders.settings())
    with pytest.raises(ValueError, match="1 of 3 slices are refused already"):
        evaluate(config)
    assert list((tmp_path / "out").iterdir()) == []


def test_folder_that_cannot_be_made_is_told_before_anything_is_measured(
    saved_model, folders, tmp_path, monkeypatch
):
    monkeypatch.setattr(job, "_measure", lambda *_: pytest.fail("measured"))
    folders.add("P1_z1", marked=MARKED, mask=MASK)
    (tmp_path / "file").write_text("x")
    out = tmp_path / "file" / "out"
    with pytest.raises(NotADirectoryError):
        evaluate(EvaluationConfig(model=saved_model, out=out, **folders.settings()))


def test_wrong_folder_is_told_before_the_model_is_loaded(tmp_path):
    config = EvaluationConfig(model=tmp_path / "gone", images=tmp_path / "none", out=tmp_path)
    with pytest.raises(ValueError, match="--images .*/none does not exist"):
        evaluate(config)


def test_exhausted_memory_names_the_slice(saved_model, folders, tmp_path, monkeypatch):
    def exhausted(image, mask):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM")

    model = MeasuredModel(flag="model", path=saved_model, predict=exhausted, config=None)
    monkeypatch.setattr(job, "load_measured_model", lambda config: model)
    folders.add("P1_z1", marked=MARKED, mask=MASK)
    config = EvaluationConfig(model=saved_model, out=tmp_path / "out", **folders.settings())
    with pytest.raises(ValueError, match=r"exhausted by slice P1_z1, shape \[4, 4\]; use a device"):
        evaluate(config)


@pytest.mark.parametrize(
    ("marked", "mask", "warning"),
    [
        (EMPTY, MASK, "THE MODEL MARKS NO LUNG AT ALL"),
        (MASK, EMPTY, "NO MASK SHOWS LUNG"),
        (MASK, MASK, ""),
    ],
)
def test_masks_without_any_lung_are_told_loudly(
    saved_model, folders, tmp_path, caplog, marked, mask, warning
):
    caplog.set_level(logging.WARNING, logger="trainer.evaluation.job")
    folders.add("P1_z1", marked=marked, mask=mask)
    evaluate(EvaluationConfig(model=saved_model, out=tmp_path / "out", **folders.settings()))
    assert warning in caplog.text
    assert bool(caplog.text) == bool(warning)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"split": "all"},
            "all splits, 15 slices at their own size: Dice 1.0000 (1.0000 to 1.0000 by patient)",
        ),
        (
            {"split": "train"},
            "train split, 10 slices at their own size: Dice 1.0000 (1.0000 to 1.0000 by patient)",
        ),
    ],
)
def test_last_line_says_what_was_measured(
    saved_model, dataset, tmp_path, caplog, settings, message
):
    caplog.set_level(logging.INFO, logger="trainer.evaluation.job")
    evaluate(EvaluationConfig(model=saved_model, data=dataset, out=tmp_path, **settings))
    assert message in caplog.text


def result_of(slice_id: str, dice: float, *, area: int = 1) -> SliceResult:
    totals = {"dice_sum": dice, "mask_area": area, "num_slices": 1}
    row = make_row([float(totals.get(name, 0)) for name in TOTALS], None)
    return SliceResult(slice_id=slice_id, patient_id="", row=row)


@pytest.mark.parametrize(
    ("num_slices", "kinds"),
    [
        (1, ["best"]),
        (2, ["worst", "best"]),
        (3, ["worst", "median", "best"]),
        (5, ["worst", "median", "best"]),
        (6, ["worst", "worst", "median", "median", "best", "best"]),
        (50, ["worst", "worst", "median", "median", "best", "best"]),
    ],
)
def test_as_many_slices_of_each_kind_are_drawn(num_slices, kinds):
    results = [result_of(f"s{index:02}", index / 50) for index in range(num_slices)]
    chosen = choose_slices(results)
    assert list(chosen.values()) == kinds
    assert list(chosen) == sorted(chosen)
    if num_slices == 50:
        assert list(chosen) == ["s00", "s01", "s24", "s25", "s48", "s49"]


def test_slices_without_lung_are_drawn_only_where_there_are_no_others():
    empty = [result_of(f"e{index}", 1.0, area=0) for index in range(5)]
    lung = [result_of(f"s{index}", 0.5) for index in range(3)]
    assert set(choose_slices([*empty, *lung])) == {"s0", "s1", "s2"}
    assert set(choose_slices(empty)) == {"e0", "e2", "e4"}
