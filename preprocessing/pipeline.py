"""The Beam job: plan, write the shards, write the manifest; then the dataset gets its name."""

import dataclasses
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from preprocessing import manifest
from preprocessing.assembly import read_outcome, read_warnings, write_manifest
from preprocessing.config import BY_PATIENT, TfrecordsConfig
from preprocessing.errors import PreprocessingError
from preprocessing.manifest import DatasetManifest, RefusedFile
from preprocessing.pairing import (
    Pair,
    assign_splits,
    find_files,
    find_patients,
    pair_files,
    shorten,
)
from preprocessing.progress import show_progress
from preprocessing.refusals import check_refused, check_splits, refused_list
from preprocessing.shards import ShardPlan, plan_shards, try_write_shard
from preprocessing.spec import SPLITS
from preprocessing.staging import replace_output, staging_folder

IN_PROCESS_RUNNERS = ("fnapirunner", "directrunner")
"""Names, in lower case, for which this process does the work.

Beam's own ``DirectRunner`` may download a Go program before it starts; ours does not.
"""

_DATASET_KEY = "dataset"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the driver found and decided before anything was read."""

    pairs: tuple[Pair, ...]
    """All pairs."""

    plans: tuple[ShardPlan, ...]
    """What the workers will do."""

    refused: tuple[RefusedFile, ...]
    """Slices without a mask and masks without a slice."""

    split_by: str
    """``patient`` or ``slice``."""

    num_slices: int
    """Number of names, with or without a partner: what the share of refused ones is taken of."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What a job did."""

    dataset: DatasetManifest
    """What it wrote."""

    num_refused_slices: int
    """Slices and masks that are not in the dataset; a pair counts once."""

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
        ShardWriteError: if there is no room, or no right to write.
        OSError: if a folder cannot be read or made.
    """
    started = time.monotonic()
    options = beam_options(config)
    out = config.out.resolve()
    with staging_folder(out, overwrite=config.overwrite) as staging:
        inputs = find_inputs(config)
        _log_start(config, inputs)
        check_refused(
            inputs.refused,
            len(inputs.refused),
            config=config,
            out=out,
            num_slices=inputs.num_slices,
        )
        with show_progress(staging, num_slices=len(inputs.pairs), is_terminal=is_terminal):
            _run_pipeline(config, inputs, folder=staging, options=options)
        dataset = read_outcome(staging)
        num_examples = sum(split.num_examples for split in dataset.splits.values())
        num_refused = inputs.num_slices - num_examples
        check_refused(
            dataset.refused, num_refused, config=config, out=out, num_slices=inputs.num_slices
        )
        check_splits(dataset)
        for line in read_warnings(staging):
            logger.warning("%s", line)
        shards = [shard for split in dataset.splits.values() for shard in split.shards]
        names = [manifest.FILENAME, *(shard.filename for shard in shards)]
        replace_output(staging, out, filenames=names)
    refused_list(out).unlink(missing_ok=True)
    return RunSummary(
        dataset=dataset,
        num_refused_slices=num_refused,
        input_bytes=sum(pair.num_bytes for pair in inputs.pairs),
        record_bytes=sum(shard.num_bytes for shard in shards),
        seconds=time.monotonic() - started,
    )


def find_inputs(config: TfrecordsConfig) -> Inputs:
    """Lists, pairs, splits and plans; reads names and sizes only.

    Raises:
        PreprocessingError: if the folders cannot make a dataset.
        OSError: if a folder cannot be read.
    """
    if config.images.resolve() == config.masks.resolve():
        raise PreprocessingError(
            f"--images and --masks are the same folder, {config.images}; expected slices in one "
            "and masks in the other, under equal names"
        )
    images = find_files(config.images, flag="--images", leave_out=config.masks)
    masks = find_files(config.masks, flag="--masks", leave_out=config.images)
    for folder, found in ((config.images, images), (config.masks, masks)):
        if found.skipped:
            logger.warning(
                "skipped in %s, not BMP or PNG by name: %s", folder, shorten(found.skipped)
            )
    pairs, refused = pair_files(images, masks)
    slice_ids = [pair.slice_id for pair in pairs]
    patients = find_patients(slice_ids, config=config)
    splits, split_by = assign_splits(slice_ids, patients, config=config)
    plans = plan_shards(
        pairs, splits=splits, patients=patients, seed=config.seed, num_shards=config.num_shards
    )
    return Inputs(
        pairs=pairs,
        plans=tuple(plans),
        refused=refused,
        split_by=split_by,
        num_slices=len(pairs) + len(refused),
    )


def beam_options(config: TfrecordsConfig) -> PipelineOptions:
    """Gives Beam's options.

    Raises:
        PreprocessingError: if this process does the work and Beam would ignore one of them.
    """
    flags = list(config.beam_options)
    if config.runner.lower() not in IN_PROCESS_RUNNERS:
        # Not checked: what the options of another engine mean may be known to its server only.
        return PipelineOptions([f"--runner={config.runner}", *flags])
    num_workers = len(os.sched_getaffinity(0))
    options = PipelineOptions(
        [
            "--runner=FnApiRunner",
            # zlib and hashing release the interpreter lock, so threads are enough.
            "--direct_running_mode=multi_threading",
            f"--direct_num_workers={num_workers}",
            *flags,
        ]
    )
    known = options.get_all_options()
    names = [flag.removeprefix("--").split("=")[0] for flag in flags if flag.startswith("-")]
    unknown = [name for name in names if name not in known and f"no_{name}" not in known]
    if unknown:
        raise PreprocessingError(
            f"Beam has no option --{unknown[0]}; expected options such as --direct_num_workers=4 "
            "after the `--`; correct it or leave it out"
        )
    return options


def build(
    pipeline: beam.Pipeline, config: TfrecordsConfig, inputs: Inputs, *, folder: Path
) -> beam.PCollection:
    """Puts the steps together; one chain with one end, which every engine can run."""
    return (
        pipeline
        | "Plan of shards" >> beam.Create(inputs.plans)
        | "Share out" >> beam.Reshuffle()
        | "Write shard"
        >> beam.Map(
            try_write_shard,
            images=str(config.images.resolve()),
            masks=str(config.masks.resolve()),
            folder=str(folder),
        )
        | "Key by dataset" >> beam.WithKeys(_DATASET_KEY)
        | "Collect reports" >> beam.GroupByKey()
        | "Write manifest"
        >> beam.Map(
            write_manifest,
            folder=str(folder),
            refused=inputs.refused,
            options=config.dataset_options(),
            split_by=inputs.split_by,
        )
    )


def _run_pipeline(
    config: TfrecordsConfig, inputs: Inputs, *, folder: Path, options: PipelineOptions
) -> None:
    with beam.Pipeline(options=options) as pipeline:
        build(pipeline, config, inputs, folder=folder)


def _log_start(config: TfrecordsConfig, inputs: Inputs) -> None:
    options = dataclasses.asdict(config)
    logger.info("options: %s", ", ".join(f"{name} {value}" for name, value in options.items()))
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
            len(patients) or "unknown",
            len(plans),
        )


def _warn_of_slice_split(config: TfrecordsConfig) -> None:
    if config.split_by == BY_PATIENT:
        logger.warning(
            "NO PATIENT ID IN THE NAMES: no slice is named like <patient>_z<slice>, so slices are "
            "split one by one. Slices of one patient can be in training and in validation, and "
            "validation will look better than the model is. Give --patient-pattern if the names "
            "do tell the patient."
        )
    else:
        logger.warning(
            "split by slice, as asked: slices of one patient can be in training and in validation, "
            "and validation will look better than the model is"
        )
