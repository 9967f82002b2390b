import numpy as np
import pytest

from trainer.evaluation.results import (
    SliceResult,
    count_slices,
    make_row,
    row_of_totals,
    rows_by_patient,
    summarize_row,
    totals_of_row,
)
from trainer.evaluation.surface import SurfaceDistances
from trainer.metrics import TOTALS


def make(
    slice_id: str = "s",
    patient_id: str = "anna",
    *,
    distances: SurfaceDistances | None = None,
    **totals: float,
) -> SliceResult:
    """A slice of 16 pixels, with lung in neither mask unless it is said."""
    defaults = {"num_slices": 1, "num_pixels": 16, "num_correct": 16, "dice_sum": 1, "iou_sum": 1}
    row = [float({**defaults, **totals}.get(name, 0)) for name in TOTALS]
    return SliceResult(slice_id=slice_id, patient_id=patient_id, row=make_row(row, distances))


NEAR = SurfaceDistances(hausdorff_95=2.0, average=1.0)
FAR = SurfaceDistances(hausdorff_95=6.0, average=2.0)


def test_distances_are_averaged_over_the_slices_that_have_them():
    results = [
        make(distances=NEAR, mask_area=1, predicted_area=1),
        make(distances=FAR, mask_area=1, predicted_area=1),
        make(mask_area=3),
        make(predicted_area=3),
        make(),
    ]
    row = np.sum([result.row for result in results], axis=0)
    metrics = summarize_row(row)
    assert metrics["hausdorff_95_per_slice_mean"] == 4
    assert metrics["average_surface_distance_per_slice_mean"] == 1.5
    assert count_slices(row) == {
        "num_slices": 5,
        "num_slices_with_distances": 2,
        "num_slices_one_mask_empty": 2,
        "num_slices_both_masks_empty": 1,
        "num_slices_with_lung": 3,
        "num_slices_with_false_lung": 1,
    }


def test_where_no_slice_has_a_distance_the_mean_is_undefined():
    assert summarize_row(make(mask_area=3).row)["hausdorff_95_per_slice_mean"] is None


def test_loss_that_is_not_known_is_null():
    assert make(loss_sum=float("nan")).figures()["loss"] is None
    assert make(loss_sum=0.25).figures()["loss"] == 0.25


def test_figures_of_a_slice():
    result = make(
        distances=NEAR,
        mask_area=4,
        predicted_area=5,
        intersection=2,
        num_correct=11,
        dice_sum=4 / 9,
        iou_sum=2 / 7,
        loss_sum=0.5,
    )
    assert result.figures() == {
        "slice_id": "s",
        "patient_id": "anna",
        "dice": pytest.approx(4 / 9),
        "iou": pytest.approx(2 / 7),
        "accuracy": 11 / 16,
        "precision": 2 / 5,
        "sensitivity": 2 / 4,
        "specificity": 9 / 12,
        "loss": 0.5,
        "hausdorff_95": 2,
        "average_surface_distance": 1,
        "mask_area_px": 4,
        "predicted_area_px": 5,
    }


def test_rows_of_a_patient_are_added_up():
    rows = rows_by_patient([make(patient_id="bela"), make(patient_id="anna"), make()])
    assert [(name, row[TOTALS.index("num_slices")]) for name, row in rows.items()] == [
        ("anna", 2),
        ("bela", 1),
    ]


def test_slices_with_lung_and_without_are_told_apart():
    # Half found; not found; without lung and 4 of 16 pixels marked; without lung and none marked.
    results = [
        make(mask_area=4, predicted_area=4, intersection=2, dice_sum=0.5, iou_sum=1 / 3),
        make(mask_area=4, dice_sum=0, iou_sum=0),
        make(predicted_area=4, dice_sum=0, iou_sum=0),
        make(),
    ]
    metrics = summarize_row(np.sum([result.row for result in results], axis=0))
    assert metrics["dice_lung_slices_mean"] == 0.25
    assert metrics["iou_lung_slices_mean"] == pytest.approx(1 / 6)
    assert metrics["false_lung_fraction"] == 4 / 32


def test_without_such_slices_their_figures_are_undefined():
    assert summarize_row(make().row)["dice_lung_slices_mean"] is None
    assert summarize_row(make(mask_area=4).row)["false_lung_fraction"] is None


def test_row_survives_a_file():
    row = make(mask_area=4, predicted_area=3, loss_sum=0.25, distances=NEAR).row
    np.testing.assert_array_equal(row_of_totals(totals_of_row(row)), row)
    unknown = make(loss_sum=float("nan")).row
    assert totals_of_row(unknown)["loss_sum"] is None
    np.testing.assert_array_equal(row_of_totals(totals_of_row(unknown)), unknown)


def test_row_of_another_version_is_told():
    with pytest.raises(KeyError, match="loss_sum"):
        row_of_totals({"num_slices": 1})
