"""Masks of a scan: NIfTI label maps, DICOM SEG and RTSTRUCT, brought to the grid of the scan."""

import itertools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import RTStructureSetStorage
from skimage.draw import polygon

from preprocessing.spec import IMAGE_SPEC, MASK_FILE_FOREGROUND
from preprocessing.volumes.dicom_series import DAMAGED
from preprocessing.volumes.nifti import is_nifti, read_label_map
from preprocessing.volumes.scans import (
    Scan,
    UnreadableScanError,
    raise_if_of_disk,
    to_canonical,
    upright,
)

_PLANAR = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
MAX_OFF_PIXEL = 0.1
"""In pixels: a mask whose corners lie further from those of its scan is of another grid. Headers
hold few digits, NIfTI's are of 32 bits."""

_MAX_OFF_PLANE = 0.3
"""In slices: what lies further from every slice was not drawn on this scan."""

_NOT_THIS = "the scan; expected outlines that were drawn on this series; take that series"


@dataclass(frozen=True, kw_only=True)
class ScanMask:
    """The mask of a scan."""

    voxels: npt.NDArray[np.uint8]
    """[slices, rows, columns] in {0, 1}, voxel by voxel as ``Scan.hounsfield``."""

    structures: tuple[str, ...]
    """Names of the segments or structures that were taken; empty for a label map."""


def read_scan_mask(
    path: Path,
    scan: Scan,
    *,
    source: str,
    structure: str,
    foreground: Collection[int] | None,
) -> ScanMask:
    """Reads a mask of a scan.

    Args:
        path: a NIfTI label map, a DICOM SEG or an RTSTRUCT.
        scan: whose mask it is.
        source: name of the file, for messages.
        structure: regular expression that finds the wanted segments or structures by their names.
        foreground: labels of a NIfTI file that are lung; None: it holds 0 and one other label.

    Raises:
        UnreadableScanError: if it cannot be read, has no such structure or lies on another grid.
        OSError: if the disk does not give it.
    """
    if is_nifti(path.name):
        volume = _of_labels(read_label_map(path, source=source), foreground, source=source)
        inside = np.zeros(scan.hounsfield.spatial_shape, np.bool_)
        _add(inside, volume, scan, source=source)
        _check_placed(inside, has_any=bool(volume.array.any()), source=source)
        return ScanMask(voxels=inside.view(np.uint8), structures=())
    try:
        header = pydicom.dcmread(path)
        if header.SOPClassUID == RTStructureSetStorage:
            return _of_outlines(header, scan, structure, source=source)
        return _of_segments(header, scan, structure, source=source)
    except UnreadableScanError:
        raise
    except DAMAGED as error:
        raise_if_of_disk(error)
        raise UnreadableScanError(
            source=source,
            reason=f"cannot be read as SEG or RTSTRUCT ({type(error).__name__}); expected a whole "
            "file; copy or export it again",
        ) from error


def _of_labels(volume: hd.Volume, foreground: Collection[int] | None, *, source: str) -> hd.Volume:
    labels = volume.array
    if foreground is None:
        found = np.unique(labels)
        others = found[found != IMAGE_SPEC.background_label].tolist()
        if len(others) > 1 or (others and others[0] not in (1, MASK_FILE_FOREGROUND)):
            raise UnreadableScanError(
                source=source,
                reason=f"has the labels {others[:10]}; expected one, 1 or {MASK_FILE_FOREGROUND}; "
                "say with --mask-foreground which are lung",
            )
        foreground = others
    return volume.with_array(np.isin(labels, list(foreground)).astype(np.uint8))


