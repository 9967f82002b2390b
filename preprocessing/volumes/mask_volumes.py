"""Masks of a scan: NIfTI label maps, DICOM SEG and RTSTRUCT, brought to the grid of the scan."""

import re
from collections.abc import Collection, Sequence
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
from preprocessing.volumes.scans import Scan, UnreadableScanError, to_canonical

_PLANAR = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_MAX_OFF_PLANE = 0.3
"""In slices: an outline that lies further from every slice was not drawn on this scan."""


def read_scan_mask(
    path: Path,
    scan: Scan,
    *,
    source: str,
    structure: str,
    foreground: Collection[int] | None,
) -> npt.NDArray[np.uint8]:
    """Reads a mask of a scan.

    Args:
        path: a NIfTI label map, a DICOM SEG or an RTSTRUCT.
        scan: whose mask it is.
        source: name of the file, for messages.
        structure: regular expression that finds the wanted segments or structures by their names.
        foreground: labels of a NIfTI file that are lung; None: it holds 0 and one other label.

    Returns:
        [slices, rows, columns] uint8 in {0, 1}, voxel by voxel as ``scan.hounsfield``.

    Raises:
        UnreadableScanError: if it cannot be read, has no such structure or lies on another grid.
    """
    if is_nifti(path.name):
        volume = _of_labels(read_label_map(path, source=source), foreground, source=source)
        return _on_grid(volume, scan, source=source)
    try:
        header = pydicom.dcmread(path)
        if header.SOPClassUID == RTStructureSetStorage:
            return _of_outlines(header, scan, structure, source=source)
        return _on_grid(_of_segments(header, structure, source=source), scan, source=source)
    except UnreadableScanError:
        raise
    except DAMAGED as error:
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise UnreadableScanError(
            source=source,
            reason=f"cannot be read as SEG or RTSTRUCT ({text}); expected a whole file; copy or "
            "export it again",
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


def _of_segments(header: Dataset, structure: str, *, source: str) -> hd.Volume:
    segmentation = hd.seg.Segmentation.from_dataset(header, copy=False)
    names = {
        number: segmentation.get_segment_description(number).segment_label
        for number in segmentation.segment_numbers
    }
    wanted = _wanted(names, structure, kind="segment", source=source)
    # [slices, rows, columns, segments]; a fractional segmentation gives shares.
    volume = segmentation.get_volume(segment_numbers=wanted)
    inside = volume.array.astype(np.float32).max(axis=-1) >= 0.5
    return hd.Volume(
        array=inside.astype(np.uint8),
        affine=volume.affine,
        coordinate_system="PATIENT",
    )


def _of_outlines(
    header: Dataset, scan: Scan, structure: str, *, source: str
) -> npt.NDArray[np.uint8]:
    """Fills the outlines of an RTSTRUCT; one inside of another of its structure is a hole."""
    names = {
        int(each.ROINumber): str(each.get("ROIName", "")) for each in header.StructureSetROISequence
    }
    wanted = _wanted(names, structure, kind="structure", source=source)
    geometry = scan.hounsfield.get_geometry()
    mask = np.zeros(geometry.spatial_shape, np.bool_)
    for roi in header.ROIContourSequence:
        if int(roi.ReferencedROINumber) not in wanted:
            continue
        inside = np.zeros_like(mask)
        for contour in roi.get("ContourSequence", ()):
            if str(contour.ContourGeometricType) in _PLANAR:
                _fill(inside, contour, geometry, source=source)
        mask |= inside
    return mask.astype(np.uint8)


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


_NOT_THIS = "the scan; expected outlines that were drawn on this series; take that series"


def _wanted(names: dict[int, str], structure: str, *, kind: str, source: str) -> Sequence[int]:
    wanted = [number for number, name in names.items() if re.search(structure, name)]
    if not wanted:
        raise UnreadableScanError(
            source=source,
            reason=f"has no {kind} that --structure {structure!r} finds; it has "
            f"{', '.join(map(repr, names.values())) or 'none at all'}; name yours",
        )
    return wanted


def _on_grid(volume: hd.Volume, scan: Scan, *, source: str) -> npt.NDArray[np.uint8]:
    """Brings a mask to the grid of a scan without resampling."""
    try:
        matched = to_canonical(volume, source=source).match_geometry(scan.hounsfield)
    except RuntimeError as error:
        ours, theirs = scan.hounsfield, volume
        raise UnreadableScanError(
            source=source,
            reason=f"lies on another grid ({_grid(theirs)}) than its scan ({_grid(ours)}); "
            "expected equal voxels; resample the mask to the scan, to its nearest voxels",
        ) from error
    return matched.array.astype(np.uint8)


def _grid(volume: hd.Volume) -> str:
    shape = "x".join(map(str, volume.spatial_shape))
    spacing = " x ".join(f"{each:.4g}" for each in volume.spacing)
    return f"{shape} voxels of {spacing} mm at {np.round(volume.position, 1).tolist()}"
