"""From DICOM series and NIfTI volumes to lungs as volumes: ``run`` reads from top to bottom."""

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from preprocessing.publish import whole_file, write_bytes
from preprocessing.volumes.dicom_series import read_series
from preprocessing.volumes.finding import LONE_SERIES, FoundScan, find_scans
from preprocessing.volumes.nifti import is_nifti, nifti_stem, read_nifti_scan, write_nifti
from preprocessing.volumes.scans import Scan, UnreadableScanError, doubt
from serving.client import SegmentationClient, mask_of_pixels
from serving.config import PredictConfig, VolumeConfig
from serving.endpoint import Endpoint
from serving.errors import (
    CallError,
    InputError,
    ModelNotFoundError,
    ServerUnavailableError,
    SignatureError,
)
from serving.mask_files import png_of
from serving.pipeline import in_order
from serving.volumes.lungs import LEFT, RIGHT, UNDIVIDED, Lungs, find_lungs
from serving.volumes.previews import draw_coronal, draw_sagittal
from serving.volumes.scan_results import (
    RESULT_FILENAME,
    ScanResult,
    ScanSummary,
    read_result,
    write_result,
    write_table,
)
from serving.volumes.segmentation_file import make_segmentation
from trainer.postprocessing import clean_mask
from trainer.signature import ARRAY_SIGNATURE

logger = logging.getLogger(__name__)

NIFTI_FILENAME = "lungs.nii.gz"
SEGMENTATION_FILENAME = "lungs.dcm"
PREVIEW_FILENAMES = ("coronal.png", "sagittal.png")

RESULT_FILENAMES = (NIFTI_FILENAME, SEGMENTATION_FILENAME, *PREVIEW_FILENAMES)
"""All that may lie beside ``result.json``."""

USUAL_ML = (500.0, 10_000.0)
"""Both lungs of adults hold 2 to 8 liters; what is outside of this range deserves a look."""

_CONCERNS_EVERY_SCAN = (ServerUnavailableError, ModelNotFoundError, SignatureError)
_RESULTS_DEPEND_ON = (
    "model_name",
    "model_version",
    "model_label",
    "flip_set",
    "postprocess",
    "overlays",
    "window_level_hu",
    "window_width_hu",
)
"""Settings with which the results of an earlier run are other results."""

Progress = Callable[[Sequence[int]], Iterable[int]]


@dataclass(frozen=True, kw_only=True)
class ScanFiles:
    """A scan to segment."""

    found: FoundScan
    """Its files."""

    folder: Path
    """Below which they lie."""

    name: str
    """Of its folder of results."""

    shown: str
    """What ``folder`` is called in messages."""


def run(
    config: PredictConfig,
    *,
    progress: Progress = iter,
    on_failure: Callable[[str], None] = logger.warning,
) -> ScanSummary:
    """Segments every scan of the inputs, and writes lungs, pictures and the table.

    A scan that fails is told and counted, and the others go on; the run ends early when the server
    is gone or has no such model. What an earlier run into the same folder has finished is not made
    again.

    Args:
        config: what, where to, and which server.
        progress: goes through the slices of a scan, perhaps showing how far it is.
        on_failure: is told each failure in one line, as soon as it is known.

    Returns:
        What came of each scan that was tried, now or earlier.

    Raises:
        InputError: if there is no scan, or the results cannot be written.
    """
    if config.signature != ARRAY_SIGNATURE.name:
        raise InputError(
            f"--signature is {config.signature}, which takes BMP and PNG files; expected "
            f"{ARRAY_SIGNATURE.name} for volumes"
        )
    scans, unreadable = find_inputs(config)
    for line in unreadable:
        on_failure(line)
    results = [ScanResult(name="", error=line) for line in unreadable]
    num_before = 0
    stopped = ""
    with SegmentationClient(Endpoint.of(config)) as client:
        for index, scan in enumerate(scans):
            try:
                result, is_earlier = _result_of(scan, client, config, progress)
            except _CONCERNS_EVERY_SCAN as error:
                stopped = f"stopped with {len(scans) - index} scans left: {error}"
                break
            except (UnreadableScanError, CallError) as error:
                line = str(error) if isinstance(error, UnreadableScanError) else ""
                result = ScanResult(name=scan.name, error=line or f"{scan.name}: {error}")
                is_earlier = False
                on_failure(result.error)
            if not is_earlier:
                for warning in result.warnings:
                    logger.warning("%s: %s", scan.name, warning)
            num_before += is_earlier
            results.append(result)
    if results:
        try:
            write_table(config.out, results)
        except OSError as error:
            raise _cannot_write(config, error) from error
    return ScanSummary(results=results, num_finished_before=num_before, stopped=stopped)


