"""The figures of cross-validation as tables for people: ``cross_validation.md``."""

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.evaluation.intervals import Interval
from trainer.evaluation.results import (
    AVERAGE_SURFACE_DISTANCE,
    FALSE_LUNG,
    HAUSDORFF,
    LUNG_DICE,
    LUNG_IOU,
)

NOT_KNOWN = "–"

_COLUMNS = (
    ("Dice", LUNG_DICE, 1, 4),
    ("IoU", LUNG_IOU, 1, 4),
    ("Dice, pooled", "dice_pooled", 1, 4),
    ("IoU, pooled", "iou_pooled", 1, 4),
    ("HD95, {unit}", HAUSDORFF, 1, 1),
    ("ASD, {unit}", AVERAGE_SURFACE_DISTANCE, 1, 2),
    ("false lung, %", FALSE_LUNG, 100, 3),
)
"""Title, name of the figure, factor, and digits."""


def make_tables(report: Mapping[str, Any]) -> str:
    """Makes Markdown of the content of ``cross_validation.json``."""
    return "\n".join(
        [
            "# Cross-validation",
            "",
            *_introduction(report),
            "",
            *_patients(report),
            "",
            "Dice and IoU are means over the slices with lung; HD95 and ASD over the slices on",
            "which both masks show lung. False lung is the share of the pixels of slices without",
            "lung. In brackets: 95 % intervals by bootstrap over patients.",
            "",
            *_scanners(report["scanners"]),
            "",
        ]
    )


def _introduction(report: Mapping[str, Any]) -> Sequence[str]:
    lines = [
        f"Each of {report['num_patients']} patients was left out of a training of their own,",
        f"and measured with the weights after its last epoch, number {report['epochs']}.",
        f"Recipe: {report['recipe']}. Flips: {report['flips']}; masks are "
        f"{'cleaned' if report['postprocess'] else 'not cleaned'}.",
    ]
    if report["folds_missing"]:
        lines.append(f"Not run yet: {', '.join(report['folds_missing'])}.")
    return lines


def _patients(report: Mapping[str, Any]) -> Sequence[str]:
    titles = [title.format(unit=report["distance_unit"]) for title, *_ in _COLUMNS]
    titles += ["slices with false lung", "slices with lung", "without"]
    lines = _head(["patient", *titles])
    for patient, figures in report["by_patient"].items():
        lines.append(_line([patient, *_values(figures), *_counts(figures)]))
    means = _values(report["mean_of_patients"], report["intervals"])
    lines.append(_line(["mean of patients", *means, *_counts(report)]))
    pooled = _values(report["pooled"], report["pooled_intervals"] or {})
    lines.append(_line(["all slices as one", *pooled, *_counts(report)]))
    return lines


def _scanners(scanners: Mapping[str, Any]) -> Sequence[str]:
    lines = _head(["simulated scanner", "Dice", "false lung, %"])
    for name, figures in scanners["by_scanner"].items():
        dice = number(figures[LUNG_DICE], 4, interval=figures["interval"])
        lines.append(_line([name, dice, number(figures[FALSE_LUNG], 3, factor=100)]))
    mean = number(scanners["mean"], 4, interval=scanners["interval"])
    lines.append(_line(["mean of all", mean, ""]))
    worst = number(scanners["worst_dice"], 4)
    lines.append(_line([f"worst: {scanners['worst'] or NOT_KNOWN}", worst, ""]))
    return lines


def _values(
    figures: Mapping[str, Any], intervals: Mapping[str, Interval] | None = None
) -> list[str]:
    return [
        number(figures[name], digits, factor=factor, interval=(intervals or {}).get(name))
        for _, name, factor, digits in _COLUMNS
    ]


def _counts(figures: Mapping[str, Any]) -> list[str]:
    with_lung = figures["num_slices_with_lung"]
    without = figures["num_slices"] - with_lung
    return [f"{figures['num_slices_with_false_lung']} of {without}", str(with_lung), str(without)]


def number(
    value: float | None, digits: int, *, factor: float = 1, interval: Interval = None
) -> str:
    """Writes a figure and, where there is one, its interval."""
    if value is None:
        return NOT_KNOWN
    text = f"{factor * value:.{digits}f}"
    if interval is None:
        return text
    low, high = (f"{factor * end:.{digits}f}" for end in interval)
    return f"{text} ({low} to {high})"


def _head(titles: Sequence[str]) -> list[str]:
    return [_line(titles), "| --- " + "| ---: " * (len(titles) - 1) + "|"]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
