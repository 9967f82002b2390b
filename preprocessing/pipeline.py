"""The Beam jobs: scans to slices, if there are scans; slices to shards; then the dataset's name."""

import dataclasses
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from preprocessing import manifest
from preprocessing.assembly import check_outcome, read_outcome, read_warnings, write_manifest
from preprocessing.config import BY_PATIENT, TfrecordsConfig
from preprocessing.engines import beam_options, run_to_end
from preprocessing.finding import shorten
from preprocessing.manifest import DatasetManifest, RefusedFile
from preprocessing.pairing import Pair, find_pairs
from preprocessing.planning import ShardPlan, plan_shards, write_plan
from preprocessing.progress import show_progress
from preprocessing.refusals import check_orphans, check_refused, check_splits, refused_list
from preprocessing.shards import (
    RecordOptions,
    ShardWriteError,
    describe_write_error,
    estimate_record_bytes,
    try_write_shard,
)
from preprocessing.spec import SPLITS
from preprocessing.split_file import read_split_file
from preprocessing.splitting import assign_splits, find_patients
from preprocessing.staging import replace_output, slices_folder, staging_folder
from preprocessing.volumes.detection import holds_volumes
from preprocessing.volumes.sliced import SlicedScans

_DATASET_KEY = "dataset"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the driver found and decided before a worker began."""

    pairs: tuple[Pair, ...]
    """All pairs."""

    plans: tuple[ShardPlan, ...]
    """What the workers will do."""

    orphans: tuple[RefusedFile, ...]
    """Slices without a mask and masks without a slice; of scans, those that are refused too."""

    skipped: tuple[str, ...]
    """What is no image and no partner of one."""

    record_options: RecordOptions
    """How they will do it."""

    split_by: str
    """``patient`` or ``slice``."""

    patient_source: str
    """What told the patients."""

    split_file_sha256: str | None
    """Hash of the file that decided on the split, if one did."""

    volume_options: dict[str, Any]
    """How scans became slices; empty if there were slices to begin with."""

    def dataset_options(self, config: TfrecordsConfig) -> dict[str, Any]:
        """Gives all that decides what the dataset holds."""
        options = {**config.dataset_options(), "split_file_sha256": self.split_file_sha256}
        return options | self.volume_options


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What a job did."""

    dataset: DatasetManifest
    """What it wrote."""

    num_refused_pairs: int
    """Pairs that are not in the dataset."""

    num_orphans: int
    """Files that were left out for want of a partner."""

    input_bytes: int
    """Size of all paired files."""

    record_bytes: int
    """Size of all shards."""

    seconds: float
    """From the first look at the folders to the published dataset."""


def run(config: TfrecordsConfig, *, is_terminal: bool = False) -> RunSummary:
    """Converts a folder of slices and a folder of masks into a dataset.

    Args:
        config: from where, to where, and how.
        is_terminal: whether to draw a progress bar on standard error.

    Raises:
        PreprocessingError: if the input, the options or the output folder cannot work, or if too
            many slices are refused; nothing is published then.
        ShardWriteError: if there is no room, or no right to write, or if workers do not share the
            file system.
        EngineError: if the engine fails.
        OSError: if a folder cannot be read or made.
    """
    started = time.monotonic()
    options = beam_options(config)
    out = config.out.resolve()
    with staging_folder(out, overwrite=config.overwrite) as staging, slices_folder(out) as slices:
        sliced = slice_scans(config, folder=slices, options=options)
        inputs = find_inputs(sliced.config if sliced else config, sliced=sliced)
        _log_start(config, inputs)
        if not sliced:
            check_orphans(inputs.orphans, config=config, out=out)
        num_pairs = len(inputs.pairs)
        _write_plans(inputs.plans, folder=staging)
        with show_progress(staging, num_slices=num_pairs, is_terminal=is_terminal):
            _run_pipeline(config, inputs, folder=staging, options=options)
        dataset = read_outcome(staging)
        check_outcome(dataset, inputs.plans, folder=staging)
        num_examples = sum(split.num_examples for split in dataset.splits.values())
        num_refused = num_pairs - num_examples
        check_refused(dataset.refused, num_refused, config=config, out=out, num_slices=num_pairs)
        check_splits(dataset, config=config)
        for line in read_warnings(staging):
            logger.warning("%s", line)
        shards = [shard for split in dataset.splits.values() for shard in split.shards]
        names = [manifest.FILENAME, *(shard.filename for shard in shards)]
        replace_output(staging, out, filenames=names)
    if not (sliced and sliced.left_out):  # the names of scans stand nowhere else
        refused_list(out).unlink(missing_ok=True)
    return RunSummary(
        dataset=dataset,
        num_refused_pairs=num_refused,
        num_orphans=len(inputs.orphans),
        input_bytes=sliced.num_bytes if sliced else sum(pair.num_bytes for pair in inputs.pairs),
        record_bytes=sum(shard.num_bytes for shard in shards),
        seconds=time.monotonic() - started,
    )


