"""Distances to shapes, and smooth fields: arrays in, arrays out."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.floating[Any]]


def smooth_field(coarse: Floats, shape: tuple[int, ...]) -> Floats:
    """Blows a coarse field [rows, columns] up to [height, width] without edges."""
    size = shape[1], shape[0]
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


def superellipse(
    dx: Floats, dy: Floats, *, half_axes: tuple[float, float], power: float = 2.0
) -> Floats:
    """Measures the distance to a rounded box along the ray from its center.

    The outline is u^4 + v^4 + c u^2 v^2 = 1, which takes two square roots where a superellipse
    takes powers; c is set so that both meet on the axes and on the diagonals.

    Args:
        dx: distances from the center along x.
        dy: distances from the center along y.
        half_axes: half axes along x and y, in the same unit.
        power: of the superellipse: 2 for an ellipse, up to 4 for a shape nearer to a box.

    Returns:
        Signed distances, negative inside; the unit and shape of ``dx``.
    """
    u, v = dx * np.float32(1 / half_axes[0]), dy * np.float32(1 / half_axes[1])
    u *= u
    v *= v
    if power == 2.0:
        relative = u + v
    else:
        relative = np.sqrt(u * u + v * v + np.float32(2 ** (4 / power) - 2) * u * v)
    # `relative` is 1 on the outline and grows linearly along a ray from the center.
    relative = np.maximum(np.sqrt(relative, out=relative), np.float32(1e-3), out=relative)
    radius = np.sqrt(dx * dx + dy * dy) + np.float32(1e-3 * min(half_axes))
    return radius - radius / relative


def smooth_max(a: Floats, b: Floats, *, rounding_mm: float) -> Floats:
    """Gives the distance to the intersection of two shapes, its corners rounded.

    Source: polynomial smooth minimum, I. Quilez, "smooth minimum", iquilezles.org/articles/smin.
    """
    k = np.float32(rounding_mm)
    h = np.maximum(k - np.abs(a - b), 0) / k
    return np.maximum(a, b) + h * h * (k / 4)


def smooth_min(a: Floats, b: Floats, *, rounding_mm: float) -> Floats:
    """Gives the distance to the union of two shapes, its corners rounded."""
    return -smooth_max(-a, -b, rounding_mm=rounding_mm)
