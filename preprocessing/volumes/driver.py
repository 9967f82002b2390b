"""What the driver does with scans: find them, have them sliced, look at what came of it."""

import dataclasses
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from preprocessing.config import TfrecordsConfig
from preprocessing.errors import PreprocessingError
from preprocessing.finding import shorten
from preprocessing.manifest import RefusedFile
from preprocessing.publish import write_text
from preprocessing.refusals import check_orphans, describe_refused, refused_list
from preprocessing.shards import SHARED_FOLDERS, ShardWriteError
from preprocessing.volumes.finding import ScanPairing, pair_scans
from preprocessing.volumes.pseudonyms import pseudonym, read_or_make_salt
from preprocessing.volumes.sliced import SlicedScans
from preprocessing.volumes.slicing import (
    IMAGES,
    MASKS,
    PATIENT_PATTERN,
    ScanPlan,
    SlicedScan,
    SliceOptions,
    slice_scan,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SlicingPlan:
    """What the workers will do."""

    found: ScanPairing
    """All scans with their masks, and what has none."""

    scans: tuple[ScanPlan, ...]
    """The work on each scan with a mask."""

    options: SliceOptions
    """How they will do it."""

    salt: bytes = field(repr=False)
    """Of pseudonyms; it stays with the driver."""


def plan_slicing(config: TfrecordsConfig, *, out: Path) -> SlicingPlan:
    """Finds scans and masks, and reads or makes the salt of pseudonyms.

    Raises:
        PreprocessingError: if there is no pair, or something has no partner and
            `TfrecordsConfig.allow_orphans` is off.
        OSError: if a folder cannot be read.
    """
    found = pair_scans(config)
    check_orphans(found.orphans, config=config, out=out)
    salt = read_or_make_salt(config.salt_path().resolve())
    window = config.window()
    logger.info(
        "scans: %d, of %d patients; window: level %g, width %g HU; pseudonyms by the salt in %s, "
        "which is secret",
        len(found.pairs),
        len({pair.scan.patient_id for pair in found.pairs}),
        window.level_hu,
        window.width_hu,
        config.salt_path(),
    )
    options = SliceOptions(
        images=str(config.images.resolve()),
        masks=str(config.mask_folder().resolve()),
        window=window,
        structure=config.structure,
        mask_foreground=config.mask_foreground,
    )
    scans = tuple(
        ScanPlan(
            name=pair.scan.name,
            paths=pair.scan.paths,
            mask_path=pair.mask_path,
            is_beside=pair.is_beside,
            patient=pseudonym("patient", pair.scan.patient_id, salt=salt),
            series=pseudonym("series", pair.scan.series_id, salt=salt),
        )
        for pair in found.pairs
    )
    return SlicingPlan(found=found, scans=scans, options=options, salt=salt)


def write_plans(plan: SlicingPlan, *, folder: Path) -> None:
    """Writes down for each scan what a worker has to read.

    Raises:
        OSError: if it cannot be written.
    """
    folder.mkdir(parents=True)
    for index, scan in enumerate(plan.scans):
        write_text(_plan_path(folder, index), json.dumps(dataclasses.asdict(scan)))


def slice_planned(index: int, *, options: SliceOptions, folder: str) -> None:
    """Slices a scan, on a worker, and writes beside its plan what came of it.

    Raises:
        OSError: if the plan cannot be read or the report not be written; an engine then fails.
    """
    plan = json.loads(_plan_path(Path(folder), index).read_text(encoding="utf-8"))
    scan = ScanPlan(**plan | {"paths": tuple(plan["paths"])})
    sliced = slice_scan(scan, options=options, folder=folder)
    write_text(_report_path(Path(folder), index), json.dumps(dataclasses.asdict(sliced)))


def collect(plan: SlicingPlan, *, config: TfrecordsConfig, folder: Path) -> SlicedScans:
    """Reads what the workers did, and decides whether that is enough.

    Raises:
        PreprocessingError: if too many scans are refused.
        ShardWriteError: if a worker could not read or write, or wrote elsewhere.
        OSError: if the list of refused scans cannot be written.
    """
    reports = [_report(folder, index, scan) for index, scan in enumerate(plan.scans)]
    failures = sorted(report.failure for report in reports if report.failure)
    if failures:
        raise ShardWriteError(failures[0])
    structures = sorted({name for report in reports for name in report.structures})
    if structures:
        logger.info("segments and structures that are the mask: %s", ", ".join(structures))
    refused = [*plan.found.refused, *(each.refused for each in reports if each.refused)]
    left_out = [*plan.found.orphans, *refused]
    names = refused_list(config.out.resolve())
    if left_out:
        write_text(names, "".join(f"{describe_refused(each, config)}\n" for each in left_out))
    _check_refused(refused, config=config, num_scans=len(plan.scans))
    images, masks = config.images.resolve(), config.mask_folder().resolve()
    paths = [
        path
        for scan in plan.scans
        for path in (
            *(images / each for each in scan.paths),
            (images if scan.is_beside else masks) / scan.mask_path,
        )
    ]
    return SlicedScans(
        config=dataclasses.replace(
            config,
            images=folder / IMAGES,
            masks=folder / MASKS,
            mask_foreground=None,
            image_pattern=TfrecordsConfig.image_pattern,
            mask_pattern=TfrecordsConfig.mask_pattern,
            patient_pattern=PATIENT_PATTERN,
        ),
        left_out=tuple(_without_names(each, salt=plan.salt, listed_in=names) for each in left_out),
        skipped=_counted(plan.found.skipped),
        num_bytes=sum(path.stat().st_size for path in paths),
    )


def _without_names(entry: RefusedFile, *, salt: bytes, listed_in: Path) -> RefusedFile:
    """Gives an entry for ``dataset.json``, which travels: files may be named as patients."""
    role, _, path = entry.file.partition("/")
    return RefusedFile(
        file=f"{role}/{pseudonym('file', path, salt=salt)}",
        reason=f"was left out; which it is and why stands in {listed_in.name}, beside the dataset",
    )


def _counted(skipped: Sequence[str]) -> tuple[str, ...]:
    return (f"{len(skipped)} files that are no part of a scan",) if skipped else ()


def _check_refused(refused: list[RefusedFile], *, config: TfrecordsConfig, num_scans: int) -> None:
    if len(refused) <= config.max_refused_fraction * num_scans:
        return
    others = shorten([entry.file for entry in refused[1:]])
    raise PreprocessingError(
        f"{len(refused)} of {num_scans} scans are refused, more than --max-refused-fraction "
        f"{config.max_refused_fraction:g} allows; no dataset was written; mend those listed in "
        f"{refused_list(config.out.resolve())}, or allow more. "
        f"First: {describe_refused(refused[0], config)}" + (f". Also: {others}" if others else "")
    )


def _report(folder: Path, index: int, scan: ScanPlan) -> SlicedScan:
    path = _report_path(folder, index)
    if not path.is_file():
        raise ShardWriteError(
            f"the engine lost what a worker did with {scan.name}, or it wrote elsewhere; "
            f"{SHARED_FOLDERS}"
        )
    report = json.loads(path.read_text(encoding="utf-8"))
    refused = report.pop("refused")
    structures = tuple(report.pop("structures"))
    refused = refused and RefusedFile(**refused)
    return SlicedScan(refused=refused, structures=structures, **report)


def _plan_path(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.plan.json"


def _report_path(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.report.json"
