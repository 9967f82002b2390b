"""What is measured of a slice and its mask, before anybody judges it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SPECK_SHARE = 1e-4
"""A part of a mask below this share of the slice is a speck: 26 pixels of 512x512."""

EDGE_WINDOW_SHARE = 1 / 64
"""Side of the window in which inside and outside are compared, as a share of the longer side."""

MIN_EDGE_WINDOW_PX = 3

MIN_EDGE_GRAY_VALUES = 10
"""A rim follows an edge where the outside is brighter than the inside by more than this.

Lung against chest wall differs by some 50 gray values in the widest window that is in use
(4,096 HU), and by 100 and more in common ones.
"""

_WITH_DIAGONALS = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measures:
    """Figures of one slice and its mask."""

    num_pixels: int
    """Pixels of the slice."""

    lung_area_px: int
    """Pixels of lung."""

    border_px: int
    """Pixels of lung in the outermost rows and columns of the slice."""

    num_parts: int
    """Connected parts of the mask, without specks; pixels that touch at a corner are connected."""

    num_specks: int
    """Connected parts of the mask that are specks."""

    hole_area_px: int
    """Pixels of background that the mask encloses."""

    num_gray_values: int
    """How many different gray values the slice has."""

    gray_value_mean: float
    """Mean gray value of the slice, 0 to 255."""

    edge_agreement: float | None
    """Share of the mask's rim, 0 to 1, along which the slice is brighter outside than inside; None
    for a mask without a rim: empty or full."""

    @property
    def lung_share(self) -> float:
        """Gives the share of the slice that is lung, 0 to 1."""
        return self.lung_area_px / self.num_pixels


def measure(*, image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> Measures:
    """Measures one slice and its mask.

    Args:
        image: [height, width] uint8 gray values.
        mask: [height, width] uint8 in {0, 1}; 1 is lung.
    """
    inside = mask > 0
    counts = np.bincount(image.ravel(), minlength=256)
    num_parts, num_specks = _count_parts(inside)
    return Measures(
        num_pixels=inside.size,
        lung_area_px=int(inside.sum()),
        border_px=int(inside.sum() - inside[1:-1, 1:-1].sum()),
        num_parts=num_parts,
        num_specks=num_specks,
        hole_area_px=_hole_area_px(inside),
        num_gray_values=int(np.count_nonzero(counts)),
        gray_value_mean=float(counts @ np.arange(256)) / image.size,
        edge_agreement=_edge_agreement(image, inside),
    )


def _count_parts(inside: NDArray[np.bool_]) -> tuple[int, int]:
    """Gives the number of parts that are no specks, and of those that are."""
    labels, num_labels = ndimage.label(inside, structure=_WITH_DIAGONALS)
    areas_px = np.bincount(labels.ravel(), minlength=num_labels + 1)[1:]
    num_specks = int(np.count_nonzero(areas_px < SPECK_SHARE * inside.size))
    return num_labels - num_specks, num_specks


def _hole_area_px(inside: NDArray[np.bool_]) -> int:
    # Where lung is connected over corners, background is not.
    labels, num_labels = ndimage.label(~inside)
    areas_px = np.bincount(labels.ravel(), minlength=num_labels + 1)
    open_labels = np.concatenate((labels[0], labels[-1], labels[:, 0], labels[:, -1]))
    areas_px[open_labels] = 0
    areas_px[0] = 0  # lung
    return int(areas_px.sum())


def _edge_agreement(image: NDArray[np.uint8], inside: NDArray[np.bool_]) -> float | None:
    """Compares the means of inside and outside in a window around each pixel of the rim.

    In CT, lung is darker than what surrounds it, whatever the display window; so the rim of a right
    mask runs along an edge all the way, and that of a shifted, mirrored or strange one meets
    edges by chance only.
    """
    window = _edge_window_px(inside.shape)
    part = _around(inside, margin=window)
    inside = inside[part]
    gray = image[part].astype(np.float32)
    # A pixel at the border of the slice has no outside to be compared with.
    rim = inside & ~ndimage.binary_erosion(inside, _WITH_DIAGONALS, border_value=1)
    if not rim.any():
        return None
    share = ndimage.uniform_filter(inside.astype(np.float32), window)[rim]
    mean = ndimage.uniform_filter(gray, window)[rim]
    mean_of_inside = ndimage.uniform_filter(gray * inside, window)[rim]
    gray_inside = mean_of_inside / share
    gray_outside = (mean - mean_of_inside) / (1 - share)
    return float(np.mean(gray_outside > gray_inside + MIN_EDGE_GRAY_VALUES))


def _edge_window_px(shape: tuple[int, ...]) -> int:
    """Gives an odd number: 9 for 512x512."""
    return max(MIN_EDGE_WINDOW_PX, 2 * round(max(shape) * EDGE_WINDOW_SHARE / 2) + 1)


def _around(inside: NDArray[np.bool_], *, margin: int) -> tuple[slice, slice]:
    """Gives the rectangle around the mask; windows beyond it hold nothing to compare."""
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not rows.size:
        return slice(0, 0), slice(0, 0)
    return (
        slice(max(rows[0] - margin, 0), rows[-1] + margin + 1),
        slice(max(columns[0] - margin, 0), columns[-1] + margin + 1),
    )
