"""Cleans the predicted mask of one axial slice: specks and pieces of open air go, holes are filled.

A contract: evaluation and the client clean alike. NumPy and SciPy only.

All limits are shares of the area of the image, so that they mean the same at any number of pixels.
In millimeters they are given for a field of view of 400 mm, an area of 160,000 mm²; fields of view
of chest CT are 300 to 500 mm wide.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

MAX_COMPONENTS = 6
"""Pieces of lung in one slice, at most. Two lungs; near the bases each falls into the recesses
around the dome of the diaphragm, and near the apices a fissure or a vertebra cuts pieces off."""

MIN_COMPONENT_FRACTION = 1e-4
"""A smaller piece is dropped: 16 mm², a spot of 4 mm. The tip of a lung in one slice is larger, and
a recess, however thin, hangs together over some centimeters."""

MAX_HOLE_FRACTION = 5e-4
"""A larger hole stays: 80 mm², a vessel of 10 mm. Vessels and nodules belong to the lung. A dome of
the diaphragm in the middle of a lung does not, nor does the mediastinum between lungs that touch,
which is a hundred times as large."""

MIN_SPACE_FRACTION = 0.5
"""Share that pieces fill, at least, of a dark space that goes on to the edge of the image. Lung is
closed off from the air outside; where the edge of the image cuts it, it is lung up to there."""

AIR_CONTRAST = 0.15
"""A space is what is as dark as a piece, to this share of the gray values of the image, from dark
to bright."""

MAX_AIR_BRIGHTNESS = 0.35
"""What counts as dark, on that scale. A lung that is dense as a whole is not, and stays."""

_SIDES_AND_CORNERS = np.ones((3, 3), np.uint8)


def clean_mask(
    mask: npt.NDArray[np.uint8],
    image: npt.NDArray[np.uint8],
    *,
    max_components: int = MAX_COMPONENTS,
    min_component_fraction: float = MIN_COMPONENT_FRACTION,
    max_hole_fraction: float = MAX_HOLE_FRACTION,
    min_space_fraction: float = MIN_SPACE_FRACTION,
) -> npt.NDArray[np.uint8]:
    """Keeps the largest pieces of a mask, drops specks and open air, and fills small holes.

    Pieces hang together by sides and corners, so that a thin slanted recess is one; holes, as their
    counterpart, by sides only. What touches the edge of the image is no hole. A mask without
    lung stays as it is, and one of specks only gets empty.

    Args:
        mask: [height, width] in {0, 1}; 1 is lung.
        image: [height, width] gray values of the slice.
        max_components: how many pieces may stay, the largest first.
        min_component_fraction: share of the image that a piece has at least.
        max_hole_fraction: share of the image that a hole has at most, to be filled.
        min_space_fraction: share of a dark space, open to the edge of the image, that is filled at
            least.

    Returns:
        [height, width] uint8 in {0, 1}; the mask that was given is unchanged.
    """
    kept = _keep_largest(
        mask > 0, max_components=max_components, min_area=min_component_fraction * mask.size
    )
    kept = _drop_open_air(kept, image, min_fraction=min_space_fraction)
    return _fill_holes(kept, max_area=max_hole_fraction * mask.size).astype(np.uint8)


def _drop_open_air(
    inside: npt.NDArray[np.bool_], image: npt.NDArray[np.uint8], *, min_fraction: float
) -> npt.NDArray[np.bool_]:
    """Drops dark pieces in a space that goes on, beyond them, to the edge of the image."""
    labels, num_components = ndimage.label(inside, _SIDES_AND_CORNERS)
    if not num_components:
        return inside
    unit = max(1, round(min(image.shape) / 256))
    smooth = ndimage.gaussian_filter(image, unit, output=np.float32)
    dark, bright = np.percentile(smooth, (1, 99))
    contrast = max(1.0, AIR_CONTRAST * (bright - dark))
    kept = inside.copy()
    for label, window in enumerate(ndimage.find_objects(labels), start=1):
        piece = labels[window] == label
        core = ndimage.binary_erosion(piece, _SIDES_AND_CORNERS, iterations=unit)
        level = np.median(smooth[window][core if core.any() else piece])
        if level - dark > MAX_AIR_BRIGHTNESS * (bright - dark):
            continue
        spaces, num_spaces = ndimage.label(np.abs(smooth - level) <= contrast)
        is_around = np.zeros(num_spaces + 1, np.bool_)
        is_around[spaces[window][piece]] = True
        is_around[0] = False  # what is brighter or darker
        space = is_around[spaces]
        beyond = space & ~inside
        is_open = any(edge.any() for edge in (beyond[0], beyond[-1], beyond[:, 0], beyond[:, -1]))
        if is_open and np.mean(inside[space]) < min_fraction:
            kept[window] &= ~piece
    return kept


def _keep_largest(
    inside: npt.NDArray[np.bool_], *, max_components: int, min_area: float
) -> npt.NDArray[np.bool_]:
    labels, num_components = ndimage.label(inside, _SIDES_AND_CORNERS)
    areas = _areas(labels, num_components)
    # Stable: of two equal ones the upper is kept, on any machine.
    largest = np.argsort(-areas, kind="stable")[:max_components]
    stays = np.zeros(num_components + 1, np.bool_)  # label 0 is the background
    stays[1 + largest] = areas[largest] >= min_area
    return stays[labels]


def _fill_holes(inside: npt.NDArray[np.bool_], *, max_area: float) -> npt.NDArray[np.bool_]:
    labels, num_components = ndimage.label(~inside)
    is_small = _areas(labels, num_components) <= max_area
    fills = np.concatenate(([False], is_small))  # label 0 is lung
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        fills[edge] = False
    return inside | fills[labels]


def _areas(labels: npt.NDArray[np.int32], num_components: int) -> npt.NDArray[np.int64]:
    """Gives the number of pixels of each label, from label 1 on."""
    return np.bincount(labels.ravel(), minlength=num_components + 1)[1:]
