"""DICOM files of one series -> a volume."""

import math
import struct
import zlib
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

from preprocessing.volumes.scans import (
    Scan,
    UnreadableScanError,
    raise_if_of_disk,
    to_canonical,
    upright,
)

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
    IndexError,
    TypeError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    struct.error,
    zlib.error,
)
"""What pydicom and its decoders raise at a damaged or strange file."""

MAX_ASIDE_PIXELS = 0.25
"""By so much of a pixel a slice may lie beside the others: rounding, and no tilt."""

_NEEDED = {
    "ImagePositionPatient": 3,
    "ImageOrientationPatient": 6,
    "PixelSpacing": 2,
    "Rows": 1,
    "Columns": 1,
}
"""Attributes that a slice needs, and how many values each has."""

_HINT = "export the series again"


def read_header(path: Path, *, tags: Sequence[str] | None = None) -> Dataset:
    """Reads a DICOM file without its pixels.

    Args:
        path: the file.
        tags: keywords of what is needed; None: all.

    Raises:
        UnreadableScanError: if it is no whole DICOM file.
        OSError: if the disk does not give it.
    """
    try:
        return pydicom.dcmread(
            path, stop_before_pixels=True, specific_tags=None if tags is None else list(tags)
        )
    except DAMAGED as error:
        raise_if_of_disk(error)
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
        OSError: if the disk does not give a file.
    """
    try:
        return _read_series(paths, source=source)
    except UnreadableScanError:
        raise
    except DAMAGED as error:  # a header can be odd in more ways than are looked for
        raise_if_of_disk(error)
        raise UnreadableScanError(source=source, reason=_damage(error)) from error


def _read_series(paths: Mapping[str, Path], *, source: str) -> tuple[Scan, list[Dataset]]:
    named = {name: _header_of(path, name=name, source=source) for name, path in paths.items()}
    for name, header in named.items():
        _check_header(header, name=name, source=source)
    _check_alike(named, source=source)
    first = next(iter(named.values()))
    row, column = np.reshape(np.asarray(first.ImageOrientationPatient, np.float64), (2, 3))
    normal = np.cross(row, column)
    positions = {
        name: np.asarray(header.ImagePositionPatient, np.float64) for name, header in named.items()
    }
    heights = {name: float(position @ normal) for name, position in positions.items()}
    ordered = _without_copies(sorted(named, key=heights.__getitem__), named, heights, source=source)
    rows_mm, columns_mm = (float(each) for each in first.PixelSpacing)
    affine = np.identity(4)
    affine[:3, 0] = normal * _spacing(ordered, heights, source=source)
    affine[:3, 1] = column * rows_mm
    affine[:3, 2] = row * columns_mm
    affine[:3, 3] = positions[ordered[0]]
    affine = upright(affine, source=source)
    _check_stack([(name, positions[name]) for name in ordered], affine, source=source)
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
        hounsfield=to_canonical(volume, source=source),
        file_geometry=volume.get_geometry(),
    )
    return scan, [named[name] for name in ordered]


def _header_of(path: Path, *, name: str, source: str) -> Dataset:
    try:
        return read_header(path)
    except UnreadableScanError as error:
        raise UnreadableScanError(
            source=source, reason=f"is refused: {name} {error.reason}"
        ) from error


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
    missing = [tag for tag, count in _NEEDED.items() if not _has_numbers(header, tag, count)]
    if missing:
        raise _refused(
            source, f"{name} has no whole {' and no whole '.join(missing)}", "all of them", _HINT
        )
    if header.get("RescaleSlope") is None or header.get("RescaleIntercept") is None:
        raise _refused(
            source,
            f"{name} has no RescaleSlope or no RescaleIntercept, so Hounsfield units are unknown",
            "both",
            _HINT,
        )
    if str(header.get("RescaleType") or "HU") not in ("HU", "HU_MOD"):
        raise _refused(
            source,
            f"{name} is rescaled to {header.RescaleType}",
            "Hounsfield units (RescaleType HU)",
            "take the original series",
        )


def _has_numbers(header: Dataset, tag: str, count: int) -> bool:
    try:
        values = np.atleast_1d(np.asarray(header[tag].value, np.float64))
    except (KeyError, TypeError, ValueError):
        return False
    return values.size == count and bool(np.isfinite(values).all())


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
        elif named[name].get("SOPInstanceUID") != named[before].get("SOPInstanceUID", ""):
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


def _check_stack(
    ordered: Sequence[tuple[str, npt.NDArray[np.float64]]],
    affine: npt.NDArray[np.float64],
    *,
    source: str,
) -> None:
    """Looks whether slices stand upright on each other, none of them aside.

    Raises:
        UnreadableScanError: if not, as with a tilted gantry.
    """
    places = np.array([position for _, position in ordered]) - affine[:3, 3]
    # In the plane of the slices, in millimeters along rows and columns.
    steps = affine[:3, 1:3] / np.linalg.norm(affine[:3, 1:3], axis=0)
    aside = np.linalg.norm(places @ steps, axis=1)
    limit_mm = MAX_ASIDE_PIXELS * float(np.linalg.norm(affine[:3, 1:3], axis=0).min())
    if aside.max() <= limit_mm:
        return
    rises = aside / np.arange(len(aside)).clip(1)
    if np.ptp(rises[1:]) < 0.1 * rises[-1]:  # as much from each slice to the next
        spacing_mm = float(np.linalg.norm(affine[:3, 0]))
        raise UnreadableScanError(
            source=source,
            reason="has slices that are shifted against each other, by "
            f"{math.degrees(math.atan2(float(rises[-1]), spacing_mm)):.1f}° (a tilted gantry); "
            "expected slices that stand upright on each other; resample it",
        )
    index = int(np.argmax(aside > limit_mm))
    raise _refused(
        source,
        f"{ordered[index][0]} lies {aside[index]:.1f} mm beside the slices before it",
        "slices that stand upright on each other",
        "export the series again, or take out what is no part of it",
    )


def _hounsfield(path: Path, *, name: str, source: str) -> npt.NDArray[np.int16]:
    """Reads the pixels of one file."""
    try:
        header = pydicom.dcmread(path)
        values = apply_rescale(header.pixel_array, header)
    except DAMAGED as error:
        raise_if_of_disk(error)
        reason = f"is refused: {name} {_damage(error)}"
        raise UnreadableScanError(source=source, reason=reason) from error
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
    """Tells what a library says only by its kind: its words may hold values of the header."""
    if isinstance(error, FileNotFoundError | PermissionError):
        return f"cannot be read ({error.strerror}); check that it is there, and its rights"
    if isinstance(error, InvalidDicomError):
        return (
            "cannot be read as DICOM: it has no preamble; expected a file of DICOM's Part 10; "
            f"convert it, or {_HINT}"
        )
    return (
        f"cannot be read as DICOM ({type(error).__name__}); expected a whole file; copy it again, "
        f"or {_HINT}"
    )


def _numbers(values: Sequence[float]) -> str:
    return "\\".join("nan" if math.isnan(value) else f"{value:g}" for value in values)
