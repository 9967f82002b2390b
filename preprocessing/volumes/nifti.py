"""NIfTI files -> volumes, and volumes -> NIfTI files."""

import gzip
import zlib
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import numpy.typing as npt

from preprocessing.publish import write_bytes
from preprocessing.spec import NIFTI_SUFFIXES
from preprocessing.volumes.scans import Scan, UnreadableScanError, check_affine, to_canonical

_MILLIMETERS = ("mm", "unknown")
_DAMAGED = (
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    nib.wrapstruct.WrapStructError,
    OSError,
    EOFError,
    ValueError,
    zlib.error,
)


def is_nifti(path: str) -> bool:
    """Tells from its name whether a file means to be a NIfTI file."""
    return path.lower().endswith(NIFTI_SUFFIXES)


def nifti_stem(path: str) -> str:
    """Gives a path without the ending of a NIfTI file."""
    return path[: -len(".nii.gz")] if path.lower().endswith(".nii.gz") else path[: -len(".nii")]


def read_nifti_scan(path: Path, *, source: str, patient_id: str = "") -> Scan:
    """Reads a CT.

    Args:
        path: a NIfTI file whose values are Hounsfield units.
        source: its name, for messages.
        patient_id: whose it is; empty: the name of the file stands for that.

    Raises:
        UnreadableScanError: if it cannot be read or used.
    """
    volume = _read(path, source=source)
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
    stem = nifti_stem(path.name)
    return Scan(
        source=source,
        patient_id=patient_id or stem,
        series_id=nifti_stem(source),
        hounsfield=to_canonical(volume, source=source),
        file_geometry=volume.get_geometry(),
    )


def read_label_map(path: Path, *, source: str) -> hd.Volume:
    """Reads labels.

    Args:
        path: a NIfTI file whose values are whole numbers.
        source: its name, for messages.

    Returns:
        Labels as int64, on the grid of the file.

    Raises:
        UnreadableScanError: if it cannot be read or used.
    """
    volume = _read(path, source=source)
    labels = np.rint(volume.array)
    if not (np.isfinite(volume.array).all() and (labels == volume.array).all()):
        raise UnreadableScanError(
            source=source,
            reason="has values that are no whole numbers; expected labels; export it again without "
            "smoothing, or as a label map",
        )
    return volume.with_array(labels.astype(np.int64))


def write_nifti(path: Path, volume: hd.Volume) -> None:
    """Writes a volume, with its affine, whole or not at all.

    Raises:
        OSError: if the file cannot be written.
    """
    image = volume.to_nibabel()
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    # Without the time: equal volumes give equal files.
    write_bytes(path, gzip.compress(content, 6, mtime=0) if path.suffix == ".gz" else content)


def _read(path: Path, *, source: str) -> hd.Volume:
    try:
        image: Any = nib.nifti1.Nifti1Image.from_filename(path)
    except _DAMAGED as error:
        raise UnreadableScanError(
            source=source,
            reason=f"cannot be read as NIfTI ({_first_line(error)}); expected a whole .nii or "
            ".nii.gz file; copy or export it again",
        ) from error
    header, affine = image.header, np.asarray(image.affine, np.float64)
    if header["qform_code"] == 0 and header["sform_code"] == 0:
        raise UnreadableScanError(
            source=source,
            reason="does not tell how it lies in the patient (sform and qform are 0), so left and "
            "right are unknown; expected a NIfTI with an affine; convert it again from DICOM",
        )
    unit = header.get_xyzt_units()[0]
    if unit not in _MILLIMETERS:
        raise UnreadableScanError(
            source=source, reason=f"is measured in {unit}s; expected millimeters; convert it"
        )
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 2:
        raise UnreadableScanError(
            source=source,
            reason=f"has the shape {list(image.shape)}; expected one volume of three axes; split "
            "it into volumes",
        )
    check_affine(affine, source=source)
    return hd.Volume(
        array=_values(image, source=source).reshape(shape),
        affine=affine,
        coordinate_system="PATIENT",
        from_reference_convention="RAS",
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
        raise UnreadableScanError(
            source=source,
            reason=f"is damaged ({_first_line(error)}); expected a whole file; copy or export it "
            "again",
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
