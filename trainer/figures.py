"""The pictures of a run: its curves, and slices beside what was made of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from preprocessing.publish import whole_file
from trainer.history import Row, best_epoch

TRAIN_COLOR, VALIDATION_COLOR, BEST_COLOR = "#4c78a8", "#e45756", "#7f7f7f"
REFERENCE_COLOR, PREDICTION_COLOR = "#00d0ff", "#ff9d00"

PANELS = (
    ("accuracy", "Accuracy (share of pixels)"),
    ("loss", "Loss (binary cross-entropy)"),
    ("dice_pooled", "Dice (pooled)"),
    ("iou_pooled", "IoU (pooled)"),
)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A slice, its reference mask, and the mask that a model predicts."""

    slice_id: str
    """Which slice it is."""

    patient_id: str
    """Whose slice it is."""

    image: np.ndarray
    """[height, width] uint8 gray values."""

    mask: np.ndarray
    """[height, width] uint8 in {0, 1}: the reference."""

    predicted_mask: np.ndarray
    """[height, width] uint8 in {0, 1}."""

    dice: float
    """Agreement of the two masks."""


def draw_curves(rows: Sequence[Row], path: Path) -> None:
    """Draws accuracy, loss, Dice and IoU over the epochs, on training and on validation.

    Args:
        rows: of ``history.csv``.
        path: of the PNG.
    """
    figure = Figure(figsize=(10, 7), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    best = best_epoch(rows)
    for axes, (metric, title) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        marker = "o" if len(rows) < 15 else None
        for split, color in (("train", TRAIN_COLOR), ("validation", VALIDATION_COLOR)):
            values = [row[f"{split}_{metric}"] for row in rows]
            axes.plot(epochs, values, color=color, label=split, marker=marker, markersize=3)
        axes.axvline(best, color=BEST_COLOR, linestyle=":", label=f"best epoch ({best})")
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    _save(figure, path)


def draw_predictions(predictions: Sequence[Prediction], path: Path) -> None:
    """Draws a row for each slice: slice, reference mask, prediction, and both outlines.

    Args:
        predictions: from the worst to the best.
        path: of the PNG.
    """
    figure = Figure(figsize=(12, 3.15 * len(predictions)), layout="constrained")
    grid = figure.subplots(len(predictions), 4, squeeze=False)
    for row, prediction in zip(grid, predictions, strict=True):
        _show(row[0], prediction.image, prediction.slice_id)
        _show(row[1], prediction.mask * 255, "reference mask")
        _show(row[2], prediction.predicted_mask * 255, f"prediction, Dice {prediction.dice:.3f}")
        _show(row[3], prediction.image, "outlines: reference, prediction")
        _outline(row[3], prediction.mask, REFERENCE_COLOR)
        _outline(row[3], prediction.predicted_mask, PREDICTION_COLOR)
    handles = [
        matplotlib.lines.Line2D([], [], color=color, label=label)
        for color, label in ((REFERENCE_COLOR, "reference"), (PREDICTION_COLOR, "prediction"))
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    _save(figure, path)


def _show(axes: Axes, pixels: np.ndarray, title: str) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def _outline(axes: Axes, mask: np.ndarray, color: str) -> None:
    if mask.any() and not mask.all():  # matplotlib warns of contours that are nowhere
        axes.contour(mask, levels=[0.5], colors=[color], linewidths=0.9)


def _save(figure: Figure, path: Path) -> None:
    with whole_file(path) as aside:
        figure.savefig(aside, dpi=110)
