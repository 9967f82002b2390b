import json

import numpy as np
import pytest

from preprocessing.manifest import DatasetManifest
from trainer import simulated_scanners
from trainer.evaluation import job
from trainer.evaluation.config import EvaluationConfig
from trainer.evaluation.job import evaluate
from trainer.evaluation.scanners import SimulatedSlices, check_scanner
from trainer.evaluation.slices import DatasetSlices, open_folders

HALF = np.repeat([[1, 0]], 8, axis=0).repeat(4, axis=1)
"""8x8: the left half is lung."""

TOP = np.repeat([[1], [0]], 4, axis=0).repeat(8, axis=1)
"""8x8: the upper half."""


def test_slices_are_those_of_the_scanner(dataset):
    slices = DatasetSlices(dataset, DatasetManifest.load(dataset), "validation")
    simulated = SimulatedSlices(slices, "vertical_flip")
    assert simulated.num_slices == 5
    assert simulated.origin() == {
        **slices.origin(),
        "scanner": "vertical_flip",
        "scanner_every": 1,
    }
    for plain, flipped in zip(slices.read(), simulated.read(), strict=True):
        assert plain.slice_id == flipped.slice_id
        assert plain.patient_id == flipped.patient_id
        np.testing.assert_array_equal(flipped.image, plain.image[::-1])
        np.testing.assert_array_equal(flipped.mask, plain.mask[::-1])


def test_only_each_third_slice_is_given(dataset):
    slices = DatasetSlices(dataset, DatasetManifest.load(dataset), "validation")
    simulated = SimulatedSlices(slices, "clahe", every=3)
    plain = [each.slice_id for each in slices.read()]
    assert [each.slice_id for each in simulated.read()] == [plain[0], plain[3]]
    assert simulated.num_slices == 2
    assert [each.slice_id for each in simulated.read([plain[3]])] == [plain[3]]


def test_one_scanner_is_measured_and_named(saved_model, folders, tmp_path, caplog):
    folders.add("P1_z1", marked=TOP, mask=TOP)
    settings = {"model": saved_model, **folders.settings()}
    with caplog.at_level("INFO"):
        report = evaluate(
            EvaluationConfig(out=tmp_path / "out", scanner="gantry_circle", **settings)
        )
    assert report["scanner"] == "gantry_circle"
    assert report["by_slice"][0]["mask_area_px"] < 32  # the corners are cut off
    assert " through gantry_circle, 1 slices" in caplog.text


def test_all_scanners_are_measured_beside_the_slices_as_they_are(
    saved_model, folders, tmp_path, monkeypatch, caplog
):
    chosen = {name: simulated_scanners.SCANNERS[name] for name in ("vertical_flip", "dark_gamma")}
    monkeypatch.setattr(job, "SCANNERS", chosen)
    folders.add("P1_z1", marked=TOP, mask=TOP)
    folders.add("P2_z1", marked=HALF, mask=TOP)
    folders.add("P2_z2", marked=HALF, mask=np.zeros([8, 8]))
    with caplog.at_level("INFO"):
        report = evaluate(
            EvaluationConfig(
                model=saved_model, out=tmp_path / "out", scanner="all", **folders.settings()
            )
        )
    assert report == json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert "scanner" not in report
    # Marked and mask are halves: the first agree wholly, the second in a quarter of the slice.
    assert report["overall"]["dice_lung_slices_mean"] == pytest.approx((1 + 0.5) / 2)
    assert report["overall"]["iou_lung_slices_mean"] == pytest.approx((1 + 1 / 3) / 2)
    assert report["overall"]["false_lung_fraction"] == 0.5
    assert report["num_slices_with_false_lung"] == 1
    assert list(report["by_scanner"]) == ["vertical_flip", "dark_gamma"]
    flipped = report["by_scanner"]["vertical_flip"]
    assert flipped["overall"]["dice_lung_slices_mean"] == pytest.approx(0.75)
    assert flipped["by_patient"]["P1"]["dice_lung_slices_mean"] == 1
    assert flipped["by_patient"]["P2"]["dice_lung_slices_mean"] == 0.5
    assert flipped["by_patient"]["P2"]["totals"]["num_pixels"] == 128
    assert "simulated scanner 1 of 2, vertical_flip: Dice 0.7500" in caplog.text


def test_file_that_cannot_be_used_is_listed_once_for_all_scanners(
    saved_model, folders, tmp_path, monkeypatch
):
    monkeypatch.setattr("trainer.evaluation.slices.MAX_REFUSED_FRACTION", 0.5)
    for number in range(3):
        folders.add(f"P1_z{number}", marked=TOP, mask=TOP)
    folders.damage("P1_z1")
    report = evaluate(
        EvaluationConfig(
            model=saved_model, out=tmp_path / "out", scanner="all", **folders.settings()
        )
    )
    assert len(report["refused"]) == report["num_refused_files"] == 1
    assert report["by_scanner"]["clahe"]["by_patient"]["P1"]["num_slices"] == 2


def test_slice_that_is_too_small_to_be_simulated_is_named(folders, tmp_path):
    folders.add("P1_z1", marked=np.ones([4, 4]), mask=np.ones([4, 4]))
    plain = open_folders(
        EvaluationConfig(model=tmp_path, out=tmp_path / "out", **folders.settings())
    )
    with pytest.raises(ValueError, match="slice P1_z1 has shape"):
        list(SimulatedSlices(plain, "clahe").read())


def test_scanner_that_is_not_there_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ValueError, match="--scanner is 'pet'; expected all, or one of crop_to_b"):
        evaluate(EvaluationConfig(run=tmp_path / "none", out=tmp_path, scanner="pet"))
    for name in (None, "all", "clahe"):
        check_scanner(name)
