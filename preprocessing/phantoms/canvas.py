"""Shapes with soft edges, painted one over the other in Hounsfield units.

A canvas also knows how much of each pixel is lung. Painting covers what lies beneath, lung
too; only ``paint_lung`` adds lung. So the order of painting alone decides what the mask holds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from preprocessing.phantoms.shapes import Floats, smooth_field, superellipse

Window = tuple[slice, slice]
_Length = TypeVar("_Length", float, Floats)

WHOLE: Window = (slice(None), slice(None))
"""The window that is all of the canvas."""

AIR_HU = -1000.0
"""Density of air, by definition of the Hounsfield unit."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where the pixels of a slice lie, in millimeters of the scanner.

    x counts to the right of the image from its center line, y down from the top of the couch.
    """

    image_size: int
    """Height and width in pixels."""

    fov_mm: float
    """Field of view: height and width in millimeters."""

    x_mm: float
    """x of the center of the image."""

    y_mm: float
    """y of the center of the image."""

    @property
    def pixel_mm(self) -> float:
        """Height and width of a pixel."""
        return self.fov_mm / self.image_size

    def axes(self) -> tuple[Floats, Floats]:
        """Gives x [1, width] and y [height, 1] of the pixel centers."""
        centered = (np.arange(self.image_size, dtype=np.float32) + 0.5) * np.float32(self.pixel_mm)
        centered -= np.float32(self.fov_mm / 2)
        return centered[None, :] + np.float32(self.x_mm), centered[:, None] + np.float32(self.y_mm)


@dataclass(frozen=True, kw_only=True)
class Pose:
    """How reference millimeters become millimeters of the scanner."""

    width_scale: float
    """Scanner millimeters for one of the reference, along x."""

    depth_scale: float
    """The same along y."""

    roll_degrees: float
    """Turn of the body, counter-clockwise on the screen."""

    back_mm: float
    """Reference y that touches the couch."""


class Canvas:
    """A slice in the making.

    Attributes:
        x: [height, width] float32, reference millimeters to the left of the patient.
        y: [height, width] float32, reference millimeters to the back of the patient.
        hu: [height, width] float32, density painted so far; air to begin with.
        lung: [height, width] float32, share of each pixel that is lung, 0 to 1.
        edge_mm: width of an edge that is as sharp as the pixels allow, in reference millimeters.
    """

    def __init__(self, *, grid: Grid, pose: Pose, warp_mm: Floats) -> None:
        """Lays out the coordinates.

        Args:
            grid: the pixels.
            pose: how the patient lies on them.
            warp_mm: [2, rows, columns] shifts in x and y that bend smooth outlines.
        """
        size = grid.image_size
        right, down = grid.axes()
        angle = np.deg2rad(pose.roll_degrees)
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        # Turn about the middle of a body of average depth, which lies above the couch.
        down_from_pivot = down + 100
        self.x = (right * cos - down_from_pivot * sin) / np.float32(pose.width_scale)
        self.y = (right * sin + down_from_pivot * cos - 100) / np.float32(pose.depth_scale)
        self.y += np.float32(pose.back_mm)
        self.x += smooth_field(warp_mm[0], self.x.shape)
        self.y += smooth_field(warp_mm[1], self.y.shape)
        self.hu: Floats = np.full((size, size), AIR_HU, np.float32)
        self.lung: Floats = np.zeros((size, size), np.float32)
        self.edge_mm = grid.pixel_mm / min(pose.width_scale, pose.depth_scale)
        self._grid, self._pose, self._cos, self._sin = grid, pose, float(cos), float(sin)
        self._margin_mm = float(np.abs(warp_mm).max()) + 2 * self.edge_mm
        self._shift_x_mm = 0.0

    @contextmanager
    def shifted(self, x_mm: float) -> Iterator[None]:
        """Moves all that is painted meanwhile to the left of the patient."""
        x, shift_x_mm = self.x, self._shift_x_mm
        if x_mm:
            self.x, self._shift_x_mm = x - np.float32(x_mm), shift_x_mm + x_mm
        try:
            yield
        finally:
            self.x, self._shift_x_mm = x, shift_x_mm

    def pixel(self, x: _Length, y: _Length) -> tuple[_Length, _Length]:
        """Gives column and row of points in reference millimeters, as if nothing were warped."""
        across = (x + self._shift_x_mm) * self._pose.width_scale
        along = (y - self._pose.back_mm) * self._pose.depth_scale + 100
        right = across * self._cos + along * self._sin - self._grid.x_mm
        down = along * self._cos - across * self._sin - 100 - self._grid.y_mm
        half = self._grid.fov_mm / 2
        return (right + half) / self._grid.pixel_mm, (down + half) / self._grid.pixel_mm

    def window(self, x: float, y: float, reach_mm: float) -> Window:
        """Gives the part of the canvas that holds all within ``reach_mm`` of a point."""
        column, row = self.pixel(x, y)
        scale = max(self._pose.width_scale, self._pose.depth_scale)
        reach = (reach_mm + self._margin_mm) * scale / self._grid.pixel_mm + 1
        # Never below 0, which would count from the other end.
        rows, columns = (
            slice(max(0, int(at - reach)), max(0, int(at + reach) + 1)) for at in (row, column)
        )
        return rows, columns

    def coverage(self, distance_mm: Floats, *, edge_mm: float = 0.0) -> Floats:
        """Turns a signed distance (negative inside) into the covered share of each pixel.

        Args:
            distance_mm: any shape, reference millimeters.
            edge_mm: width of the edge; never sharper than the pixels.
        """
        width = np.float32(max(edge_mm, self.edge_mm))
        return np.clip(np.float32(0.5) - distance_mm / width, 0, 1)

    def paint(self, coverage: Floats, hu: float | Floats, *, window: Window = WHOLE) -> None:
        """Covers a part of the canvas; what is covered is no lung any more.

        Args:
            coverage: share of each pixel of the window that is covered, 0 to 1.
            hu: density, one number or one for each pixel of the window.
            window: the part of the canvas.
        """
        beneath = self.hu[window]
        beneath += coverage * (hu - beneath)
        self.lung[window] *= 1 - coverage

    def paint_lung(self, coverage: Floats, hu: Floats, *, window: Window = WHOLE) -> None:
        """Covers a part of the canvas with lung."""
        self.paint(coverage, hu, window=window)
        self.lung[window] += coverage

    def ellipse(
        self,
        center: tuple[float, float],
        half_axes: tuple[float, float],
        hu: float | Floats,
        *,
        angle_degrees: float = 0.0,
        edge_mm: float = 0.0,
        within: Floats | None = None,
        bumps_mm: Floats | None = None,
    ) -> None:
        """Paints an ellipse; one with an axis of 0 or less is nothing.

        Args:
            center: x and y, reference millimeters.
            half_axes: half axes along x and y before the turn, reference millimeters.
            hu: density, one number or [height, width].
            angle_degrees: turn, counter-clockwise on the screen.
            edge_mm: width of its edge.
            within: [height, width] signed distance to a shape that it does not leave.
            bumps_mm: [height, width] by how much its outline is pulled in, a few millimeters.
        """
        if min(half_axes) <= 0:
            return
        window = self.window(*center, max(half_axes) + edge_mm + (8 if bumps_mm is not None else 0))
        dx, dy = self.x[window] - np.float32(center[0]), self.y[window] - np.float32(center[1])
        if angle_degrees:
            angle = np.deg2rad(angle_degrees)
            cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
            dx, dy = dx * cos - dy * sin, dx * sin + dy * cos
        distance = superellipse(dx, dy, half_axes=half_axes)
        if bumps_mm is not None:
            distance += bumps_mm[window]
        coverage = self.coverage(distance, edge_mm=edge_mm)
        if within is not None:
            coverage *= self.coverage(within[window])
        self.paint(coverage, hu[window] if isinstance(hu, np.ndarray) else hu, window=window)

    def capsule(
        self, start: tuple[float, float], end: tuple[float, float], radius: float, hu: float
    ) -> None:
        """Paints a thick line with round ends; all in reference millimeters."""
        along = np.subtract(end, start)
        length = float(np.hypot(*along))
        middle = np.add(start, end) / 2
        window = self.window(float(middle[0]), float(middle[1]), length / 2 + radius)
        dx, dy = self.x[window] - np.float32(start[0]), self.y[window] - np.float32(start[1])
        ux, uy = np.float32(along[0]), np.float32(along[1])
        share = np.clip((dx * ux + dy * uy) / np.float32(max(length**2, 1e-6)), 0, 1)
        distance = np.hypot(dx - share * ux, dy - share * uy) - np.float32(radius)
        self.paint(self.coverage(distance), hu, window=window)
