"""A shard's work, on a worker: files to pixels, and masks to a file of results."""

import dataclasses
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocessing.images.reading import UnreadableImageError, decode_slice
from preprocessing.volumes.finding import LONE_SERIES, find_scans
from preprocessing.volumes.nifti import is_nifti
from preprocessing.volumes.scans import UnreadableScanError
from serving.bulk import storage
from serving.bulk.planning import SLICES, ShardPlan
from serving.config import BulkConfig
from serving.mask_files import rle_of_mask
from serving.volumes import job
from serving.volumes.scan_results import RESULT_FILENAME, write_result
from trainer.postprocessing import clean_mask

SCANS_FOLDER = "scans"
_ROOT = "_root"
"""Name of the series that lie in the input itself."""
SHARD_FACT = "shard"
"""Key in ``result.json`` of a scan: the shard that its files belong to."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A slice or a scan, read."""

    name: str
    """Path below the input; of a scan, that of its folder of results."""

    gray_values: npt.NDArray[np.uint8]
    """[slices, height, width]; one slice of a picture."""

    read: job.ReadScan | None = None
    """The scan, if it is one."""


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A slice or a scan without a mask."""

    file: str
    """Path below the input."""

    reason: str
    """What was found, what was expected, and the mend."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """What a worker has read of a shard."""

    plan: ShardPlan
    """The shard."""

    items: Sequence[Item] = ()
    """What can be segmented."""

    refused: Sequence[Refused] = ()
    """What cannot."""

    left_out: Sequence[str] = ()
    """Files that are no part of a scan."""

    failure: str = ""
    """Why nothing of it could be read, such as a store that does not answer."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model said to an item."""

    mask: npt.NDArray[np.uint8] | None = None
    """[slices, height, width] in {0, 1}; None if the model refused the item."""

    model_version: int | None = None
    """Version that answered."""

    reason: str = ""
    """Why it was refused."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the model said to a chunk."""

    chunk: Chunk
    """The chunk."""

    answers: Sequence[Answer] = ()
    """One for each item."""

    failure: str = ""
    """Why there is none, such as a server that is gone."""


def read_chunk(plan_name: str, *, config: BulkConfig, plans: str) -> Chunk:
    """Reads all files of a shard.

    Args:
        plan_name: of the plan.
        config: where files are, and how they are read.
        plans: folder of the plans.
    """
    plan = ShardPlan.from_json(storage.read(storage.join(plans, f"{plan_name}.json")))
    try:
        if plan.kind == SLICES:
            return _read_slices(plan, config)
        return _read_scans(plan, config)
    except OSError as error:
        failure = f"{config.inputs}: {error}; run again when it can be read"
        return Chunk(plan=plan, failure=failure)


def write_chunk(answers: Answers, *, config: BulkConfig, plans: str) -> str:
    """Writes the results of a shard, or beside its plan why there are none; gives its name."""
    chunk = answers.chunk
    failure = chunk.failure or answers.failure
    try:
        if not failure:
            lines, refused = _results(answers, config)
            header = {
                "num_results": len(lines),
                "refused": [dataclasses.asdict(entry) for entry in refused],
                "left_out": list(chunk.left_out),
            }
            text = "".join(f"{json.dumps(line)}\n" for line in (header, *lines))
            address = storage.join(config.out, chunk.plan.filename)
            storage.publish(address, gzip.compress(text.encode(), 6, mtime=0))
    except OSError as error:
        failure = f"cannot write to {config.out}: {error}; make room, then run again"
    if failure:
        storage.publish(storage.join(plans, f"{chunk.plan.name}.failed"), failure.encode())
    return chunk.plan.name


def read_shard(content: bytes) -> list[dict[str, Any]]:
    """Reads a shard: a header with ``num_results``, ``refused`` and ``left_out``, and its lines."""
    return [json.loads(line) for line in gzip.decompress(content).splitlines()]