def engine_report(out: Path) -> Path:
    """Gives the file that holds what an engine said when it failed."""
    return out.with_name(f"{out.name}.engine.txt")


def slice_scans(
    config: TfrecordsConfig, *, folder: Path, options: PipelineOptions
) -> SlicedScans | None:
    """Writes the slices of all scans below a folder; gives None if there are slices to begin with.

    Args:
        config: from where, and how.
        folder: empty; what is written there is thrown away after the job.
        options: of Beam.

    Raises:
        PreprocessingError: if scans and masks cannot make a dataset, or too many are refused.
        ShardWriteError: if there is no room, or no right to write.
        EngineError: if the engine fails.
        OSError: if a folder cannot be read.
    """
    leave_out = [config.out, *([config.masks] if config.masks else [])]
    if not holds_volumes([config.images], read=config.read, leave_out=leave_out):
        return None
    # Here, because reading DICOM and NIfTI takes libraries that slices do without.
    from preprocessing.volumes import driver

    plan = driver.plan_slicing(config, out=config.out.resolve())
    pipeline = beam.Pipeline(options=options)
    driver.write_plans(plan, folder=folder)
    _ = (
        pipeline
        | "Scans" >> beam.Create(range(len(plan.scans)))
        | "Share out scans" >> beam.Reshuffle()
        | "Write slices" >> beam.Map(driver.slice_planned, options=plan.options, folder=str(folder))
    )
    run_to_end(pipeline, runner=config.runner, report=engine_report(config.out.resolve()))
    return driver.collect(plan, config=config, folder=folder)


def find_inputs(config: TfrecordsConfig, *, sliced: SlicedScans | None = None) -> Inputs:
    """Lists, pairs, splits and plans; of slices, it reads the few that tell the size of a record.

    Args:
        config: where slices are, and how they are paired and split.
        sliced: the scans that they are of, if they are of scans.

    Raises:
        PreprocessingError: if the folders cannot make a dataset.
        OSError: if a folder cannot be read.
    """
    found = find_pairs(config)
    if found.skipped:
        logger.warning(
            "skipped %d files that are no images, listed in dataset.json: %s",
            len(found.skipped),
            shorten(found.skipped),
        )
    slice_ids = [pair.slice_id for pair in found.pairs]
    patients = find_patients(slice_ids, config=config)
    pinned = None
    if config.split_file is not None:
        pinned = read_split_file(config.split_file, split_by=config.split_by)
    splits, split_by = assign_splits(
        slice_ids, patients.by_slice_id, config=config, pinned=pinned.splits if pinned else None
    )
    record_options = RecordOptions(
        images=str(config.images.resolve()),
        masks=str(config.mask_folder().resolve()),
        mask_foreground=config.mask_foreground,
        encoding=config.encoding,
        image_size=config.image_size,
    )
    plans = plan_shards(
        found.pairs,
        splits=splits,
        patients=patients.by_slice_id,
        seed=config.seed,
        num_shards=config.num_shards,
        record_bytes=partial(
            estimate_record_bytes, found.pairs, options=record_options, seed=config.seed
        ),
    )
    return Inputs(
        pairs=found.pairs,
        plans=tuple(plans),
        orphans=(*found.orphans, *(sliced.left_out if sliced else ())),
        skipped=sliced.skipped if sliced else found.skipped,
        record_options=record_options,
        split_by=split_by,
        patient_source=patients.source,
        split_file_sha256=pinned.sha256 if pinned else None,
        volume_options=config.volume_options() if sliced else {},
    )


