"""What is kept of each slice, and what follows from many: figures add up, ratios do not."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.evaluation.surface import SurfaceDistances
from trainer.metrics import TOTALS, summarize

SURFACE_TOTALS = (
    "hausdorff_95_sum",
    "average_surface_distance_sum",
    "num_slices_with_distances",
    "num_slices_one_mask_empty",
    "num_slices_both_masks_empty",
)
"""What is added up of surface distances, which are undefined where a mask is empty."""

LUNG_TOTALS = (
    "num_slices_with_lung",
    "lung_dice_sum",
    "lung_iou_sum",
    "num_slices_with_false_lung",
    "num_false_lung_pixels",
    "num_pixels_without_lung",
)
"""What is added up of slices with lung and, the last three, of slices without: of those whose mask
is empty."""

ROW = (*TOTALS, *SURFACE_TOTALS, *LUNG_TOTALS)
"""Names of the entries of a row of totals."""

HAUSDORFF = "hausdorff_95_per_slice_mean"
AVERAGE_SURFACE_DISTANCE = "average_surface_distance_per_slice_mean"
LUNG_DICE, LUNG_IOU = "dice_lung_slices_mean", "iou_lung_slices_mean"
FALSE_LUNG = "false_lung_fraction"

Row = npt.NDArray[np.float64]
Figure = float | int | None
"""``None``: undefined, or not known."""


@dataclass(frozen=True, kw_only=True)
class SliceResult:
    """The figures of one slice, without its pixels."""

    slice_id: str
    """Which slice it is."""

    patient_id: str
    """Whose slice it is; empty if that is not known."""

    row: Row
    """[len(ROW)] totals of this slice."""

    @property
    def dice(self) -> float:
        """Agreement of the two masks."""
        return self.total("dice_sum")

    @property
    def shows_lung(self) -> bool:
        """Tells whether one of the two masks is not empty."""
        return bool(self.total("mask_area") or self.total("predicted_area"))

    def total(self, name: str) -> float:
        """Gives an entry of the row."""
        return float(self.row[ROW.index(name)])

    def figures(self) -> dict[str, str | Figure]:
        """Gives the entry of this slice in ``evaluation.json``."""
        of_slice = summarize_row(self.row)
        return {
            "slice_id": self.slice_id,
            "patient_id": self.patient_id,
            "dice": self.dice,
            "iou": self.total("iou_sum"),
            "accuracy": of_slice["accuracy"],
            "precision": of_slice["precision"],
            "sensitivity": of_slice["sensitivity"],
            "specificity": of_slice["specificity"],
            "loss": of_slice["loss"],
            "hausdorff_95": of_slice[HAUSDORFF],
            "average_surface_distance": of_slice[AVERAGE_SURFACE_DISTANCE],
            "mask_area_px": int(self.total("mask_area")),
            "predicted_area_px": int(self.total("predicted_area")),
        }


def make_row(totals: Sequence[float], distances: SurfaceDistances | None) -> Row:
    """Joins the totals of one slice, in the order of ``TOTALS``, with its surface distances.

    Returns:
        [len(ROW)] float64.
    """
    areas = totals[TOTALS.index("mask_area")], totals[TOTALS.index("predicted_area")]
    if distances is not None:
        surface = [distances.hausdorff_95, distances.average, 1, 0, 0]
    else:
        surface = [0, 0, 0, int(any(areas)), int(not any(areas))]
    total = dict(zip(TOTALS, totals, strict=True))
    if areas[0]:
        lung = [1, total["dice_sum"], total["iou_sum"], 0, 0, 0]
    else:
        lung = [0, 0, 0, int(areas[1] > 0), areas[1], total["num_pixels"]]
    return np.array([*totals, *surface, *lung], np.float64)


def totals_of_row(row: Row) -> dict[str, float | None]:
    """Gives a row with the names of its entries, for a file; None for a loss that is not known."""
    values = zip(ROW, row.tolist(), strict=True)
    return {name: value if math.isfinite(value) else None for name, value in values}


def row_of_totals(totals: Mapping[str, float | None]) -> Row:
    """Makes a row again of what ``totals_of_row`` gave.

    Returns:
        [len(ROW)] float64.

    Raises:
        KeyError: if one of the entries is missing: another version wrote them.
    """
    values = [totals[name] for name in ROW]
    return np.array([math.nan if value is None else value for value in values], np.float64)


def summarize_row(row: Row) -> dict[str, float | None]:
    """Makes metrics out of a row of totals, of one slice or of many.

    Args:
        row: [len(ROW)] sums over any number of slices.

    Returns:
        Those of ``trainer.metrics.summarize``; the means of the surface distances over the slices
        that have them; the means of Dice and IoU over the slices with lung; and the share of the
        pixels of slices without lung that are predicted lung. None where a metric is undefined.
    """
    metrics = summarize(row[: len(TOTALS)].tolist())
    total = dict(zip(ROW, row.tolist(), strict=True))
    for name, part, whole in (
        (HAUSDORFF, "hausdorff_95_sum", "num_slices_with_distances"),
        (AVERAGE_SURFACE_DISTANCE, "average_surface_distance_sum", "num_slices_with_distances"),
        (LUNG_DICE, "lung_dice_sum", "num_slices_with_lung"),
        (LUNG_IOU, "lung_iou_sum", "num_slices_with_lung"),
        (FALSE_LUNG, "num_false_lung_pixels", "num_pixels_without_lung"),
    ):
        metrics[name] = total[part] / total[whole] if total[whole] else math.nan
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def count_slices(row: Row) -> dict[str, int]:
    """Gives the number of slices, of those with surface distances or not, and with lung or not."""
    names = (
        *("num_slices", *SURFACE_TOTALS[2:]),
        *("num_slices_with_lung", "num_slices_with_false_lung"),
    )
    return {name: int(row[ROW.index(name)]) for name in names}


def rows_by_patient(results: Sequence[SliceResult]) -> dict[str, Row]:
    """Adds up the rows of each patient, in the order of their ids."""
    rows: dict[str, Row] = {}
    for result in results:
        rows[result.patient_id] = rows.get(result.patient_id, 0) + result.row
    return dict(sorted(rows.items()))
