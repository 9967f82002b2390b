"""The two lungs of a predicted volume: the rest goes, holes are filled, sides are told apart.

SciPy and NumPy only.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

RIGHT, LEFT, UNDIVIDED = 1, 2, 3
"""Labels: the patient's right lung, the left one, and lungs that cannot be told apart."""

NAMES = {RIGHT: "right lung", LEFT: "left lung", UNDIVIDED: "lungs"}

MIN_SHARE = 0.05
"""A second piece below this share of the largest one is no lung: gas in the stomach, a trachea that
was taken for lung. Of two healthy lungs the left one has 45 to 48 % of both."""

MIN_SIDE_SHARE = 0.1
"""Where lungs touch and are cut apart, each side has at least this share, or nothing was cut."""

MIN_SIDE_DISTANCE = 0.3
"""Centers of a right and a left lung are half of the width of both apart, and at least so much."""

MAX_CUT_MM = 16.0
"""Lungs that touch do so along a line, in front of the aorta or behind the heart; what hangs
together over more than twice this is one piece."""

_COARSE_MM = 2.5
_STEP_MM = 1.0

Labels = npt.NDArray[np.uint8]
Spacing = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Lungs:
    """The lungs of a scan."""

    labels: Labels
    """[slices, rows, columns], 0 or one of `RIGHT`, `LEFT`, `UNDIVIDED`."""

    volumes_ml: dict[int, float]
    """Volume by label, in milliliters, of the labels that are there."""


def find_lungs(mask: Labels, spacing_mm: Spacing, *, clean: bool) -> Lungs:
    """Gives the lungs of a predicted volume.

    Args:
        mask: [slices, rows, columns] in {0, 1}; slices to the head, columns to the patient's left.
        spacing_mm: between slices, rows and columns.
        clean: keep the two largest pieces and fill holes; else all that was predicted stays.
    """
    inside = mask > 0
    labels = np.zeros(mask.shape, np.uint8)
    if inside.any():
        box = _box(inside)
        within = _two_largest(inside[box]) if clean else inside[box]
        labels[box] = _sides(within, spacing_mm)
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    counts = _counts(labels, UNDIVIDED + 1)
    return Lungs(
        labels=labels,
        volumes_ml={label: int(counts[label]) * voxel_ml for label in NAMES if counts[label]},
    )


def _two_largest(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Keeps the two largest pieces, and fills what they enclose."""
    pieces, num_pieces = ndimage.label(inside)
    sizes = _counts(pieces, num_pieces + 1)[1:]
    largest = np.argsort(-sizes, kind="stable")[:2]
    kept = largest[sizes[largest] >= MIN_SHARE * sizes[largest[0]]] + 1
    stays = np.zeros(num_pieces + 1, np.bool_)
    stays[kept] = True
    # What does not hang together with the outside is lung, or enclosed by it.
    around, _ = ndimage.label(~np.pad(stays[pieces], 1))
    whole: npt.NDArray[np.bool_] = (around != around[0, 0, 0])[1:-1, 1:-1, 1:-1]
    return whole


def _sides(inside: npt.NDArray[np.bool_], spacing_mm: Spacing) -> Labels:
    """Labels right and left, or all as `UNDIVIDED` if they do not fall into two sides."""
    # A coarse grid is enough to find where to cut, and a hundredth of the work.
    steps = tuple(max(1, round(_COARSE_MM / spacing)) for spacing in spacing_mm)
    coarse = inside[:: steps[0], :: steps[1], :: steps[2]]
    coarse_mm = [step * spacing for step, spacing in zip(steps, spacing_mm, strict=True)]
    cores = _two_cores(coarse, coarse_mm)
    if cores is None:
        return np.where(inside, np.uint8(UNDIVIDED), np.uint8(0))
    # Every voxel goes to the side whose core is nearest to it.
    nearest = ndimage.distance_transform_edt(
        cores == 0, sampling=coarse_mm, return_distances=False, return_indices=True
    )
    sides = cores[tuple(nearest)]
    for axis, step in enumerate(steps):
        sides = np.repeat(sides, step, axis=axis)
    sides = sides[tuple(slice(0, size) for size in inside.shape)]
    labels: Labels = np.where(inside, sides, np.uint8(0))
    return labels


def _two_cores(inside: npt.NDArray[np.bool_], spacing_mm: list[float]) -> Labels | None:
    """Finds a core for each lung, by peeling until two are apart; gives None if none come apart."""
    depth = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=spacing_mm)
    depth = depth[1:-1, 1:-1, 1:-1]
    width = np.ptp(np.flatnonzero(inside.any(axis=(0, 1)))) + 1
    for peeled_mm in np.arange(0.0, MAX_CUT_MM, _STEP_MM):
        core = depth > peeled_mm
        pieces, num_pieces = ndimage.label(core)
        if num_pieces < 2:
            continue
        sizes = np.bincount(pieces.ravel())[1:]
        first, second = np.argsort(-sizes, kind="stable")[:2]
        if sizes[second] < MIN_SIDE_SHARE * core.sum():
            continue
        centers = ndimage.center_of_mass(core, pieces, [first + 1, second + 1])
        columns = [center[2] for center in centers]
        if abs(columns[0] - columns[1]) < MIN_SIDE_DISTANCE * width:
            continue  # an upper and a lower part of one lung
        right, left = (first, second) if columns[0] < columns[1] else (second, first)
        cores = np.zeros(inside.shape, np.uint8)
        cores[pieces == right + 1] = RIGHT
        cores[pieces == left + 1] = LEFT
        return cores
    return None


def _counts(labels: npt.NDArray[Any], num_labels: int) -> npt.NDArray[np.int64]:
    """Counts the voxels of each label, slice by slice: counting makes copies of eight times."""
    return np.sum(
        [np.bincount(part.ravel(), minlength=num_labels) for part in labels], axis=0, dtype=np.int64
    )


def _box(inside: npt.NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """Gives the smallest box that holds all."""
    box: tuple[slice, slice, slice] = ndimage.find_objects(inside.view(np.uint8))[0]
    return box
