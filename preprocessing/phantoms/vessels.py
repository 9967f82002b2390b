"""Grows the vessels and small airways of both lungs, and draws those that a slice cuts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from preprocessing.phantoms.anatomy import SIDES
from preprocessing.phantoms.canvas import Canvas
from preprocessing.phantoms.shapes import Floats

HILAR_RADIUS_MM = 3.2
"""Vessels this thick near the hilum are, by convention, no part of the lung."""

LEAF_RADIUS_MM = 0.56
"""Radius of the finest vessels that are drawn."""

_NEUTRAL, _BRIGHT, _DARK = 64, 255, 0
"""What the drawing holds where nothing, vessel, and air of a bronchus is."""

_HUB_MM = (36.0, -110.0, 0.0)
_CENTER_MM = (72.0, -112.0, 0.0)
"""Where the vessels of the left lung begin, and its middle; z counts from the hilum."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VesselTree:
    """Straight pieces of the vessels of both lungs, in reference millimeters; thick ones last."""

    start: Floats
    """[pieces, 3] x, y, z; z counts up from the hilum."""

    end: Floats
    """[pieces, 3] as ``start``."""

    radius: Floats
    """[pieces] radius."""

    bronchus: NDArray[np.bool_]
    """[pieces] whether a small bronchus runs beside the vessel."""


def grow_vessels(
    rng: np.random.Generator,
    *,
    lung_height_mm: float,
    forks: int = 9,
    thickness: float = 1.0,
) -> VesselTree:
    """Grows an artery and two veins in each lung, that reach every part of it.

    Ends are strewn over the lung. A branch leads to the middle of the ends that it feeds, and
    halves them between its two children; the cube of its radius is the sum of theirs.

    Args:
        rng: the source of all that varies.
        lung_height_mm: from base to apex.
        forks: forks from hilum to the finest vessels, of which there are 2 ** forks a tree.
        thickness: 1 for vessels of usual bore.

    Source: the radii, Murray, "The physiological principle of minimum work", PNAS 12(3), 1926.
    """
    half_axes = np.array([60.0, 88.0, lung_height_mm / 2])
    pieces = []
    for side in SIDES:
        flip = np.array([side, 1.0, 1.0])
        for with_bronchi in (True, False, False):
            ends = _unit(rng.normal(size=(2**forks, 3)))
            ends *= rng.random((2**forks, 1)) ** (1 / 3) * half_axes
            ends += flip * _CENTER_MM
            hub = flip * _HUB_MM + rng.normal(0, (7, 10, 16), size=3)
            pieces.append(
                _grow_tree(rng, hub=hub, ends=ends, thickness=thickness, bronchi=with_bronchi)
            )
    start, end, radius, bronchus = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    order = np.argsort(radius)
    return VesselTree(
        start=start[order].astype(np.float32),
        end=end[order].astype(np.float32),
        radius=radius[order].astype(np.float32),
        bronchus=bronchus[order],
    )


def _grow_tree(
    rng: np.random.Generator, *, hub: Floats, ends: Floats, thickness: float, bronchi: bool
) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
    """Gives starts, ends, radii and bronchi of the pieces of one tree."""
    starts, stops, radii = [], [], []
    groups, at = ends[None], hub[None]  # [branches, ends of each, 3] and [branches, 3]
    while True:
        num_ends = groups.shape[1]
        # Large vessels fork early.
        longest = 0.4 if num_ends > 60 else 0.8
        share = rng.uniform(0.15, longest, size=(len(groups), 1)) if num_ends > 1 else 1.0
        to = at + share * (groups.mean(axis=1) - at)
        # A branch is two pieces with a bend between them, the second one thinner.
        length = np.sqrt(((to - at) ** 2).sum(axis=1, keepdims=True))
        if num_ends > 1:
            to += rng.normal(0, 0.2, size=to.shape) * length
        bend = (at + to) / 2 + rng.normal(0, 0.1, size=to.shape) * length
        starts += [at, bend]
        stops += [bend, to]
        radius = LEAF_RADIUS_MM * thickness * num_ends ** (1 / 3)
        radii += [np.full(len(at), radius), np.full(len(at), 0.93 * radius)]
        if num_ends == 1:
            break
        groups, at = _halve(groups, rng), np.repeat(to, 2, axis=0)
    radius = np.concatenate(radii) * rng.uniform(0.85, 1.15, sum(map(len, radii)))
    return np.concatenate(starts), np.concatenate(stops), radius, (radius > 0.9) & bronchi


def _halve(groups: Floats, rng: np.random.Generator) -> Floats:
    """Parts groups of points across about their longest side; [n, m, 3] -> [2 n, m / 2, 3]."""
    direction = np.ptp(groups, axis=1) ** 2 * rng.normal(size=(len(groups), 3))
    along = (groups * direction[:, None]).sum(axis=2)
    order = np.argpartition(along, groups.shape[1] // 2, axis=1)
    parted = np.take_along_axis(groups, order[:, :, None], axis=1)
    return parted.reshape(-1, groups.shape[1] // 2, 3)


def _unit(vectors: Floats) -> Floats:
    return vectors / np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))


@dataclass(frozen=True, kw_only=True, eq=False)
class CutVessels:
    """What a slice shows of the vessels; each [height, width], share of a pixel, 0 to 1."""

    blood: Floats
    """Vessels and the walls of small bronchi, that belong to the lung."""

    air: Floats
    """The air in small bronchi, that belongs to the lung."""

    hilar: Floats | None
    """Large vessels near the hilum, that do not; None where there are none."""


