"""A coronal and a sagittal picture of a scan and its lungs, in true proportions."""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from serving.overlay import draw_overlay
from serving.volumes.lungs import NAMES

_TEXT_COLOR = (255, 255, 255)
_MARGIN_PX = 8


def draw_coronal(
    gray_values: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
) -> npt.NDArray[np.uint8]:
    """Draws the lungs from the front: the patient's right is at the left, and marked.

    Args:
        gray_values: [slices, rows, columns]; slices to the head, rows to the back, columns to the
            patient's left.
        labels: of the same shape; above 0 is lung.
        spacing_mm: between slices, rows and columns.

    Returns:
        [height, width, 3] uint8 RGB.
    """
    row = _middle(labels, axis=1)
    return _draw(
        gray_values[::-1, row],
        labels[::-1, row],
        spacing_mm[0] / spacing_mm[2],
        marks=("R", "L"),
    )


def draw_sagittal(
    gray_values: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
) -> npt.NDArray[np.uint8]:
    """Draws the larger lung from the patient's left: the front is at the left, and marked.

    Args and result as those of `draw_coronal`.
    """
    largest = max(NAMES, key=lambda label: np.count_nonzero(labels == label))
    column = _middle(labels == largest, axis=2)
    return _draw(
        gray_values[::-1, :, column],
        labels[::-1, :, column],
        spacing_mm[0] / spacing_mm[1],
        marks=("A", "P"),
    )


def _middle(inside: npt.NDArray[np.generic], *, axis: int) -> int:
    """Gives the index along an axis that parts lung into halves; without lung, the middle."""
    others = tuple(each for each in range(3) if each != axis)
    counts = np.count_nonzero(inside, axis=others)
    if not counts.any():
        return len(counts) // 2
    return int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))


def _draw(
    image: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    stretch: float,
    *,
    marks: tuple[str, str],
) -> npt.NDArray[np.uint8]:
    """Draws an overlay of one cut, its rows stretched to the proportions of the body."""
    height, width = max(1, round(image.shape[0] * stretch)), image.shape[1]
    larger = Image.fromarray(np.ascontiguousarray(image)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    inside = Image.fromarray((np.ascontiguousarray(mask) > 0).astype(np.uint8)).resize(
        (width, height), Image.Resampling.NEAREST
    )
    picture = Image.fromarray(draw_overlay(np.asarray(larger), np.asarray(inside)))
    pen = ImageDraw.Draw(picture)
    for mark, place, anchor in (
        (marks[0], (_MARGIN_PX, picture.height / 2), "lm"),
        (marks[1], (picture.width - _MARGIN_PX, picture.height / 2), "rm"),
    ):
        pen.text(
            place, mark, fill=_TEXT_COLOR, anchor=anchor, font_size=max(12, picture.width // 24),
            stroke_width=1, stroke_fill=(0, 0, 0),
        )  # fmt: skip
    return np.asarray(picture)
