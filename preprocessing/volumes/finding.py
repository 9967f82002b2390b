"""Which scans a folder holds, and which mask belongs to which."""

import dataclasses
import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    RTStructureSetStorage,
    SegmentationStorage,
)

from preprocessing.config import AUTO_PATTERN, TfrecordsConfig
from preprocessing.errors import PreprocessingError
from preprocessing.finding import unify
from preprocessing.manifest import RefusedFile
from preprocessing.splitting import read_patients
from preprocessing.volumes.detection import find_volume_files
from preprocessing.volumes.dicom_series import read_header
from preprocessing.volumes.nifti import is_nifti, nifti_stem
from preprocessing.volumes.scans import UnreadableScanError

logger = logging.getLogger(__name__)

_TAGS = (
    "SOPClassUID",
    "Modality",
    "ImageType",
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "ReferencedSeriesSequence",
    "ReferencedFrameOfReferenceSequence",
)
_LABEL_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
"""Label Map Segmentation Storage, which pydicom 3.0 does not name."""
_MASK_CLASSES = (SegmentationStorage, RTStructureSetStorage, _LABEL_MAP_STORAGE)
_CT_CLASSES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
_NUM_MARK_DIGITS = 8

LONE_SERIES = "series"
"""Name of a series that lies in the folder of scans itself, alone."""


@dataclass(frozen=True, kw_only=True)
class FoundScan:
    """A DICOM series or a NIfTI file, not yet read."""

    name: str
    """Folder of the series, or the NIfTI file without its ending, below the folder of scans."""

    paths: tuple[str, ...]
    """Its files, below the folder of scans."""

    patient_id: str = field(repr=False)
    """As the header or the name tells it; never to be shown or written."""

    series_id: str = field(repr=False)
    """``SeriesInstanceUID``, or the name; never to be shown or written."""

    study_id: str = field(default="", repr=False)
    """``StudyInstanceUID``; never to be shown or written."""


@dataclass(frozen=True, kw_only=True)
class FoundScans:
    """What a folder holds."""

    scans: tuple[FoundScan, ...]
    """In the order of their names."""

    masks: Mapping[str, Sequence[str]]
    """Paths of SEG and RTSTRUCT files by the ``SeriesInstanceUID`` that they are of."""

    skipped: tuple[str, ...]
    """Files that are no CT: scout images, other modalities, and what is no volume at all."""

    refused: tuple[RefusedFile, ...]
    """Files that cannot be read, and why."""


@dataclass(frozen=True, kw_only=True)
class ScanPair:
    """A scan and its mask."""

    scan: FoundScan
    """The scan."""

    mask_path: str
    """File of the mask."""

    is_beside: bool
    """Whether the mask lies below the folder of scans, and not below that of masks."""


@dataclass(frozen=True, kw_only=True)
class ScanPairing:
    """What the folders hold."""

    pairs: tuple[ScanPair, ...]
    """In the order of the scans."""

    orphans: tuple[RefusedFile, ...]
    """Scans without a mask and masks without a scan."""

    refused: tuple[RefusedFile, ...]
    """Files that cannot be read."""

    skipped: tuple[str, ...]
    """What is neither."""


def find_scans(
    folder: Path,
    *,
    role: str,
    leave_out: Collection[Path] = (),
    paths: Sequence[Path] | None = None,
) -> FoundScans:
    """Lists the series and NIfTI files of a folder and its subfolders.

    Args:
        folder: where to look.
        role: ``images`` or ``masks``, for the list of refused files.
        leave_out: subfolders that are not looked at.
        paths: files below it, if not all of them are wanted.

    Raises:
        PreprocessingError: if there is no such folder.
        OSError: if a folder cannot be read.
    """
    series: dict[str, list[tuple[str, Dataset]]] = {}
    masks: dict[str, list[str]] = {}
    scans: list[FoundScan] = []
    skipped: list[str] = []
    refused: list[RefusedFile] = []
    for file in find_volume_files(folder, leave_out=leave_out, paths=paths):
        if file.is_nifti:
            name = nifti_stem(file.path)
            scans.append(FoundScan(name=name, paths=(file.path,), patient_id=name, series_id=name))
            continue
        if not file.is_dicom:
            skipped.append(f"{role}/{file.path}")
            continue
        try:
            header = read_header(folder / file.path, tags=_TAGS)
        except UnreadableScanError as error:
            refused.append(RefusedFile(file=f"{role}/{file.path}", reason=error.reason))
            continue
        if header.get("SOPClassUID") in _MASK_CLASSES:
            masks.setdefault(_referenced_series(header), []).append(file.path)
        elif (why := _why_no_slice(header)) is not None:
            logger.info("%s is %s and left out", folder / file.path, why)
            skipped.append(f"{role}/{file.path}")
        else:
            series.setdefault(str(header.get("SeriesInstanceUID", "")), []).append(
                (file.path, header)
            )
    folders = {uid: _folder(files) for uid, files in series.items()}
    num_series = Counter(folders.values())
    scans += [
        _series(uid, files, folder=folders[uid], is_alone=num_series[folders[uid]] == 1)
        for uid, files in series.items()
    ]
    return FoundScans(
        scans=tuple(sorted(scans, key=lambda scan: scan.name)),
        masks=masks,
        skipped=tuple(skipped),
        refused=tuple(refused),
    )


