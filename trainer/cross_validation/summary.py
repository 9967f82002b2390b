"""What the figures of the patients come to: their mean, pooled, and by simulated scanner."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.evaluation.intervals import MIN_PATIENTS, Interval, bootstrap_intervals
from trainer.evaluation.results import (
    AVERAGE_SURFACE_DISTANCE,
    FALSE_LUNG,
    HAUSDORFF,
    LUNG_DICE,
    LUNG_IOU,
    count_slices,
    row_of_totals,
    summarize_row,
)

METRICS = (
    *(LUNG_DICE, LUNG_IOU, "dice_pooled", "iou_pooled", HAUSDORFF, AVERAGE_SURFACE_DISTANCE),
    *(FALSE_LUNG, "accuracy"),
)
"""Figures of a patient of which the mean over patients is taken."""

Figures = Mapping[str, Any]
"""Of one patient, as in ``by_patient`` of ``evaluation.json``."""


def summarize_reports(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Makes the figures of cross-validation out of those of its folds.

    The mean over patients gives each patient the same weight, and each slice with lung of a patient
    the same within it. Intervals are those of ``trainer.evaluation.intervals``.

    Args:
        reports: contents of ``evaluation.json``, each measured with ``--scanner all`` on other
            patients.

    Returns:
        ``mean_of_patients`` and its ``intervals``, ``pooled`` and its intervals, ``scanners``, the
        numbers of slices, and ``by_patient``; ``None`` where a figure is undefined.

    Raises:
        ValueError: if a patient is in two reports, or there is none.
    """
    by_patient = _merged([report["by_patient"] for report in reports])
    scanners = {
        name: _merged([report["by_scanner"][name]["by_patient"] for report in reports])
        for name in (reports[0]["by_scanner"] if reports else ())
    }
    rows = {patient: row_of_totals(each["totals"]) for patient, each in by_patient.items()}
    total = np.sum(list(rows.values()), axis=0)
    of_patients = {name: [each[name] for each in by_patient.values()] for name in METRICS}
    pooled_intervals: Mapping[str, Interval] = {}
    if len(rows) >= MIN_PATIENTS:
        pooled_intervals = bootstrap_intervals(list(rows.values()), summarize_row)
    return {
        "num_patients": len(by_patient),
        **count_slices(total),
        "mean_of_patients": {name: mean_of(values) for name, values in of_patients.items()},
        "intervals": {name: interval_of(values) for name, values in of_patients.items()},
        "pooled": summarize_row(total),
        "pooled_intervals": dict(pooled_intervals) or None,
        "scanners": _summarize_scanners(scanners),
        "by_patient": {
            patient: {name: value for name, value in each.items() if name != "totals"}
            for patient, each in by_patient.items()
        },
    }


def mean_of(values: Sequence[float | None]) -> float | None:
    """Takes the mean of what is defined; ``None`` where nothing is."""
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else None


def interval_of(values: Sequence[float | None]) -> Interval:
    """Gives the bootstrap interval of the mean of one figure of each patient.

    Returns:
        Lower and upper end; ``None`` for fewer than two patients, or where nothing is defined.
    """
    if len(values) < MIN_PATIENTS:
        return None
    rows = [np.array([value or 0.0, value is not None], np.float64) for value in values]
    return bootstrap_intervals(rows, _mean_of_row)["mean"]


def _mean_of_row(row: npt.NDArray[np.float64]) -> dict[str, float | None]:
    total, num_defined = row.tolist()
    return {"mean": total / num_defined if num_defined else None}


def _merged(parts: Sequence[Mapping[str, Figures]]) -> dict[str, Figures]:
    merged: dict[str, Figures] = {}
    for part in parts:
        twice = merged.keys() & part.keys()
        if twice:
            raise ValueError(f"patient {min(twice)} was measured twice; expected each of them once")
        merged |= part
    if not merged:
        raise ValueError("no patient was measured; expected one at least")
    return dict(sorted(merged.items()))


def _summarize_scanners(scanners: Mapping[str, Mapping[str, Figures]]) -> dict[str, Any]:
    """Gives the Dice of each scanner, their mean, and the worst of them.

    All are means over patients of the mean over slices with lung.
    """
    dices = {
        name: {patient: each[LUNG_DICE] for patient, each in by_patient.items()}
        for name, by_patient in scanners.items()
    }
    means = {name: mean_of(list(each.values())) for name, each in dices.items()}
    defined = {name: mean for name, mean in means.items() if mean is not None}
    patients = next(iter(dices.values()), {})
    means_of_patients = [
        mean_of([each[patient] for each in dices.values()]) for patient in patients
    ]
    worst = min(defined, key=lambda name: defined[name]) if defined else None
    return {
        "mean": mean_of(list(means.values())),
        "interval": interval_of(means_of_patients),
        "worst": worst,
        "worst_dice": defined[worst] if worst else None,
        "by_scanner": {
            name: {
                LUNG_DICE: means[name],
                "interval": interval_of(list(dices[name].values())),
                FALSE_LUNG: mean_of([each[FALSE_LUNG] for each in by_patient.values()]),
                "dice_by_patient": dices[name],
            }
            for name, by_patient in scanners.items()
        },
    }
