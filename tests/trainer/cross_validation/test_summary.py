import numpy as np
import pytest

from trainer.cross_validation.summary import interval_of, mean_of, summarize_reports
from trainer.evaluation.results import (
    count_slices,
    make_row,
    summarize_row,
    totals_of_row,
)
from trainer.evaluation.surface import SurfaceDistances
from trainer.metrics import TOTALS

DISTANCES = SurfaceDistances(hausdorff_95=3.0, average=1.0)


def slice_row(lung: int, predicted: int, both: int) -> np.ndarray:
    """A slice of 100 pixels."""
    areas = lung + predicted
    values = {
        "loss_sum": 0.5,
        "num_slices": 1,
        "num_pixels": 100,
        "num_correct": 100 - areas + 2 * both,
        "intersection": both,
        "mask_area": lung,
        "predicted_area": predicted,
        "dice_sum": 2 * both / areas if areas else 1,
        "iou_sum": both / (areas - both) if areas else 1,
    }
    distances = DISTANCES if lung and predicted else None
    return make_row([values[name] for name in TOTALS], distances)


def figures(*rows: np.ndarray) -> dict:
    row = np.sum(rows, axis=0)
    return {**count_slices(row), **summarize_row(row), "totals": totals_of_row(row)}


ANNA = figures(slice_row(20, 20, 10), slice_row(10, 10, 10), slice_row(0, 3, 0))
"""Dice 0.5 and 1 on slices with lung, and 3 % false lung on the one without."""

BELA = figures(slice_row(10, 30, 10), slice_row(0, 0, 0))
"""Dice 0.5, and no false lung."""


def report(**by_patient: dict) -> dict:
    """Two scanners: one as it is, and one on which Anna's lungs are not found."""
    blind = {name: figures(slice_row(10, 0, 0)) for name in by_patient}
    return {
        "by_patient": by_patient,
        "by_scanner": {"same": {"by_patient": by_patient}, "blind": {"by_patient": blind}},
    }


def test_each_patient_has_the_same_weight_in_the_mean():
    summary = summarize_reports([report(bela=BELA), report(anna=ANNA)])
    assert list(summary["by_patient"]) == ["anna", "bela"]
    mean = summary["mean_of_patients"]
    assert mean["dice_lung_slices_mean"] == pytest.approx((0.75 + 0.5) / 2)
    assert mean["iou_lung_slices_mean"] == pytest.approx(((1 / 3 + 1) / 2 + 1 / 3) / 2)
    assert mean["false_lung_fraction"] == pytest.approx((0.03 + 0) / 2)
    assert mean["hausdorff_95_per_slice_mean"] == 3
    assert summary["intervals"]["dice_lung_slices_mean"] == pytest.approx([0.5, 0.75])


def test_pooled_figures_are_those_of_all_pixels():
    summary = summarize_reports([report(bela=BELA), report(anna=ANNA)])
    # Lung: 20 + 10 + 10 pixels; predicted: 20 + 10 + 3 + 30; both: 10 + 10 + 10.
    assert summary["pooled"]["dice_pooled"] == pytest.approx(60 / 103)
    assert summary["pooled"]["iou_pooled"] == pytest.approx(30 / 73)
    assert summary["pooled"]["false_lung_fraction"] == pytest.approx(3 / 200)
    assert summary["pooled_intervals"]["dice_pooled"] == pytest.approx([20 / 40, 40 / 63])
    assert summary["num_slices"] == 5
    assert summary["num_slices_with_lung"] == 3
    assert summary["num_slices_with_false_lung"] == 1


def test_scanners_have_their_mean_and_their_worst():
    scanners = summarize_reports([report(bela=BELA), report(anna=ANNA)])["scanners"]
    assert scanners["by_scanner"]["same"]["dice_lung_slices_mean"] == pytest.approx(0.625)
    assert scanners["by_scanner"]["same"]["dice_by_patient"] == {
        "anna": pytest.approx(0.75),
        "bela": pytest.approx(0.5),
    }
    assert scanners["by_scanner"]["same"]["false_lung_fraction"] == pytest.approx(0.015)
    assert scanners["by_scanner"]["blind"]["false_lung_fraction"] is None
    assert scanners["mean"] == pytest.approx(0.625 / 2)
    # By patient: 0.75 and 0 in the mean, 0.5 and 0.
    assert scanners["interval"] == pytest.approx([0.25, 0.375])
    assert (scanners["worst"], scanners["worst_dice"]) == ("blind", 0)


def test_one_patient_has_no_interval():
    summary = summarize_reports([report(anna=ANNA)])
    assert summary["mean_of_patients"]["dice_lung_slices_mean"] == 0.75
    assert summary["intervals"]["dice_lung_slices_mean"] is None
    assert summary["pooled_intervals"] is None


def test_patient_without_lung_is_left_out_of_the_mean_of_dice():
    empty = figures(slice_row(0, 1, 0))
    summary = summarize_reports([report(anna=ANNA, bela=BELA, cleo=empty)])
    assert summary["mean_of_patients"]["dice_lung_slices_mean"] == pytest.approx(0.625)
    assert summary["mean_of_patients"]["false_lung_fraction"] == pytest.approx(0.04 / 3)


def test_where_nothing_is_defined_neither_is_the_mean():
    assert mean_of([None, None]) is None
    assert interval_of([None, None]) is None
    summary = summarize_reports([report(anna=figures(slice_row(0, 0, 0)))])
    assert summary["mean_of_patients"]["dice_lung_slices_mean"] is None


def test_scanners_that_are_all_undefined_have_no_worst():
    empty = {"by_patient": {"anna": figures(slice_row(0, 0, 0))}}
    scanners = summarize_reports([{**empty, "by_scanner": {"same": empty}}])["scanners"]
    assert (scanners["mean"], scanners["worst"], scanners["worst_dice"]) == (None, None, None)


def test_patient_who_was_measured_twice_is_refused():
    with pytest.raises(ValueError, match="patient anna was measured twice"):
        summarize_reports([report(anna=ANNA), report(anna=ANNA)])


def test_no_patient_at_all_is_refused():
    with pytest.raises(ValueError, match="no patient was measured"):
        summarize_reports([])
