"""A CT scan as a volume of Hounsfield units, in one orientation, and what is refused as none.

This is a contract: ``serving`` reads scans with it too.
"""

import math
from dataclasses import dataclass

import highdicom as hd
import numpy as np
import numpy.typing as npt

CANONICAL_ORIENTATION = "HPL"
"""Slices go to the head, rows to the back, columns to the left of the patient: as a viewer shows
axial slices, from below."""

MAX_OBLIQUE_DEGREES = 10.0
"""A slice that is turned by more, out of the axial plane or in it, is not what a model knows."""

MAX_PIXEL_RATIO = 1.1
"""Pixels of an axial slice are squares; other planes of a scan with thick slices have long ones."""

_LARGEST_AIR_HU = -500
_MAX_SHEAR = 0.01


class UnreadableScanError(ValueError):
    """A scan, or a mask of one, is refused.

    Attributes:
        source: the file or folder, as the caller named it.
        reason: what was found, what was expected, and the mend; reads on after the source.
    """

    def __init__(self, *, source: str, reason: str) -> None:
        """Joins both into one line."""
        super().__init__(f"{source} {reason}")
        self.source = source
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One CT scan."""

    source: str
    """File or folder that it is from, for messages."""

    hounsfield: hd.Volume
    """[slices, rows, columns] int16 in Hounsfield units, in `CANONICAL_ORIENTATION`."""

    file_geometry: hd.VolumeGeometry
    """The grid as the files have it; ``scan.hounsfield.with_array(mask)`` is brought back to it by
    ``match_geometry(scan.file_geometry)``, voxel by voxel."""

    file_affine: npt.NDArray[np.float64] | None = None
    """Of a NIfTI file: its own affine, to the last digit."""


def to_canonical(volume: hd.Volume, *, source: str) -> hd.Volume:
    """Turns a volume to `CANONICAL_ORIENTATION` by flips and swaps of axes alone.

    Args:
        volume: on any grid in the patient's coordinates.
        source: where it is from, for messages.

    Raises:
        UnreadableScanError: if its slices are not axial.
    """
    turned = volume.to_patient_orientation(CANONICAL_ORIENTATION)
    # Along the patient's axes the three diagonal entries are 1 or -1.
    axes = np.abs(np.asarray(turned.unit_vectors()))[:, ::-1]
    degrees = math.degrees(math.acos(min(1.0, float(np.diagonal(axes).min()))))
    if degrees > MAX_OBLIQUE_DEGREES:
        raise UnreadableScanError(
            source=source,
            reason=f"is turned by {degrees:.0f}° against the patient's axes; expected axial "
            f"slices, turned by {MAX_OBLIQUE_DEGREES:g}° at most; resample it to axial slices",
        )
    rows_mm, columns_mm = turned.spacing[1:]
    if max(rows_mm, columns_mm) > MAX_PIXEL_RATIO * min(rows_mm, columns_mm):
        raise UnreadableScanError(
            source=source,
            reason=f"has pixels of {rows_mm:.3g} x {columns_mm:.3g} mm in its axial slices; "
            "expected squares; take the axial series of this scan, or resample it",
        )
    return turned


def upright(affine: npt.NDArray[np.float64], *, source: str) -> npt.NDArray[np.float64]:
    """Gives an affine of right angles, which headers with few digits miss by a little.

    Args:
        affine: [4, 4], from indices to millimeters.
        source: where it is from, for messages.

    Returns:
        The nearest one with axes at right angles; steps and origin stay.

    Raises:
        UnreadableScanError: if not, as with a tilted gantry.
    """
    steps = affine[:3, :3]
    lengths = np.linalg.norm(steps, axis=0)
    if not np.isfinite(affine).all() or (lengths == 0).any():
        raise UnreadableScanError(
            source=source,
            reason="has voxels without a size; expected their spacing in millimeters; export it "
            "again",
        )
    cosines = (steps / lengths).T @ (steps / lengths)
    shear = float(np.abs(cosines - np.identity(3)).max())
    if shear > _MAX_SHEAR:
        raise UnreadableScanError(
            source=source,
            reason=f"has slices that are shifted against each other, by "
            f"{math.degrees(math.asin(min(1.0, shear))):.1f}° (a tilted gantry, or a sheared "
            "affine); expected slices that stand upright on each other; resample it",
        )
    # The rotation that is nearest to the three directions.
    left, _, right = np.linalg.svd(steps / lengths)
    turned = affine.copy()
    turned[:3, :3] = left @ right * lengths
    return turned


def raise_if_of_disk(error: BaseException) -> None:
    """Raises an error of the disk again: it tells nothing of the file, and may pass.

    Raises:
        OSError: if the error is one that the system numbers, and not that there is no such file or
            no right to read it.
    """
    stays = isinstance(error, FileNotFoundError | PermissionError)
    if isinstance(error, OSError) and error.errno is not None and not stays:
        raise error


def doubt(hounsfield: npt.NDArray[np.int16]) -> str:
    """Tells why values are hardly Hounsfield units of a chest, or gives an empty text.

    Args:
        hounsfield: values of a whole scan.
    """
    low, high = int(hounsfield.min()), int(hounsfield.max())
    if low > _LARGEST_AIR_HU:
        return (
            f"holds values from {low} to {high} and so no air; expected Hounsfield units, in which "
            "air is -1000; look whether it is a CT, and whether its rescaling was lost"
        )
    return ""