def _read_slices(plan: ShardPlan, config: BulkConfig) -> Chunk:
    items, refused = [], []
    for path in plan.paths:
        address = storage.join(config.inputs, path)
        try:
            image = decode_slice(storage.read(address), source=path)
        except UnreadableImageError as error:
            refused.append(Refused(file=path, reason=error.reason))
            continue
        except (FileNotFoundError, PermissionError) as error:
            reason = f"cannot be read ({error.strerror}); check that it is there, and its rights"
            refused.append(Refused(file=path, reason=reason))
            continue
        items.append(Item(name=path, gray_values=image[np.newaxis]))
    return Chunk(plan=plan, items=items, refused=refused)


def _read_scans(plan: ShardPlan, config: BulkConfig) -> Chunk:
    items: list[Item] = []
    refused: list[Refused] = []
    left_out: list[str] = []
    with storage.local_copies(config.inputs, plan.paths) as copies:
        folder = PurePosixPath(plan.paths[0]).parent
        if is_nifti(plan.paths[0]):
            # With its ending: a series may lie in a folder of the same name.
            scans = [job.nifti_scan(copies[plan.paths[0]], name=plan.paths[0], shown=str(folder))]
        else:
            here = copies[plan.paths[0]].parent
            listed = find_scans(here, role="images", paths=list(copies.values()))
            refused += [
                Refused(file=str(folder / each.file.partition("/")[2]), reason=each.reason)
                for each in listed.refused
            ]
            left_out = [str(folder / path.partition("/")[2]) for path in listed.skipped]
            left_out += [str(folder / path) for paths in listed.masks.values() for path in paths]
            scans = [
                job.ScanFiles(
                    found=each, folder=here, name=_name(folder, each.name), shown=str(folder)
                )
                for each in listed.scans
            ]
        for files in scans:
            try:
                read = job.read_scan(files)
            except UnreadableScanError as error:
                refused.append(Refused(file=files.name, reason=error.reason))
                continue
            gray_values = config.hu_window.gray_values(read.scan.hounsfield.array)
            items.append(Item(name=files.name, gray_values=gray_values, read=read))
    return Chunk(plan=plan, items=items, refused=refused, left_out=left_out)


def _name(folder: PurePosixPath, name: str) -> str:
    """Gives the folder of results of a series: that of its files, or one below for several."""
    place = _ROOT if str(folder) == "." else str(folder)
    return place if name == LONE_SERIES else f"{place}/{name}"


def _results(answers: Answers, config: BulkConfig) -> tuple[list[dict[str, Any]], list[Refused]]:
    """Gives a line for each result, and what is refused; writes the files of scans."""
    lines: list[dict[str, Any]] = []
    refused = list(answers.chunk.refused)
    for item, answer in zip(answers.chunk.items, answers.answers, strict=True):
        if answer.mask is None:
            refused.append(Refused(file=item.name, reason=answer.reason))
            continue
        mask = answer.mask
        if config.postprocess:
            mask = np.stack(
                [clean_mask(*pair) for pair in zip(mask, item.gray_values, strict=True)]
            )
        version = answer.model_version
        if item.read is None:
            run_lengths = json.loads(rle_of_mask(mask[0]))
            lines.append({"file": item.name, **run_lengths, "model_version": version})
        else:
            plan = answers.chunk.plan
            lines.append(_write_scan(item, item.read, mask, version, plan, config))
    return lines, refused


def _write_scan(
    item: Item,
    read: job.ReadScan,
    mask: npt.NDArray[np.uint8],
    model_version: int | None,
    plan: ShardPlan,
    config: BulkConfig,
) -> dict[str, Any]:
    address = storage.join(config.out, f"{SCANS_FOLDER}/{item.name}")
    with storage.local_folder(address, job.RESULT_FILENAMES, last=RESULT_FILENAME) as folder:
        result = job.write_volumes(
            read,
            item.gray_values,
            mask,
            out=folder,
            name=item.name,
            config=config,
            model_version=model_version,
        )
        write_result(folder / RESULT_FILENAME, result, facts={SHARD_FACT: plan.name})
    return dataclasses.asdict(result)