def _result_of(
    scan: ScanFiles, client: SegmentationClient, config: PredictConfig, progress: Progress
) -> tuple[ScanResult, bool]:
    """Gives what an earlier run made of a scan, and else makes it; tells which."""
    try:
        facts = _facts(scan, config)
        earlier = _earlier(scan, config, facts)
        if earlier:
            return earlier, True
        read = read_scan(scan)
    except OSError as error:
        raise UnreadableScanError(
            source=scan.name,
            reason=f"cannot be read now: {error}; run again when it can be",
        ) from error
    try:
        return segment_scan(
            scan, read, client=client, config=config, facts=facts, progress=progress
        ), False
    except OSError as error:
        raise _cannot_write(config, error) from error


def _cannot_write(config: PredictConfig, error: OSError) -> InputError:
    return InputError(f"{config.out} cannot be written: {error}; give another --out")


def find_inputs(config: PredictConfig) -> tuple[list[ScanFiles], list[str]]:
    """Lists the scans of the inputs, and tells the files that cannot be read.

    Raises:
        InputError: if there is none, or a folder cannot be read.
    """
    scans: list[ScanFiles] = []
    unreadable: list[str] = []
    skipped: list[str] = []
    for source in config.inputs:
        if source.resolve() == config.out.resolve():
            raise InputError(f"{source} is --out too; expected another folder for the results")
        if source.is_file() and is_nifti(source.name):
            name = nifti_stem(source.name)
            scans.append(nifti_scan(source, name=name, shown=str(source.parent)))
            continue
        try:
            listed = find_scans(source, role="images", leave_out=[config.out])
        except (ValueError, OSError) as error:
            raise InputError(f"{error}; give a folder of DICOM files, or a NIfTI file") from error
        for found in listed.scans:
            name = found.name
            if not is_nifti(found.paths[0]) and all("/" not in path for path in found.paths):
                # A series that lies in the folder itself is named as the folder.
                name = f"{source.resolve().name}{name.removeprefix(LONE_SERIES)}"
            scans.append(ScanFiles(found=found, folder=source, name=name, shown=str(source)))
        for entry in listed.refused:
            unreadable.append(f"{source / entry.file.partition('/')[2]} {entry.reason}")
        skipped += listed.skipped
    if not scans and not unreadable:
        raise InputError(
            f"{' '.join(map(str, config.inputs))}: no CT series and no NIfTI volume; "
            + (f"{len(skipped)} files are something else" if skipped else "no file")
        )
    return _with_names_apart(scans), unreadable


def nifti_scan(path: Path, *, name: str, shown: str) -> ScanFiles:
    """Gives the scan of a NIfTI file.

    Args:
        path: of the file.
        name: of its folder of results.
        shown: what the folder of the file is called in messages.
    """
    found = FoundScan(name=name, paths=(path.name,), patient_id=name, series_id=name)
    return ScanFiles(found=found, folder=path.parent, name=name, shown=shown)


@dataclass(frozen=True, kw_only=True)
class ReadScan:
    """A scan, read."""

    scan: Scan
    """The scan."""

    headers: Sequence[Dataset]
    """Of its files from first to last, if they are DICOM."""

    seconds: float
    """How long that took."""