def cut_vessels(canvas: Canvas, tree: VesselTree, *, z_mm: float, slice_mm: float) -> CutVessels:
    """Draws the vessels that a slice cuts, fainter where they fill a part of its thickness.

    Args:
        canvas: where.
        tree: the vessels.
        z_mm: height of the middle of the slice above the hilum, reference millimeters.
        slice_mm: thickness of the slice.
    """
    near, far = tree.start[:, 2] - z_mm, tree.end[:, 2] - z_mm
    reach = slice_mm / 2 + 0.7 * tree.radius
    cut = np.flatnonzero((np.minimum(near, far) < reach) & (np.maximum(near, far) > -reach))
    near, far, reach, radius = near[cut], far[cut], reach[cut], tree.radius[cut]
    # Keep the part of each piece that lies within the thickness of the slice.
    rise = np.where(np.abs(far - near) < 1e-3, 1e-3, far - near)
    bounds = np.sort(np.clip(np.stack([-reach - near, reach - near]) / rise, 0, 1), axis=0)
    start = tree.start[cut, :2]
    ends = start + bounds[:, :, None] * (tree.end[cut, :2] - start)  # [2, pieces, 2]
    filled = np.minimum(1, 0.3 + 2 * radius / slice_mm)
    hilar = (radius > HILAR_RADIUS_MM) & (np.abs(ends[0, :, 0]) < 62)
    drawing = _Drawing(canvas)
    drawing.lines(ends[:, ~hilar], radius=radius[~hilar], filled=filled[~hilar])
    _draw_bronchi(drawing, ends, radius=radius, chosen=tree.bronchus[cut])
    values = drawing.values()
    blood = np.clip((values - _NEUTRAL) / np.float32(_BRIGHT - _NEUTRAL), 0, 1)
    air = np.clip((_NEUTRAL - values) / np.float32(_NEUTRAL - _DARK), 0, 1)
    if not hilar.any():
        return CutVessels(blood=blood, air=air, hilar=None)
    large = _Drawing(canvas)
    large.lines(ends[:, hilar], radius=radius[hilar], filled=filled[hilar])
    coverage = np.clip((large.values() - _NEUTRAL) / np.float32(_BRIGHT - _NEUTRAL), 0, 1)
    return CutVessels(blood=blood, air=air, hilar=coverage)


def _draw_bronchi(
    drawing: "_Drawing", ends: Floats, *, radius: Floats, chosen: NDArray[np.bool_]
) -> None:
    """Draws small bronchi beside their vessels: a thin wall around air."""
    if not chosen.any():
        return
    radius = radius[chosen]
    beside = ends[:, chosen] + (radius * 1.9 + 0.4)[:, None] * np.array([0.6, -0.8], np.float32)
    drawing.lines(beside, radius=radius + 0.7, filled=np.full_like(radius, 0.55))
    drawing.lines(beside, radius=0.85 * radius, filled=np.ones_like(radius), air=True)


class _Drawing:
    """Lines with round ends, drawn at twice the resolution of a canvas."""

    SCALE = 2

    def __init__(self, canvas: Canvas) -> None:
        size = canvas.hu.shape[0] * self.SCALE
        self._canvas = canvas
        self._image = Image.new("L", (size, size), _NEUTRAL)
        self._draw = ImageDraw.Draw(self._image)

    def values(self) -> Floats:
        """Gives the drawing, [height, width] float32, 0 to 255."""
        return np.asarray(self._image.reduce(self.SCALE), np.float32)

    def lines(self, ends: Floats, *, radius: Floats, filled: Floats, air: bool = False) -> None:
        """Draws lines; those drawn later cover those drawn before.

        Args:
            ends: [2, lines, 2] x and y of both ends, reference millimeters.
            radius: [lines] reference millimeters.
            filled: [lines] share of the thickness of the slice that they fill.
            air: draw air instead of vessels.
        """
        columns, rows = self._canvas.pixel(ends[..., 0], ends[..., 1])
        lines = np.stack([columns[0], rows[0], columns[1], rows[1]], axis=-1) * self.SCALE
        inside = ((lines > -20) & (lines < self._image.width + 20)).all(axis=1)
        lines = lines[inside]
        widths = 2 * self.SCALE * radius[inside] / np.float32(self._canvas.edge_mm)
        # A line thinner than a drawn pixel fills only a part of it.
        strength = filled[inside] * np.minimum(1, widths)
        target = _DARK if air else _BRIGHT
        fills = np.rint(_NEUTRAL + strength * (target - _NEUTRAL)).astype(int)
        draw = self._draw
        for (x0, y0, x1, y1), width, fill in zip(
            lines.tolist(), widths.tolist(), fills.tolist(), strict=True
        ):
            if width > 2.5:
                half = width / 2
                draw.line((x0, y0, x1, y1), fill=fill, width=round(width))
                draw.ellipse((x0 - half, y0 - half, x0 + half, y0 + half), fill=fill)
                draw.ellipse((x1 - half, y1 - half, x1 + half, y1 + half), fill=fill)
            else:
                draw.line((x0, y0, x1, y1), fill=fill, width=2 if width > 1.5 else 1)
