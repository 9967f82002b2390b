"""A scan and its mask -> axial slices as PNG files, from which records are made as from any others.

Names hold pseudonyms only: ``patient-3f9a2c71e04b/series-8d51c0aa97f3_z0042.png``, counted from the
feet to the head.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocessing.config import PATIENT_GROUP
from preprocessing.manifest import RefusedFile
from preprocessing.png import encode_png
from preprocessing.shards import describe_write_error
from preprocessing.spec import MASK_FILE_FOREGROUND
from preprocessing.volumes.dicom_series import read_series
from preprocessing.volumes.mask_volumes import read_scan_mask
from preprocessing.volumes.nifti import is_nifti, read_nifti_scan
from preprocessing.volumes.scans import Scan, UnreadableScanError, doubt
from preprocessing.volumes.windowing import Window

IMAGES = "images"
MASKS = "masks"

PATIENT_PATTERN = rf"^(?P<{PATIENT_GROUP}>patient-[0-9a-f]+)/"
"""Reads the patient from a slice's name."""


@dataclass(frozen=True, kw_only=True)
class SliceOptions:
    """From what, and how, slices are made."""

    images: str
    """Folder of the scans."""

    masks: str
    """Folder of the masks."""

    window: Window
    """Through which scans are looked at."""

    structure: str
    """Regular expression that finds segments and structures by their names."""

    mask_foreground: tuple[int, ...] | None
    """Labels of NIfTI masks that are lung."""


@dataclass(frozen=True, kw_only=True)
class ScanPlan:
    """What one worker has to do; it is written down, so it tells nobody who the patient is."""

    name: str
    """Of the scan, below the folder of scans."""

    paths: tuple[str, ...]
    """Files of the scan, below the folder of scans."""

    mask_path: str
    """File of the mask."""

    is_beside: bool
    """Whether the mask lies below the folder of scans, and not below that of masks."""

    patient: str
    """Pseudonym of the patient."""

    series: str
    """Pseudonym of the series."""


@dataclass(frozen=True, kw_only=True)
class SlicedScan:
    """What a worker did with a scan."""

    name: str
    """Of the scan, below the folder of scans."""

    num_slices: int = 0
    """Slices that it wrote."""

    structures: tuple[str, ...] = ()
    """Segments or structures that are the mask, by their names."""

    refused: RefusedFile | None = None
    """The scan or its mask, if it cannot be used."""

    failure: str = ""
    """Why nothing could be written, if so: what happened, and the mend."""


def slice_scan(plan: ScanPlan, *, options: SliceOptions, folder: str) -> SlicedScan:
    """Writes the slices of a scan and of its mask below ``folder``.

    Args:
        plan: the scan and its mask.
        options: where they lie, and how they are read.
        folder: takes the folders ``images`` and ``masks``.
    """
    role, masks = (IMAGES, options.images) if plan.is_beside else (MASKS, options.masks)
    try:
        try:
            scan = _read(plan, Path(options.images))
            suspicion = doubt(scan.hounsfield.array)
            if suspicion:
                raise UnreadableScanError(source=plan.name, reason=suspicion)
        except UnreadableScanError as error:
            return _refused(plan, f"{IMAGES}/{plan.name}", error)
        try:
            mask = read_scan_mask(
                Path(masks) / plan.mask_path,
                scan,
                source=plan.mask_path,
                structure=options.structure,
                foreground=options.mask_foreground,
            )
        except UnreadableScanError as error:
            return _refused(plan, f"{role}/{plan.mask_path}", error)
    except OSError as error:
        failure = f"cannot read {plan.name} or its mask: {error.strerror}; run again when it can be"
        return SlicedScan(name=plan.name, failure=failure)
    gray_values = options.window.gray_values(scan.hounsfield.array)
    try:
        for index, (image, inside) in enumerate(zip(gray_values, mask.voxels, strict=True)):
            name = f"{plan.patient}/{plan.series}_z{index:04d}.png"
            _write(Path(folder) / IMAGES / name, encode_png(np.ascontiguousarray(image)))
            outline = np.ascontiguousarray(inside) * np.uint8(MASK_FILE_FOREGROUND)
            _write(Path(folder) / MASKS / name, encode_png(outline, is_flat=True))
    except OSError as error:
        failure = describe_write_error(f"slices of {plan.name}", folder, error)
        return SlicedScan(name=plan.name, failure=failure)
    return SlicedScan(name=plan.name, num_slices=len(gray_values), structures=mask.structures)


def _read(plan: ScanPlan, folder: Path) -> Scan:
    if is_nifti(plan.paths[0]):
        return read_nifti_scan(folder / plan.paths[0], source=plan.name)
    return read_series({path: folder / path for path in plan.paths}, source=plan.name)[0]


def _refused(plan: ScanPlan, file: str, error: UnreadableScanError) -> SlicedScan:
    entry = RefusedFile(file=file, reason=error.reason)
    return SlicedScan(name=plan.name, refused=entry)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