def _of_segments(header: Dataset, scan: Scan, structure: str, *, source: str) -> ScanMask:
    """Puts the frames of a SEG on the slices of a scan, each at its place."""
    names = {
        int(each.SegmentNumber): str(each.get("SegmentLabel", ""))
        for each in header.SegmentSequence
    }
    wanted = _wanted(names, structure, kind="segment", source=source)
    inside = np.zeros(scan.hounsfield.spatial_shape, np.bool_)
    shared = header.SharedFunctionalGroupsSequence[0]
    frames = header.pixel_array.reshape(-1, header.Rows, header.Columns)
    is_label_map = header.SegmentationType == "LABELMAP"
    least, has_any = 1, False
    if header.SegmentationType == "FRACTIONAL":
        least = -(-int(header.MaximumFractionalValue) // 2)
    for frame, groups in zip(frames, header.PerFrameFunctionalGroupsSequence, strict=True):
        if is_label_map:
            pixels = np.isin(frame, wanted)
        else:
            number = _group("SegmentIdentificationSequence", groups, shared).ReferencedSegmentNumber
            pixels = (frame >= least) & (int(number) in wanted)
        if pixels.any():
            has_any = True
            _add(inside, _frame(pixels, groups, shared, scan), scan, source=source)
    _check_placed(inside, has_any=has_any, source=source)
    return ScanMask(voxels=inside.view(np.uint8), structures=_names(names, wanted))


def _frame(
    pixels: npt.NDArray[np.bool_], groups: Dataset, shared: Dataset, scan: Scan
) -> hd.Volume:
    """Gives a frame as a volume of one slice, as thick as those of the scan."""
    plane = _group("PlaneOrientationSequence", groups, shared)
    orientation = np.asarray(plane.ImageOrientationPatient, np.float64).reshape(2, 3)
    measures = _group("PixelMeasuresSequence", groups, shared)
    rows_mm, columns_mm = (float(each) for each in measures.PixelSpacing)
    affine = np.identity(4)
    affine[:3, 0] = np.cross(*orientation) * scan.hounsfield.spacing[0]
    affine[:3, 1] = orientation[1] * rows_mm
    affine[:3, 2] = orientation[0] * columns_mm
    place = _group("PlanePositionSequence", groups, shared)
    affine[:3, 3] = np.asarray(place.ImagePositionPatient, np.float64)
    affine = upright(affine, source=scan.source)
    return hd.Volume(array=pixels[np.newaxis], affine=affine, coordinate_system="PATIENT")


def _group(keyword: str, groups: Dataset, shared: Dataset) -> Dataset:
    """Gives a group of attributes of a frame, or that of all frames."""
    found: Dataset = (groups if keyword in groups else shared)[keyword].value[0]
    return found


def _of_outlines(header: Dataset, scan: Scan, structure: str, *, source: str) -> ScanMask:
    """Fills the outlines of an RTSTRUCT; one inside of another of its structure is a hole."""
    names = {
        int(each.ROINumber): str(each.get("ROIName", "")) for each in header.StructureSetROISequence
    }
    wanted = _wanted(names, structure, kind="structure", source=source)
    geometry = scan.hounsfield.get_geometry()
    mask = np.zeros(geometry.spatial_shape, np.bool_)
    filled: set[int] = set()
    for roi in header.ROIContourSequence:
        if int(roi.ReferencedROINumber) not in wanted:
            continue
        inside = np.zeros_like(mask)
        for contour in roi.get("ContourSequence", ()):
            if str(contour.ContourGeometricType) in _PLANAR:
                _fill(inside, contour, geometry, source=source)
                filled.add(int(roi.ReferencedROINumber))
        mask |= inside
    if not filled:
        raise UnreadableScanError(
            source=source,
            reason=f"has no closed outline of {', '.join(map(repr, _names(names, wanted)))}; "
            "expected some; draw them, or name others with --structure",
        )
    return ScanMask(voxels=mask.view(np.uint8), structures=_names(names, sorted(filled)))


def _fill(
    inside: npt.NDArray[np.bool_],
    contour: Dataset,
    geometry: hd.VolumeGeometry,
    *,
    source: str,
) -> None:
    points = np.reshape(np.asarray(contour.ContourData, np.float64), (-1, 3))
    indices = geometry.map_reference_to_indices(points)  # [points, (slice, row, column)]
    index = round(float(np.median(indices[:, 0])))
    off_plane = float(np.abs(indices[:, 0] - index).max())
    if off_plane > _MAX_OFF_PLANE or not 0 <= index < len(inside):
        raise UnreadableScanError(
            source=source,
            reason=f"has an outline at {points[0].round(2).tolist()} mm, on none of the "
            f"{len(inside)} slices of {_NOT_THIS}",
        )
    rows, columns = polygon(indices[:, 1], indices[:, 2], inside.shape[1:])
    inside[index, rows, columns] ^= True


def _wanted(names: dict[int, str], structure: str, *, kind: str, source: str) -> Sequence[int]:
    wanted = [number for number, name in names.items() if re.search(structure, name)]
    if not wanted:
        raise UnreadableScanError(
            source=source,
            reason=f"has no {kind} that --structure {structure!r} finds; it has "
            f"{', '.join(map(repr, names.values())) or 'none at all'}; name yours",
        )
    return wanted


def _add(inside: npt.NDArray[np.bool_], volume: hd.Volume, scan: Scan, *, source: str) -> None:
    """Adds a mask, or a slice of one, to the voxels of a scan, without resampling.

    What reaches beyond the scan is cut off, and what it does not reach stays background.

    Raises:
        UnreadableScanError: if its voxels are not those of the scan.
    """
    turned, grid = to_canonical(volume, source=source), scan.hounsfield
    corners = np.array(list(itertools.product(*((0, size - 1) for size in turned.spatial_shape))))
    places = grid.map_reference_to_indices(turned.map_indices_to_reference(corners))
    start = np.rint(places[0]).astype(int)
    limits = np.array([_MAX_OFF_PLANE, MAX_OFF_PIXEL, MAX_OFF_PIXEL])
    if (np.abs(places - (corners + start)) > limits).any():
        raise UnreadableScanError(
            source=source,
            reason=f"lies on another grid ({_grid(turned)}) than its scan ({_grid(grid)}); "
            "expected equal voxels; resample the mask to the scan, to its nearest voxels",
        )
    ours, theirs = [], []
    for at, size, whole in zip(start, turned.spatial_shape, grid.spatial_shape, strict=True):
        ours.append(slice(max(at, 0), max(min(at + size, whole), 0)))
        theirs.append(slice(max(-at, 0), max(min(size, whole - at), 0)))
    inside[tuple(ours)] |= turned.array[tuple(theirs)] > 0


def _check_placed(inside: npt.NDArray[np.bool_], *, has_any: bool, source: str) -> None:
    """Looks whether a mask that holds something holds something of the scan.

    Raises:
        UnreadableScanError: if it lies wholly beside the scan.
    """
    if has_any and not inside.any():
        raise UnreadableScanError(
            source=source,
            reason="lies wholly beside its scan; expected a mask that was drawn on it; take "
            "that of this scan",
        )


def _names(names: dict[int, str], wanted: Sequence[int]) -> tuple[str, ...]:
    return tuple(sorted(names[number] for number in wanted))


def _grid(volume: hd.Volume) -> str:
    shape = "x".join(map(str, volume.spatial_shape))
    spacing = " x ".join(f"{each:.4g}" for each in volume.spacing)
    return f"{shape} voxels of {spacing} mm at {np.round(volume.position, 1).tolist()}"
