"""What the driver does with scans: find them, have them sliced, look at what came of it."""

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path

from preprocessing.config import TfrecordsConfig
from preprocessing.errors import PreprocessingError
from preprocessing.finding import shorten
from preprocessing.manifest import RefusedFile
from preprocessing.publish import write_text
from preprocessing.refusals import check_orphans, describe_refused, refused_list
from preprocessing.shards import SHARED_FOLDERS, ShardWriteError
from preprocessing.volumes.finding import FoundScan, ScanPair, ScanPairing, pair_scans
from preprocessing.volumes.pseudonyms import read_or_make_salt
from preprocessing.volumes.sliced import SlicedScans
from preprocessing.volumes.slicing import (
    IMAGES,
    MASKS,
    PATIENT_PATTERN,
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

    options: SliceOptions
    """How they will do it."""

    @property
    def pairs(self) -> tuple[ScanPair, ...]:
        """The scans with their masks."""
        return self.found.pairs


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
        salt=salt,
    )
    return SlicingPlan(found=found, options=options)


def write_plans(plan: SlicingPlan, *, folder: Path) -> None:
    """Writes down for each scan what a worker has to read.

    Raises:
        OSError: if it cannot be written.
    """
    folder.mkdir(parents=True)
    for index, pair in enumerate(plan.pairs):
        write_text(_plan_path(folder, index), json.dumps(dataclasses.asdict(pair)))


def slice_planned(index: int, *, options: SliceOptions, folder: str) -> None:
    """Slices a scan, on a worker, and writes beside its plan what came of it.

    Raises:
        OSError: if the plan cannot be read or the report not be written; an engine then fails.
    """
    plan = json.loads(_plan_path(Path(folder), index).read_text(encoding="utf-8"))
    paths = tuple(plan["scan"].pop("paths"))
    pair = ScanPair(**plan | {"scan": FoundScan(paths=paths, **plan["scan"])})
    sliced = slice_scan(pair, options=options, folder=folder)
    write_text(_report_path(Path(folder), index), json.dumps(dataclasses.asdict(sliced)))


def collect(plan: SlicingPlan, *, config: TfrecordsConfig, folder: Path) -> SlicedScans:
    """Reads what the workers did, and decides whether that is enough.

    Raises:
        PreprocessingError: if too many scans are refused.
        ShardWriteError: if a worker could not write, or wrote elsewhere.
        OSError: if the list of refused scans cannot be written.
    """
    reports = [_report(folder, index, pair) for index, pair in enumerate(plan.pairs)]
    failures = sorted(report.failure for report in reports if report.failure)
    if failures:
        raise ShardWriteError(failures[0])
    refused = [*plan.found.refused, *(each.refused for each in reports if each.refused)]
    _check_refused(refused, config=config, num_scans=len(plan.pairs))
    images, masks = config.images.resolve(), config.mask_folder().resolve()
    paths = [
        path
        for pair in plan.pairs
        for path in (
            *(images / each for each in pair.scan.paths),
            (images if pair.is_beside else masks) / pair.mask_path,
        )
    ]
    return SlicedScans(
        config=dataclasses.replace(
            config,
            images=folder / IMAGES,
            masks=folder / MASKS,
            mask_foreground=None,
            patient_pattern=PATIENT_PATTERN,
        ),
        left_out=(*plan.found.orphans, *refused),
        skipped=plan.found.skipped,
        num_bytes=sum(path.stat().st_size for path in paths),
    )


def _check_refused(refused: list[RefusedFile], *, config: TfrecordsConfig, num_scans: int) -> None:
    if len(refused) <= config.max_refused_fraction * num_scans:
        return
    path = refused_list(config.out.resolve())
    lines = [describe_refused(entry, config) for entry in refused]
    write_text(path, "".join(f"{line}\n" for line in lines))
    others = shorten([entry.file for entry in refused[1:]])
    raise PreprocessingError(
        f"{len(refused)} of {num_scans} scans are refused, more than --max-refused-fraction "
        f"{config.max_refused_fraction:g} allows; no dataset was written; mend those listed in "
        f"{path}, or allow more. First: {lines[0]}" + (f". Also: {others}" if others else "")
    )


def _report(folder: Path, index: int, pair: ScanPair) -> SlicedScan:
    path = _report_path(folder, index)
    if not path.is_file():
        raise ShardWriteError(
            f"the engine lost what a worker did with {pair.scan.name}, or it wrote elsewhere; "
            f"{SHARED_FOLDERS}"
        )
    report = json.loads(path.read_text(encoding="utf-8"))
    refused = report.pop("refused")
    return SlicedScan(refused=refused and RefusedFile(**refused), **report)


def _plan_path(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.plan.json"


def _report_path(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.report.json"