def pair_scans(config: TfrecordsConfig) -> ScanPairing:
    """Finds the mask of each scan.

    A SEG or RTSTRUCT is the mask of the series that it names, and may lie in either folder. A NIfTI
    label map is the mask of the NIfTI file of its name, or of the series in the folder of its name,
    marks such as ``_mask`` apart.

    Raises:
        PreprocessingError: if there is no pair at all.
        OSError: if a folder cannot be read.
    """
    apart = config.masks is not None
    leave_out = [config.out] + ([config.masks] if config.masks else [])
    images = find_scans(config.images, role="images", leave_out=leave_out)
    masks = images
    if config.masks is not None:
        masks = find_scans(config.masks, role="masks", leave_out=[config.out, config.images])
    scans, label_maps = _told_apart(images, masks, config=config)
    by_series = {uid: [(path, True) for path in paths] for uid, paths in images.masks.items()}
    if apart:
        for uid, paths in masks.masks.items():
            by_series.setdefault(uid, []).extend((path, False) for path in paths)
    _check_names(scans, label_maps, config=config)
    pairs: list[ScanPair] = []
    orphans: list[RefusedFile] = []
    refused = (*images.refused, *(masks.refused if apart else ()))
    used: set[tuple[str, bool]] = set()
    for scan in _with_patients(scans, config=config):
        found = list(by_series.get(scan.series_id, ()))
        name = unify(_cut(config.image_pattern, scan.name))
        found += [(path, not apart) for path in label_maps.get(name, ())]
        used.update(found)
        if len(found) == 1:
            path, is_beside = found[0]
            pairs.append(ScanPair(scan=scan, mask_path=path, is_beside=is_beside))
        else:
            orphans.append(_without_one_mask(scan, [path for path, _ in found]))
    everything = [mask for each in by_series.values() for mask in each]
    everything += [(path, not apart) for paths in label_maps.values() for path in paths]
    for path, is_beside in sorted(set(everything) - used):
        orphans.append(
            RefusedFile(
                file=f"{'images' if is_beside else 'masks'}/{path}",
                reason="is the mask of no scan here; expected the series that it names, or a scan "
                "of its name; add the scan or remove the mask",
            )
        )
    if not pairs:
        told = [*orphans, *refused]
        first = f"; first: {told[0].file} {told[0].reason}" if told else ""
        raise PreprocessingError(
            f"none of {len(scans)} scans below {config.images} has a mask below "
            f"{config.mask_folder()}; expected DICOM SEG or RTSTRUCT files that name their series, "
            f"or NIfTI files with the names of scans{first}"
        )
    skipped = (*images.skipped, *(masks.skipped if apart else ()))
    return ScanPairing(pairs=tuple(pairs), orphans=tuple(orphans), refused=refused, skipped=skipped)


def _told_apart(
    images: FoundScans, masks: FoundScans, *, config: TfrecordsConfig
) -> tuple[list[FoundScan], dict[str, list[str]]]:
    """Gives the scans, and the paths of label maps by the name of their scan."""
    label_maps: dict[str, list[str]] = {}
    scans = []
    for scan in images.scans:
        name = _cut(config.mask_pattern, scan.name)
        if images is masks and is_nifti(scan.paths[0]) and name != scan.name:
            label_maps.setdefault(unify(name), []).append(scan.paths[0])
        else:
            scans.append(scan)
    if masks is not images:
        names = {unify(_cut(config.image_pattern, scan.name)) for scan in scans}
        for mask in masks.scans:
            if not is_nifti(mask.paths[0]):
                continue
            as_it_is = unify(_cut(config.image_pattern, mask.name))
            name = as_it_is if as_it_is in names else unify(_cut(config.mask_pattern, mask.name))
            label_maps.setdefault(name, []).append(mask.paths[0])
    return scans, label_maps


