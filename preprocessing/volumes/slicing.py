"""A scan and its mask -> axial slices as PNG files, from which records are made as from any others.

Names hold pseudonyms only: ``patient-3f9a2c71e04b/series-8d51c0aa97f3_z0042.png``, counted from the
feet to the head.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from preprocessing.config import PATIENT_GROUP
from preprocessing.manifest import RefusedFile
from preprocessing.png import encode_png
from preprocessing.shards import describe_write_error
from preprocessing.spec import MASK_FILE_FOREGROUND
from preprocessing.volumes.dicom_series import read_series
from preprocessing.volumes.finding import ScanPair
from preprocessing.volumes.mask_volumes import read_scan_mask
from preprocessing.volumes.nifti import is_nifti, read_nifti_scan
from preprocessing.volumes.pseudonyms import pseudonym
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

    salt: bytes = field(repr=False)
    """Of pseudonyms."""


@dataclass(frozen=True, kw_only=True)
class SlicedScan:
    """What a worker did with a scan."""

    name: str
    """Of the scan, below the folder of scans."""

    num_slices: int = 0
    """Slices that it wrote."""

    refused: RefusedFile | None = None
    """The scan or its mask, if it cannot be used."""

    failure: str = ""
    """Why nothing could be written, if so: what happened, and the mend."""


def slice_scan(pair: ScanPair, *, options: SliceOptions, folder: str) -> SlicedScan:
    """Writes the slices of a scan and of its mask below ``folder``, all or none.

    Args:
        pair: the scan and its mask.
        options: where they lie, and how they are read.
        folder: takes the folders ``images`` and ``masks``.
    """
    scans = Path(options.images)
    try:
        scan = _read(pair, scans)
        suspicion = doubt(scan.hounsfield.array)
        if suspicion:
            raise UnreadableScanError(source=pair.scan.name, reason=suspicion)
    except UnreadableScanError as error:
        return _refused(pair, f"{IMAGES}/{pair.scan.name}", error)
    role, masks = (IMAGES, scans) if pair.is_beside else (MASKS, Path(options.masks))
    try:
        mask = read_scan_mask(
            masks / pair.mask_path,
            scan,
            source=pair.mask_path,
            structure=options.structure,
            foreground=options.mask_foreground,
        )
    except UnreadableScanError as error:
        return _refused(pair, f"{role}/{pair.mask_path}", error)
    patient = pseudonym("patient", pair.scan.patient_id, salt=options.salt)
    series = pseudonym("series", pair.scan.series_id, salt=options.salt)
    gray_values = options.window.gray_values(scan.hounsfield.array)
    try:
        for index, (image, inside) in enumerate(zip(gray_values, mask, strict=True)):
            name = f"{patient}/{series}_z{index:04d}.png"
            _write(Path(folder) / IMAGES / name, encode_png(np.ascontiguousarray(image)))
            outline = np.ascontiguousarray(inside) * np.uint8(MASK_FILE_FOREGROUND)
            _write(Path(folder) / MASKS / name, encode_png(outline, is_flat=True))
    except OSError as error:
        return SlicedScan(
            name=pair.scan.name,
            failure=describe_write_error(f"slices of {pair.scan.name}", folder, error),
        )
    return SlicedScan(name=pair.scan.name, num_slices=len(gray_values))


def _read(pair: ScanPair, folder: Path) -> Scan:
    found = pair.scan
    if is_nifti(found.paths[0]):
        return read_nifti_scan(
            folder / found.paths[0], source=found.name, patient_id=found.patient_id
        )
    paths: Mapping[str, Path] = {path: folder / path for path in found.paths}
    return read_series(paths, source=found.name)[0]


def _refused(pair: ScanPair, file: str, error: UnreadableScanError) -> SlicedScan:
    entry = RefusedFile(file=file, reason=error.reason)
    return SlicedScan(name=pair.scan.name, refused=entry)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