def segment_scan(
    files: ScanFiles,
    read: ReadScan,
    *,
    client: SegmentationClient,
    config: PredictConfig,
    facts: dict[str, Any],
    progress: Progress = iter,
) -> ScanResult:
    """Segments one scan and writes all of its results, ``result.json`` last.

    Args:
        files: the scan.
        read: what they hold.
        client: of the server.
        config: how, and where to.
        facts: what the results depend on; kept beside them.
        progress: goes through the slices.

    Raises:
        CallError: one of its kinds, if a slice has no mask.
        OSError: if a result cannot be written.
    """
    start = time.perf_counter()
    out = config.out / files.name
    (out / RESULT_FILENAME).unlink(missing_ok=True)
    gray_values = config.hu_window.gray_values(read.scan.hounsfield.array)
    asked = time.perf_counter()
    mask, model_version = segment_slices(
        gray_values, client=client, config=config, progress=progress
    )
    segmented = time.perf_counter()
    result = write_volumes(
        read,
        gray_values,
        mask,
        out=out,
        name=files.name,
        config=config,
        model_version=model_version,
    )
    result = dataclasses.replace(
        result,
        reading_s=round(read.seconds, 3),
        model_s=round(segmented - asked, 3),
        total_s=round(read.seconds + time.perf_counter() - start, 3),
    )
    write_result(out / RESULT_FILENAME, result, facts=facts)
    return result


def read_scan(files: ScanFiles) -> ReadScan:
    """Reads the files of a scan.

    Raises:
        UnreadableScanError: if they are no scan.
        OSError: if the disk does not give one.
    """
    start = time.perf_counter()
    found = files.found
    headers: list[Dataset] = []
    if is_nifti(found.paths[0]):
        shown = f"{files.shown}/{found.paths[0]}"
        scan = read_nifti_scan(files.folder / found.paths[0], source=shown)
    else:
        paths = {f"{files.shown}/{path}": files.folder / path for path in found.paths}
        scan, headers = read_series(paths, source=files.name)
    return ReadScan(scan=scan, headers=headers, seconds=time.perf_counter() - start)


def segment_slices(
    gray_values: npt.NDArray[np.uint8],
    *,
    client: SegmentationClient,
    config: PredictConfig,
    progress: Progress = iter,
) -> tuple[npt.NDArray[np.uint8], int | None]:
    """Segments all slices of a scan, several at the same time.

    Args:
        gray_values: [slices, rows, columns].
        client: of the server.
        config: how.
        progress: goes through the slices.

    Returns:
        [slices, rows, columns] uint8 in {0, 1}, and the version of the model that answered last.

    Raises:
        CallError: one of its kinds, at the first slice without a mask.
    """
    mask = np.empty_like(gray_values)
    version: int | None = None

    def segment(image: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], int | None]:
        inside = mask_of_pixels(image, client=client, flips=config.flip_set)
        if config.postprocess:
            inside = clean_mask(inside, image)
        return inside, client.answered_version

    segmented = in_order(segment, gray_values, window=config.window)
    with closing(segmented):
        for index, answer in zip(progress(range(len(mask))), segmented, strict=True):
            mask[index], version = answer
    return mask, version


