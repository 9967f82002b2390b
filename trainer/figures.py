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
SIZE_COLOR = "#999999"
REFERENCE_COLOR, PREDICTION_COLOR = "#00d0ff", "#ff9d00"

PANELS = (
    ("accuracy", "Accuracy (share of pixels)"),
    ("loss", "Loss"),
    ("dice_pooled", "Dice (pooled)"),
    ("iou_pooled", "IoU (pooled)"),
)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A slice, its reference mask, and the mask that a model predicts."""

    kind: str
    """Why it is drawn, such as ``worst``."""

    slice_id: str
    """Which slice it is."""

    image: np.ndarray
    """[height, width] uint8 gray values."""

    mask: np.ndarray
    """[height, width] uint8 in {0, 1}: the reference."""

    predicted_mask: np.ndarray
    """[height, width] uint8 in {0, 1}."""

    caption: str
    """How well the two masks agree."""


def draw_curves(rows: Sequence[Row], path: Path) -> None:
    """Draws accuracy, loss, Dice and IoU over the epochs, on training and on validation.

    Args:
        rows: of ``history.csv``.
        path: of the PNG.

    Where the size of the slices grew on the way, the epochs of each size are marked: figures of one
    size are not those of another.
    """
    figure = Figure(figsize=(10, 7), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    best = best_epoch(rows)
    for axes, (metric, title) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        marker = "o" if len(rows) < 15 else None
        for split, color in (("train", TRAIN_COLOR), ("validation", VALIDATION_COLOR)):
            values = [row[f"{split}_{metric}"] for row in rows]
            axes.plot(epochs, values, color=color, label=split, marker=marker, markersize=3)
        _mark_sizes(axes, rows)
        axes.axvline(best, color=BEST_COLOR, linestyle=":", label=f"best epoch ({best})")
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    figure.axes[0].legend(loc="lower right")  # accuracy rises
    _save(figure, path)


def _mark_sizes(axes: Axes, rows: Sequence[Row]) -> None:
    """Tells from which epoch on slices had which size, if it grew on the way."""
    sizes = [int(row["image_size"]) for row in rows]
    for size in sorted(set(sizes)) if len(set(sizes)) > 1 else ():
        last = sizes.index(size) + sizes.count(size)
        if last < len(sizes):
            axes.axvline(last + 0.5, color=SIZE_COLOR, linewidth=0.8)
        # Across: epochs, at the end, where the curves are flat; upwards: the share of the axes.
        axes.text(
            *(last + 0.3, 0.5, f"{size} px"),
            transform=axes.get_xaxis_transform(),
            color=SIZE_COLOR,
            fontsize=8,
            rotation=90,
            va="center",
            ha="right",
        )


def draw_predictions(predictions: Sequence[Prediction], path: Path) -> None:
    """Draws a row for each slice: slice, reference mask, prediction, and both outlines.

    In the prediction, what is missed and what is too much has the color of the mask that it is in.

    Args:
        predictions: from the worst to the best.
        path: of the PNG.
    """
    figure = Figure(figsize=(12.4, 3.15 * len(predictions) + 0.4), layout="constrained")
    grid = figure.subplots(len(predictions), 4, squeeze=False)
    for row, prediction in zip(grid, predictions, strict=True):
        _show(row[0], prediction.image, prediction.slice_id)
        _show(row[1], prediction.mask * 255, "reference mask")
        _show(row[2], _compared(prediction), f"prediction: {prediction.caption}")
        _show(row[3], prediction.image, "outlines of both")
        _outline(row[3], prediction.mask, REFERENCE_COLOR)
        _outline(row[3], prediction.predicted_mask, PREDICTION_COLOR)
        # The axes are switched off, and so would be a label of theirs.
        row[0].text(
            *(-0.06, 0.5, prediction.kind),
            transform=row[0].transAxes,
            rotation=90,
            ha="center",
            va="center",
            fontsize=14,
            weight="bold",
        )
    handles = [
        matplotlib.lines.Line2D([], [], color=color, label=label)
        for color, label in (
            (REFERENCE_COLOR, "reference, and what the prediction misses"),
            (PREDICTION_COLOR, "prediction, and what is too much of it"),
        )
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    _save(figure, path)


def _compared(prediction: Prediction) -> np.ndarray:
    """Gives [height, width, 3] uint8: white where both masks are lung."""
    lung, predicted = prediction.mask > 0, prediction.predicted_mask > 0
    colors = np.zeros((*lung.shape, 3))
    colors[lung & predicted] = 1
    colors[lung & ~predicted] = matplotlib.colors.to_rgb(REFERENCE_COLOR)
    colors[predicted & ~lung] = matplotlib.colors.to_rgb(PREDICTION_COLOR)
    return (255 * colors).astype(np.uint8)


def _show(axes: Axes, pixels: np.ndarray, title: str) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def _outline(axes: Axes, mask: np.ndarray, color: str) -> None:
    is_drawable = min(mask.shape) > 1 and mask.any() and not mask.all()
    if is_drawable:  # matplotlib refuses a single line of pixels, and warns of contours nowhere
        axes.contour(mask, levels=[0.5], colors=[color], linewidths=0.9)


def _save(figure: Figure, path: Path) -> None:
    with whole_file(path) as aside:
        figure.savefig(aside, dpi=110)