def _check_names(
    scans: Sequence[FoundScan], label_maps: Mapping[str, Sequence[str]], *, config: TfrecordsConfig
) -> None:
    """Looks whether names tell scans apart where names are what finds their masks.

    Raises:
        PreprocessingError: if two are of one name.
    """
    by_name: dict[str, list[FoundScan]] = {}
    for scan in scans:
        by_name.setdefault(unify(_cut(config.image_pattern, scan.name)), []).append(scan)
    for name, alike in by_name.items():
        is_by_name = name in label_maps or any(is_nifti(scan.paths[0]) for scan in alike)
        if len(alike) > 1 and is_by_name:
            first, second = (scan.paths[0] for scan in alike[:2])
            raise PreprocessingError(
                f"{config.images} holds scans that differ in nothing but ending, case or marks "
                f"such as _ct: {first} and {second}; expected one scan of each name; rename or "
                "remove one"
            )


def _with_patients(scans: Sequence[FoundScan], *, config: TfrecordsConfig) -> list[FoundScan]:
    """Reads the patients of NIfTI files from their names, where a pattern says how."""
    nameless = [scan.name for scan in scans if not scan.patient_id]
    if nameless:
        logger.warning(
            "%d series have no PatientID, such as %s; each study of theirs is taken for a patient",
            len(nameless),
            nameless[0],
        )
        scans = [
            dataclasses.replace(scan, patient_id=scan.patient_id or scan.study_id) for scan in scans
        ]
    names = [scan.name for scan in scans if is_nifti(scan.paths[0])]
    if len(names) < len(scans) and config.patient_pattern != AUTO_PATTERN:
        logger.warning("--patient-pattern is for NIfTI files; DICOM files say whose they are")
    if not names:
        return list(scans)
    if config.patient_pattern == AUTO_PATTERN:
        logger.warning(
            "each of %d NIfTI files is taken for a patient of its own; if a patient has several, "
            "tell with --patient-pattern how names begin, such as '^(?P<patient_id>[^/_]+)'",
            len(names),
        )
        return list(scans)
    patients = read_patients(names, pattern=config.patient_pattern).by_slice_id
    return [
        dataclasses.replace(scan, patient_id=patients.get(scan.name, scan.patient_id))
        for scan in scans
    ]


def _without_one_mask(scan: FoundScan, found: Sequence[str]) -> RefusedFile:
    if found:
        reason = f"has {len(found)} masks ({', '.join(sorted(found))}); expected one; remove others"
    else:
        reason = (
            "has no mask; expected a SEG or RTSTRUCT that names this series, or "
            f"{scan.name}.nii.gz; add it or remove the scan"
        )
    return RefusedFile(file=f"images/{scan.name}", reason=reason)


def _folder(files: Sequence[tuple[str, Dataset]]) -> str:
    """Gives the folder that all files of a series share; empty for that of all scans."""
    folder = os.path.commonpath([str(PurePosixPath(path).parent) for path, _ in files])
    return "" if folder == "." else folder


def _series(
    uid: str, files: Sequence[tuple[str, Dataset]], *, folder: str, is_alone: bool
) -> FoundScan:
    # Series of one folder are told apart by a hash, which tells nothing of them.
    mark = hashlib.sha256(uid.encode()).hexdigest()[:_NUM_MARK_DIGITS]
    name = folder or LONE_SERIES
    header = files[0][1]
    return FoundScan(
        name=name if is_alone else f"{name}_{mark}",
        paths=tuple(sorted(path for path, _ in files)),
        patient_id=str(header.get("PatientID") or ""),
        series_id=uid,
        study_id=str(header.get("StudyInstanceUID") or uid),
    )


def _why_no_slice(header: Dataset) -> str | None:
    """Tells why a DICOM file is left out without being missed, or gives None for a slice."""
    if "LOCALIZER" in (header.get("ImageType") or ()):
        return "a scout image"
    kind, modality = header.get("SOPClassUID"), str(header.get("Modality") or "")
    if kind in _CT_CLASSES or (kind is None and modality == "CT"):
        return None
    return f"no CT slice ({getattr(kind, 'name', kind)})"


def _referenced_series(header: Dataset) -> str:
    """Gives the ``SeriesInstanceUID`` that a SEG or RTSTRUCT says it was drawn on, or nothing."""
    for series in header.get("ReferencedSeriesSequence", ()):
        return str(series.get("SeriesInstanceUID", ""))
    for frame in header.get("ReferencedFrameOfReferenceSequence", ()):
        for study in frame.get("RTReferencedStudySequence", ()):
            for series in study.get("RTReferencedSeriesSequence", ()):
                return str(series.get("SeriesInstanceUID", ""))
    return ""


def _cut(pattern: str, name: str) -> str:
    return re.sub(pattern, "", name).strip("/")