def _write_plans(plans: Sequence[ShardPlan], *, folder: Path) -> None:
    for plan in plans:
        try:
            write_plan(plan, folder=folder)
        except OSError as error:
            reason = describe_write_error(f"the plan of {plan.filename}", str(folder), error)
            raise ShardWriteError(reason) from error


def build(
    pipeline: beam.Pipeline, config: TfrecordsConfig, inputs: Inputs, *, folder: Path
) -> beam.PCollection:
    """Puts the steps together; one chain with one end, which every engine can run."""
    return (
        pipeline
        | "Plans of shards" >> beam.Create([plan.filename for plan in inputs.plans])
        | "Share out" >> beam.Reshuffle()
        | "Write shard"
        >> beam.Map(
            try_write_shard,
            options=inputs.record_options,
            folder=str(folder),
        )
        | "Key by dataset" >> beam.WithKeys(_DATASET_KEY)
        | "Collect reports" >> beam.GroupByKey()
        | "Write manifest"
        >> beam.Map(
            write_manifest,
            folder=str(folder),
            refused=inputs.orphans,
            skipped=inputs.skipped,
            options=inputs.dataset_options(config),
            split_by=inputs.split_by,
        )
    )


def _run_pipeline(
    config: TfrecordsConfig, inputs: Inputs, *, folder: Path, options: PipelineOptions
) -> None:
    pipeline = beam.Pipeline(options=options)
    build(pipeline, config, inputs, folder=folder)
    run_to_end(pipeline, runner=config.runner, report=engine_report(config.out.resolve()))


def _log_start(config: TfrecordsConfig, inputs: Inputs) -> None:
    changed = [
        f"{field.name} {value}"
        for field in dataclasses.fields(config)
        if (value := getattr(config, field.name)) != field.default
    ]
    logger.info("options: %s; all others as by default", ", ".join(changed))
    if inputs.split_by != BY_PATIENT:
        _warn_of_slice_split(config)
    for split in SPLITS:
        plans = [plan for plan in inputs.plans if plan.split == split]
        num_slices = sum(len(plan.pairs) for plan in plans)
        patients = {patient for plan in plans for patient in plan.patients.values()}
        logger.info(
            "planned for %s: %d slices (%.1f %%%s), patients: %s, shards: %d",
            split,
            num_slices,
            100 * num_slices / len(inputs.pairs),
            ", whole patients" if inputs.split_by == BY_PATIENT else "",
            f"{len(patients)} by {inputs.patient_source}" if patients else "unknown",
            len(plans),
        )


def _warn_of_slice_split(config: TfrecordsConfig) -> None:
    if config.split_by == BY_PATIENT:
        logger.warning(
            "NO PATIENT ID IN THE NAMES: no slice is named like <patient>_z<slice> or lies in a "
            "folder of its patient, so slices are split one by one. Slices of one patient can be "
            "in training and in validation, and validation will look better than the model is. "
            "Give --patient-pattern if the names do tell the patient."
        )
    else:
        logger.warning(
            "split by slice, as asked: slices of one patient can be in training and in validation, "
            "and validation will look better than the model is"
        )
