"""The bulk job: plan, segment on Beam's workers, list what came of it. ``run`` is the order."""

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.ml.inference.base import RunInference

from preprocessing.engines import beam_options, run_to_end
from serving.bulk import storage
from serving.bulk.chunks import (
    SCANS_FOLDER,
    SHARD_FACT,
    Refused,
    read_chunk,
    read_shard,
    write_chunk,
)
from serving.bulk.inference import make_handler
from serving.bulk.planning import SCANS, ShardPlan, plan_shards
from serving.bulk.storage import StoredFile
from serving.client import SegmentationClient
from serving.config import BulkConfig
from serving.endpoint import Endpoint
from serving.errors import InputError, JobFailedError
from serving.volumes.scan_results import RESULT_FILENAME

logger = logging.getLogger(__name__)

MANIFEST = "bulk.json"
FORMAT = "lung-ct-segmentation-bulk"
SCHEMA_VERSION = 1
PLANS_FOLDER = ".plans"

_RESULTS_DEPEND_ON = (
    "flip_set",
    "postprocess",
    "overlays",
    "window_level_hu",
    "window_width_hu",
)


@dataclass(frozen=True, kw_only=True)
class BulkSummary:
    """What a job did."""

    num_results: int
    """Slices or scans with results, now or earlier."""

    refused: Sequence[Refused]
    """Slices and scans without."""

    num_shards: int
    """All shards."""

    num_finished_before: int
    """Shards of an earlier run."""

    seconds: float
    """Wall time."""


def run(config: BulkConfig) -> BulkSummary:
    """Segments a folder or bucket, and writes shards of results and then their manifest.

    Raises:
        InputError: if there is nothing to segment, or no model.
        CallError: one of its kinds, if the server does not answer at the start.
        JobFailedError: if a shard has no results; those of all others are there.
        PreprocessingError: if the engine's options cannot work.
        EngineError: if the engine fails.
        OSError: if plans or manifest cannot be written.
    """
    started = time.monotonic()
    options = beam_options(config)
    config = dataclasses.replace(
        config,
        # Workers may run in other folders than this command.
        inputs=storage.absolute(config.inputs),
        out=storage.absolute(config.out),
        model=find_version(config.model),
    )
    if config.inputs == config.out:
        raise InputError(f"{config.out} is the input too; expected another folder for the results")
    settings = _settings(config)
    files = _without_results(storage.list_files(config.inputs), config)
    plans, left_out = plan_shards(
        files,
        read=config.read,
        slices_per_shard=config.slices_per_shard,
        settings=settings,
        is_dicom=lambda file: storage.begins_like_dicom(storage.join(config.inputs, file.path)),
    )
    finished = _finished(config, plans) if config.resume else set()
    to_do = [plan for plan in plans if plan.name not in finished]
    logger.info(
        "%d files in %d shards, %d of them finished earlier; %s",
        len(files) - len(left_out),
        len(plans),
        len(finished),
        f"model {config.model}" if config.model else f"server {config.target}",
    )
    if to_do:
        storage.remove([storage.join(config.out, plan.filename) for plan in to_do])
        _segment(config, to_do, beam.Pipeline(options=options))
    shards, refused, no_scans = _collect(config, plans)
    if not refused and not any(shard["num_results"] for shard in shards):
        raise InputError(
            f"{config.inputs} holds no slice and no CT; the {len(no_scans)} files that were looked "
            f"into are something else, such as {', '.join(no_scans[:1])}"
        )
    manifest = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "options": settings,
        "num_results": sum(shard["num_results"] for shard in shards),
        "shards": shards,
        "refused": [dataclasses.asdict(entry) for entry in refused],
        "left_out": sorted([*left_out, *no_scans]),
    }
    text = json.dumps(manifest, indent=2) + "\n"
    storage.publish(storage.join(config.out, MANIFEST), text.encode())
    return BulkSummary(
        num_results=manifest["num_results"],
        refused=refused,
        num_shards=len(plans),
        num_finished_before=len(plans) - len(to_do),
        seconds=time.monotonic() - started,
    )


def _without_results(files: list[StoredFile], config: BulkConfig) -> list[StoredFile]:
    """Leaves out what an earlier run into a folder below the input has written."""
    below = f"{config.out}/".removeprefix(f"{config.inputs}/")
    return [file for file in files if not file.path.startswith(below)]


def find_version(model: str | None) -> str | None:
    """Gives the folder of a SavedModel: itself, or the highest version below it.

    Raises:
        InputError: if there is none.
    """
    if model is None:
        return None
    folder = Path(model)
    if (folder / "saved_model.pb").is_file():
        return str(folder.resolve())
    versions = [
        path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.name.isdecimal() and (path / "saved_model.pb").is_file()
    ]
    if not versions:
        raise InputError(
            f"--model {model} holds no SavedModel and no version of one; expected a folder that "
            "`make export` wrote"
        )
    return str(max(versions, key=lambda path: int(path.name)).resolve())