def write_volumes(
    read: ReadScan,
    gray_values: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    *,
    out: Path,
    name: str,
    config: VolumeConfig,
    model_version: int | None,
) -> ScanResult:
    """Finds the lungs in a predicted mask, and writes them on the grid of the files.

    Args:
        read: what was segmented.
        gray_values: [slices, rows, columns], for the pictures.
        mask: of the same shape, in {0, 1}.
        out: folder of the results.
        name: of the scan.
        config: how.
        model_version: that made the mask.

    Raises:
        OSError: if a result cannot be written.
    """
    scan = read.scan
    spacing_mm = scan.hounsfield.spacing
    lungs = find_lungs(mask, spacing_mm, clean=config.postprocess)
    restored = scan.hounsfield.with_array(lungs.labels).match_geometry(scan.file_geometry)
    for filename in (SEGMENTATION_FILENAME, *PREVIEW_FILENAMES):
        (out / filename).unlink(missing_ok=True)
    # NIfTI counts columns first, and slices last.
    as_nifti = restored.permute_spatial_axes([2, 1, 0]) if read.headers else restored
    write_nifti(out / NIFTI_FILENAME, as_nifti, affine=scan.file_affine)
    warnings = list(_warnings(scan, lungs))
    if read.headers and lungs.volumes_ml:
        model = f"{config.model_name} {model_version}"
        try:
            segmentation = make_segmentation(
                restored.array, read.headers, spacing_mm=spacing_mm[0], model=model
            )
        except ValueError as error:
            warnings.append(f"{SEGMENTATION_FILENAME} was not written: {error}")
        else:
            with whole_file(out / SEGMENTATION_FILENAME) as aside:
                segmentation.save_as(aside)
    if config.overlays:
        for filename, draw in zip(PREVIEW_FILENAMES, (draw_coronal, draw_sagittal), strict=True):
            write_bytes(out / filename, png_of(draw(gray_values, lungs.labels, spacing_mm)))
    return ScanResult(
        name=name,
        num_slices=len(mask),
        right_ml=_rounded(lungs.volumes_ml.get(RIGHT)),
        left_ml=_rounded(lungs.volumes_ml.get(LEFT)),
        lungs_ml=_rounded(sum(lungs.volumes_ml.values())),
        model_version=model_version,
        warnings=tuple(warnings),
    )


def _warnings(scan: Scan, lungs: Lungs) -> Iterable[str]:
    """Gives what a person should look at."""
    suspicion = doubt(scan.hounsfield.array)
    if suspicion:
        yield suspicion
    total_ml = sum(lungs.volumes_ml.values())
    if not total_ml:
        yield (
            "no lung was found; is it a CT of the chest, and is the window that of the model's "
            "training?"
        )
        return
    if not USUAL_ML[0] <= total_ml <= USUAL_ML[1]:
        yield f"lungs of {total_ml:.0f} mL are unusual; look at the pictures"
    if UNDIVIDED in lungs.volumes_ml:
        yield "right and left lung could not be told apart"
    cut = [
        side
        for side, index in (("lowest", 0), ("highest", -1))
        if np.count_nonzero(lungs.labels[index])
    ]
    if cut:
        yield f"lung reaches the {' and the '.join(cut)} slice: the scan may not hold all of it"


def _earlier(files: ScanFiles, config: PredictConfig, facts: dict[str, Any]) -> ScanResult | None:
    """Gives what an earlier run made of a scan, if it counts."""
    if not config.resume:
        return None
    return read_result(config.out / files.name / RESULT_FILENAME, facts=facts)


def _facts(files: ScanFiles, config: PredictConfig) -> dict[str, Any]:
    """Gives what the results of a scan depend on: settings, and the files as they are now."""
    stamps = []
    for path in files.found.paths:
        status = (files.folder / path).stat()
        stamps.append([path, status.st_size, status.st_mtime_ns])
    stamp = hashlib.sha256(json.dumps(stamps).encode()).hexdigest()
    return {"settings": {n: getattr(config, n) for n in _RESULTS_DEPEND_ON}, "files_stamp": stamp}


def _with_names_apart(scans: Sequence[ScanFiles]) -> list[ScanFiles]:
    """Numbers scans of one name, such as two series in one folder."""
    apart: list[ScanFiles] = []
    taken: set[str] = set()
    for scan in scans:
        name, number = scan.name, 1
        while name.casefold() in taken:
            number += 1
            name = f"{scan.name}_{number}"
        taken.add(name.casefold())
        apart.append(dataclasses.replace(scan, name=name))
    return apart


def _rounded(volume_ml: float | None) -> float | None:
    return None if volume_ml is None else round(volume_ml, 2)
