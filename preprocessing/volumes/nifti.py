"""NIfTI files -> volumes, and volumes -> NIfTI files."""

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import numpy.typing as npt

from preprocessing.publish import write_bytes
from preprocessing.spec import NIFTI_SUFFIXES
from preprocessing.volumes.scans import (
    Scan,
    UnreadableScanError,
    raise_if_of_disk,
    to_canonical,
    upright,
)

_MILLIMETERS = ("mm", "unknown")
_DAMAGED = (
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    nib.wrapstruct.WrapStructError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    struct.error,
    zlib.error,
)


def is_nifti(path: str) -> bool:
    """Tells from its name whether a file means to be a NIfTI file."""
    return path.lower().endswith(NIFTI_SUFFIXES)


def nifti_stem(path: str) -> str:
    """Gives a path without the ending of a NIfTI file."""
    return path[: -len(".nii.gz")] if path.lower().endswith(".nii.gz") else path[: -len(".nii")]


def read_nifti_scan(path: Path, *, source: str) -> Scan:
    """Reads a CT.

    Args:
        path: a NIfTI file whose values are Hounsfield units.
        source: its name, for messages.

    Raises:
        UnreadableScanError: if it cannot be used.
        OSError: if the disk does not give it.
    """
    volume, affine = _read(path, source=source)
    values = volume.array
    if values.dtype != np.int16:
        if not np.isfinite(values).all():
            raise UnreadableScanError(
                source=source,
                reason="has voxels that are no numbers; expected Hounsfield units everywhere; fill "
                "them, with -1024 where there is no body",
            )
        limits = np.iinfo(np.int16)
        volume = volume.with_array(np.rint(values).clip(limits.min, limits.max).astype(np.int16))
    return Scan(
        source=source,
        hounsfield=to_canonical(volume, source=source),
        file_geometry=volume.get_geometry(),
        file_affine=affine,
    )


def read_label_map(path: Path, *, source: str) -> hd.Volume:
    """Reads labels.

    Args:
        path: a NIfTI file whose values are whole numbers.
        source: its name, for messages.

    Returns:
        Whole numbers of any type, on the grid of the file.

    Raises:
        UnreadableScanError: if it cannot be used.
        OSError: if the disk does not give it.
    """
    volume, _ = _read(path, source=source)
    if volume.array.dtype.kind in "iu":
        return volume
    labels = np.rint(volume.array)
    if not (labels == volume.array).all():
        raise UnreadableScanError(
            source=source,
            reason="has values that are no whole numbers; expected labels; export it again without "
            "smoothing, or as a label map",
        )
    return volume.with_array(labels.astype(np.int32))


def write_nifti(
    path: Path, volume: hd.Volume, *, affine: npt.NDArray[np.float64] | None = None
) -> None:
    """Writes a volume, whole or not at all.

    Args:
        path: of the file.
        volume: what it holds.
        affine: of the file that it belongs to; None: that of the volume.

    Raises:
        OSError: if the file cannot be written.
    """
    image = volume.to_nibabel()
    if affine is not None:
        image = nib.nifti1.Nifti1Image(image.dataobj, affine, image.header)
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    # Without the time: equal volumes give equal files.
    write_bytes(path, gzip.compress(content, 6, mtime=0) if path.suffix == ".gz" else content)


def _read(path: Path, *, source: str) -> tuple[hd.Volume, npt.NDArray[np.float64]]:
    """Reads a file, and gives its affine too."""
    try:
        image: Any = nib.nifti1.Nifti1Image.from_filename(path)
    except _DAMAGED as error:
        raise_if_of_disk(error)
        raise UnreadableScanError(
            source=source,
            reason=f"cannot be read as NIfTI ({_first_line(error)}); expected a whole .nii or "
            ".nii.gz file; copy or export it again",
        ) from error
    try:
        shape = _check_header(image, source=source)
        affine = np.asarray(image.affine, np.float64)
        turned = upright(affine, source=source)
    except UnreadableScanError:
        raise
    except _DAMAGED as error:  # a header can be odd in more ways than are looked for
        raise UnreadableScanError(
            source=source,
            reason=f"has a header that NIfTI does not allow ({_first_line(error)}); expected an "
            "affine and a unit; convert it again from DICOM",
        ) from error
    volume = hd.Volume(
        array=_values(image, source=source).reshape(shape),
        affine=turned,
        coordinate_system="PATIENT",
        from_reference_convention="RAS",
    )
    return volume, affine


def _check_header(image: Any, *, source: str) -> tuple[int, ...]:
    """Gives the shape of one volume whose place in the patient is told."""
    header, shape = image.header, image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 2:
        raise UnreadableScanError(
            source=source,
            reason=f"has the shape {list(image.shape)}; expected one volume of three axes; split "
            "it into volumes",
        )
    if header["qform_code"] == 0 and header["sform_code"] == 0:
        raise UnreadableScanError(
            source=source,
            reason="does not tell how it lies in the patient (sform and qform are 0), so left and "
            "right are unknown; expected a NIfTI with an affine; convert it again from DICOM",
        )
    _check_forms(header, shape, source=source)
    unit = header.get_xyzt_units()[0]
    if unit not in _MILLIMETERS:
        raise UnreadableScanError(
            source=source, reason=f"is measured in {unit}s; expected millimeters; convert it"
        )
    return tuple(shape)


def _check_forms(header: Any, shape: tuple[int, ...], *, source: str) -> None:
    """Looks whether the two places of a header that tell how it lies agree."""
    if header["qform_code"] == 0 or header["sform_code"] == 0:
        return
    corner = np.array([*(size - 1 for size in shape), 1.0])
    apart_mm = max(
        float(np.linalg.norm(((header.get_sform() - header.get_qform()) @ place)[:3]))
        for place in (np.array([0, 0, 0, 1.0]), corner)
    )
    if apart_mm > 0.5 * float(min(header.get_zooms()[:3])):
        raise UnreadableScanError(
            source=source,
            reason=f"tells two ways in which it lies, {apart_mm:.1f} mm apart (sform and qform), "
            "and viewers differ in which they take; expected one; convert it again from DICOM",
        )


def _values(image: Any, *, source: str) -> npt.NDArray[Any]:
    """Gives what the file holds: as it is stored, or as float32 where it is rescaled."""
    try:
        stored = image.dataobj.get_unscaled()
        if stored.dtype.kind not in "iuf":
            raise UnreadableScanError(
                source=source,
                reason=f"holds {stored.dtype}; expected one number for each voxel; export it again",
            )
        slope, intercept = image.dataobj.slope, image.dataobj.inter
        if (slope, intercept) == (1, 0):
            return np.asarray(stored)
        return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    except _DAMAGED as error:
        if isinstance(error, UnreadableScanError):
            raise
        raise_if_of_disk(error)
        raise UnreadableScanError(
            source=source,
            reason=f"is damaged ({_first_line(error)}); expected a whole file; copy or export it "
            "again",
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