def _segment(config: BulkConfig, plans: Sequence[ShardPlan], pipeline: beam.Pipeline) -> None:
    folder = storage.join(config.out, PLANS_FOLDER)
    for plan in plans:
        storage.publish(storage.join(folder, f"{plan.name}.json"), plan.to_json())
    _ = (
        pipeline
        | "Plans" >> beam.Create([plan.name for plan in plans])
        | "Share out" >> beam.Reshuffle()
        | "Read" >> beam.Map(read_chunk, config=config, plans=folder)
        # A chunk is a batch of its own: Dask's engine loses what Beam's batching holds back.
        | "Batch" >> beam.Map(lambda chunk: [chunk])
        | "Segment" >> RunInference(make_handler(config).with_no_batching())
        | "Write" >> beam.Map(write_chunk, config=config, plans=folder)
    )
    is_local = storage.is_local(config.out)
    report = Path(f"{config.out}.engine.txt" if is_local else "bulk.engine.txt")
    run_to_end(
        pipeline,
        runner=config.runner,
        report=report,
        outcome="shards that are finished stay",
    )


def _finished(config: BulkConfig, plans: Sequence[ShardPlan]) -> set[str]:
    """Gives the names of the shards that are there, with all files of their scans."""
    if storage.is_local(config.out) and not Path(config.out).is_dir():
        return set()
    there = {file.path for file in storage.list_files(config.out)}
    finished = {plan.name for plan in plans if plan.filename in there}
    for plan in plans:
        if plan.kind == SCANS and plan.name in finished:
            _, *lines = read_shard(storage.read(storage.join(config.out, plan.filename)))
            if not all(_is_of(plan, line["name"], config) for line in lines):
                finished.remove(plan.name)
    return finished


def _is_of(plan: ShardPlan, name: str, config: BulkConfig) -> bool:
    """Tells whether the files of a scan are those of a shard, and not of another one since."""
    address = storage.join(config.out, f"{SCANS_FOLDER}/{name}/{RESULT_FILENAME}")
    try:
        return bool(json.loads(storage.read(address))[SHARD_FACT] == plan.name)
    except (OSError, ValueError, KeyError):
        return False


def _collect(
    config: BulkConfig, plans: Sequence[ShardPlan]
) -> tuple[list[dict[str, Any]], list[Refused], list[str]]:
    """Reads what all shards hold, and clears the plans away.

    Raises:
        JobFailedError: if one is missing.
    """
    folder = storage.join(config.out, PLANS_FOLDER)
    shards: list[dict[str, Any]] = []
    refused: list[Refused] = []
    left_out: list[str] = []
    failures: list[str] = []
    there = {file.path for file in storage.list_files(config.out)}
    for plan in plans:
        if plan.filename not in there:
            failures.append(_failure(folder, plan))
            continue
        content = storage.read(storage.join(config.out, plan.filename))
        header, *_ = read_shard(content)
        refused += [Refused(**entry) for entry in header["refused"]]
        left_out += header["left_out"]
        shards.append(
            {
                "filename": plan.filename,
                "num_results": header["num_results"],
                "num_bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )
    storage.remove(
        [
            storage.join(folder, f"{plan.name}{suffix}")
            for plan in plans
            for suffix in (".json", ".failed")
        ]
    )
    if storage.is_local(folder) and Path(folder).is_dir() and not any(Path(folder).iterdir()):
        Path(folder).rmdir()
    if failures:
        raise JobFailedError(
            f"{len(failures)} of {len(plans)} shards have no results: {failures[0]}; the others "
            "are finished, and the same command goes on from there"
        )
    return shards, refused, left_out


def _failure(folder: str, plan: ShardPlan) -> str:
    try:
        return storage.read(storage.join(folder, f"{plan.name}.failed")).decode()
    except OSError:
        return (
            f"no worker told what became of {plan.filename}; expected --out on storage that all "
            "workers reach under the same name"
        )


def _settings(config: BulkConfig) -> dict[str, Any]:
    """Gives what results depend on."""
    settings = {name: getattr(config, name) for name in _RESULTS_DEPEND_ON}
    if config.model:
        return {**settings, "model_sha256": _model_sha256(Path(config.model))}
    # A server may have a newer version than at the last run: which one, it tells with an answer.
    with SegmentationClient(Endpoint.of(config)) as client:
        client.predict(np.zeros((32, 32), np.uint8))
        version = client.answered_version
    return {**settings, "model_name": config.model_name, "model_version": version}


def _model_sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted([folder / "saved_model.pb", *folder.glob("variables/*")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()
