"""How far the outlines of two masks are from each other."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

HAUSDORFF_PERCENTILE = 95


@dataclass(frozen=True, kw_only=True)
class SurfaceDistances:
    """Distances between two outlines of one slice, in pixels or, where they have a size, in mm."""

    hausdorff_95: float
    """The larger of two 95th percentiles: of the distances of each outline's pixels to the other
    outline."""

    average: float
    """Average symmetric surface distance: the mean over the pixels of both outlines."""


def surface_distances(
    *,
    mask: npt.NDArray[np.uint8],
    predicted_mask: npt.NDArray[np.uint8],
    pixel_spacing: float = 1.0,
) -> SurfaceDistances | None:
    """Measures the distances between the outlines of two masks.

    The outline of a mask are its pixels of which one of the four neighbors is background; beyond
    the border of the slice all is background.

    Args:
        mask: [height, width] in {0, 1}: the reference.
        predicted_mask: same shape.
        pixel_spacing: width and height of a pixel, in the unit of the result.

    Returns:
        The distances, or None where a mask is empty: then there is no outline to measure from.

    Raises:
        ValueError: if the two shapes differ.

    Source: Huttenlocher, Klanderman, Rucklidge, IEEE TPAMI 15(9), 1993, for ranks of directed
    distances; Heimann et al., IEEE TMI 28(8), 2009, for the average; Maier-Hein, Reinke et al.,
    Nature Methods 21, 2024, for both as metrics. docs/decisions/0008-surface-distances.md.
    """
    if mask.shape != predicted_mask.shape:
        raise ValueError(
            f"mask and predicted mask have shapes {list(mask.shape)} and "
            f"{list(predicted_mask.shape)}; expected equal shapes"
        )
    if not mask.any() or not predicted_mask.any():
        return None
    # Beyond the rectangle around both there is no outline, and so nothing to measure.
    (part,) = ndimage.find_objects(mask | predicted_mask)
    outline, predicted_outline = _outline(mask[part] > 0), _outline(predicted_mask[part] > 0)
    to_predicted = _distances(outline, predicted_outline) * pixel_spacing
    to_mask = _distances(predicted_outline, outline) * pixel_spacing
    return SurfaceDistances(
        hausdorff_95=max(
            float(np.percentile(distances, HAUSDORFF_PERCENTILE))
            for distances in (to_predicted, to_mask)
        ),
        average=float(np.concatenate((to_predicted, to_mask)).mean()),
    )


def _outline(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    return inside & ~ndimage.binary_erosion(inside)


def _distances(
    outline: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Gives, for each pixel of an outline, the distance to the nearest one of the other."""
    return ndimage.distance_transform_edt(~other)[outline]
