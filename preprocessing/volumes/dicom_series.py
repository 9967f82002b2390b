"""DICOM files of one series -> a volume."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_rescale
from pydicom.uid import CTImageStorage

from preprocessing.volumes.scans import Scan, UnreadableScanError, check_affine, to_canonical

# What pydicom remarks on a value would show it, and it may be a name. What is used is checked here.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

MAX_SPACING_ERROR_MM = 0.05
"""Positions stand in a header with few decimals, and tables move by whole steps."""

DAMAGED = (
    InvalidDicomError,
    OSError,
    EOFError,
    AttributeError,
    KeyError,
    ValueError,
    RuntimeError,
    NotImplementedError,
)
"""What pydicom and its decoders raise at a damaged or strange file."""

_HINT = "export the series again"


def read_header(path: Path, *, tags: Sequence[str] | None = None) -> Dataset:
    """Reads a DICOM file without its pixels.

    Args:
        path: the file.
        tags: keywords of what is needed; None: all.

    Raises:
        UnreadableScanError: if it is no whole DICOM file.
    """
    try:
        return pydicom.dcmread(
            path, stop_before_pixels=True, specific_tags=None if tags is None else list(tags)
        )
    except DAMAGED as error:
        raise UnreadableScanError(source=str(path), reason=_damage(error)) from error


def read_series(paths: Mapping[str, Path], *, source: str) -> tuple[Scan, list[Dataset]]:
    """Reads the files of one CT series.

    Slices are put in order by their position, not by their names.

    Args:
        paths: the files by their names for messages.
        source: name of the series, for messages.

    Returns:
        The scan, and the headers of its files from its first slice to its last as they lie on
        `Scan.file_geometry`.

    Raises:
        UnreadableScanError: if it is no whole CT series; the reason names the file.
    """
    named = {name: read_header(path) for name, path in paths.items()}
    for name, header in named.items():
        _check_header(header, name=name, source=source)
    _check_alike(named, source=source)
    first = next(iter(named.values()))
    row, column = np.reshape(np.asarray(first.ImageOrientationPatient, np.float64), (2, 3))
    normal = np.cross(row, column)
    heights = {
        name: float(np.asarray(header.ImagePositionPatient, np.float64) @ normal)
        for name, header in named.items()
    }
    ordered = _without_copies(sorted(named, key=heights.__getitem__), named, heights, source=source)
    spacing_mm = _spacing(ordered, heights, source=source)
    origin, last = (
        np.asarray(named[name].ImagePositionPatient, np.float64)
        for name in (ordered[0], ordered[-1])
    )
    rows_mm, columns_mm = (float(each) for each in first.PixelSpacing)
    affine = np.identity(4)
    affine[:3, 0] = (last - origin) / (len(ordered) - 1)
    affine[:3, 1] = column * rows_mm
    affine[:3, 2] = row * columns_mm
    affine[:3, 3] = origin
    check_affine(affine, source=source)
    affine[:3, 0] = normal * spacing_mm  # exactly upright
    array = np.empty((len(ordered), first.Rows, first.Columns), np.int16)
    for index, name in enumerate(ordered):
        array[index] = _hounsfield(paths[name], name=name, source=source)
    volume = hd.Volume(
        array=array,
        affine=affine,
        coordinate_system="PATIENT",
        frame_of_reference_uid=first.get("FrameOfReferenceUID"),
    )
    scan = Scan(
        source=source,
        patient_id=str(first.get("PatientID", "")),
        series_id=str(first.SeriesInstanceUID),
        hounsfield=to_canonical(volume, source=source),
        file_geometry=volume.get_geometry(),
    )
    return scan, [named[name] for name in ordered]


def _check_header(header: Dataset, *, name: str, source: str) -> None:
    """Looks whether a file is one slice of a CT with all that is needed to read it."""
    found = header.get("SOPClassUID")
    if found != CTImageStorage:
        kind = getattr(found, "name", found)
        raise _refused(
            source, f"{name} is {kind}", "CT slices, one in each file", "convert it to CT Image"
        )
    if header.get("SamplesPerPixel", 1) != 1:
        raise _refused(source, f"{name} is in color", "gray values", "take the original series")
    needed = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")
    missing = [tag for tag in needed if not header.get(tag)]
    if missing:
        raise _refused(source, f"{name} has no {' and no '.join(missing)}", "all of them", _HINT)
    if "RescaleSlope" not in header or "RescaleIntercept" not in header:
        raise _refused(
            source,
            f"{name} has no RescaleSlope or no RescaleIntercept, so Hounsfield units are unknown",
            "both",
            _HINT,
        )
    if str(header.get("RescaleType", "HU")) not in ("HU", "HU_MOD"):
        raise _refused(
            source,
            f"{name} is rescaled to {header.RescaleType}",
            "Hounsfield units (RescaleType HU)",
            "take the original series",
        )


def _check_alike(named: Mapping[str, Dataset], *, source: str) -> None:
    """Looks whether all slices have one size, one spacing and one orientation."""
    for tag in ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient"):
        values = {
            name: tuple(np.round(np.atleast_1d(header[tag].value).astype(float), 3))
            for name, header in named.items()
        }
        (usual, _), *others = Counter(values.values()).most_common()
        if others:
            odd = next(name for name, value in values.items() if value != usual)
            raise _refused(
                source,
                f"{odd} has {tag} {_numbers(values[odd])}, most others have {_numbers(usual)}",
                "slices of one kind in a series",
                "take out the others, such as a scout image, or export them as their own series",
            )


def _without_copies(
    ordered: Sequence[str],
    named: Mapping[str, Dataset],
    heights: Mapping[str, float],
    *,
    source: str,
) -> list[str]:
    """Leaves out second files of one slice; two slices at one place are refused."""
    kept = [ordered[0]]
    for name in ordered[1:]:
        before = kept[-1]
        if heights[name] - heights[before] > MAX_SPACING_ERROR_MM:
            kept.append(name)
        elif named[name].SOPInstanceUID != named[before].SOPInstanceUID:
            raise _refused(
                source,
                f"{before} and {name} lie at the same place, {heights[name]:.2f} mm",
                "one slice at each place",
                "remove one, or export two acquisitions as two series",
            )
    if len(kept) < 2:
        raise _refused(
            source, f"it has {len(kept)} slice", "at least 2, which tell their spacing", _HINT
        )
    return kept


def _spacing(ordered: Sequence[str], heights: Mapping[str, float], *, source: str) -> float:
    """Gives the distance between slices in millimeters.

    Raises:
        UnreadableScanError: if it is not the same everywhere.
    """
    places = np.array([heights[name] for name in ordered])
    gaps = np.diff(places)
    usual = float(np.median(gaps))
    odd = np.flatnonzero(np.abs(gaps - usual) > max(MAX_SPACING_ERROR_MM, 0.01 * usual))
    if odd.size:
        index = int(odd[0])
        num_missing = gaps[index] / usual - 1
        is_missing = num_missing > 0.5 and abs(num_missing - round(num_missing)) < 0.1
        raise _refused(
            source,
            f"{ordered[index]} at {places[index]:.2f} mm and {ordered[index + 1]} at "
            f"{places[index + 1]:.2f} mm are {gaps[index]:.2f} mm apart, others {usual:.2f} mm"
            + (f" ({odd.size} such places)" if odd.size > 1 else "")
            + (f"; slices missing between them: {round(num_missing)}" if is_missing else ""),
            "even spacing",
            "add the missing slices" if is_missing else "resample the series to even spacing",
        )
    return float((places[-1] - places[0]) / (len(places) - 1))


def _hounsfield(path: Path, *, name: str, source: str) -> npt.NDArray[np.int16]:
    """Reads the pixels of one file."""
    try:
        header = pydicom.dcmread(path)
        values = apply_rescale(header.pixel_array, header)
    except DAMAGED as error:
        raise UnreadableScanError(source=source, reason=f"{name} {_damage(error)}") from error
    if values.ndim != 2:
        raise _refused(
            source, f"{name} holds {list(values.shape)} values", "one slice in each file", _HINT
        )
    limits = np.iinfo(np.int16)
    return np.rint(values).clip(limits.min, limits.max).astype(np.int16)


def _refused(source: str, found: str, expected: str, mend: str) -> UnreadableScanError:
    reason = f"is refused: {found}; expected {expected}; {mend}"
    return UnreadableScanError(source=source, reason=reason)


def _damage(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return (
        f"cannot be read as DICOM ({text[:200]}); expected a whole file; copy it again, or {_HINT}"
    )


def _numbers(values: Sequence[float]) -> str:
    return "\\".join("nan" if math.isnan(value) else f"{value:g}" for value in values)
