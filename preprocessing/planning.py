"""The plan of shards: which slice goes to which place, before any of them is read.

Each plan is a file in the folder in which the dataset grows, and an engine shares out their names
only: the list of a large archive would pass through it several times over, and some engines take no
job above a size.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from preprocessing.pairing import Pair
from preprocessing.spec import SPLITS, TRAIN_SPLIT
from preprocessing.splitting import sort_by_hash

MIN_SHARD_BYTES = 16 * 2**20
"""Below about this a shard is not worth its file."""

MAX_SHARD_BYTES = 256 * 2**20
"""Above about this a shard is awkward to copy and to share out among readers."""

DESIRED_NUM_SHARDS = 64
"""Enough for the workers of a job and for the readers of a training, if the sizes allow."""

PLAN_SUFFIX = ".plan.json"
"""A plan stands in a file of this suffix beside its shard."""


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """What one worker has to do."""

    split: str
    """``train`` or ``validation``."""

    filename: str
    """Name of the shard."""

    pairs: tuple[Pair, ...]
    """In the order of their records."""

    patients: Mapping[str, str]
    """``patient_id`` by ``slice_id``; empty where names tell none."""


def plan_shards(
    pairs: Sequence[Pair],
    *,
    splits: Mapping[str, str],
    patients: Mapping[str, str],
    seed: int,
    num_shards: int | None,
    record_bytes: Callable[[], float],
) -> list[ShardPlan]:
    """Decides which slice goes to which place in which shard, before anything is read.

    Args:
        pairs: all pairs.
        splits: name of the split by ``slice_id``.
        patients: ``patient_id`` by ``slice_id``, or empty.
        seed: another one gives another order.
        num_shards: of the training split; validation gets its share of them. None: from the sizes.
        record_bytes: gives the size of a record, about; asked if `num_shards` is None.

    Returns:
        The plans of all splits. No shard is empty, and the shards of a split differ by one
        slice at most.
    """
    by_slice_id = {pair.slice_id: pair for pair in pairs}
    slice_ids = {
        split: [slice_id for slice_id in by_slice_id if splits[slice_id] == split]
        for split in SPLITS
    }
    num_train = len(slice_ids[TRAIN_SPLIT])
    mean_bytes = record_bytes() if num_shards is None else 0.0
    plans: list[ShardPlan] = []
    for split, members in slice_ids.items():
        if num_shards is None:
            count = _count_shards(mean_bytes * len(members))
        else:
            count = math.ceil(num_shards * len(members) / num_train)
        ordered = sort_by_hash(members, salt=f"shard {seed}")
        plans.extend(
            ShardPlan(
                split=split,
                filename=filename,
                pairs=tuple(by_slice_id[member] for member in part),
                patients={member: patients[member] for member in part if member in patients},
            )
            for filename, part in _cut(ordered, split=split, count=min(count, len(members)))
        )
    return plans


def write_plan(plan: ShardPlan, *, folder: Path) -> None:
    """Writes a plan for the worker that will take it.

    Raises:
        OSError: if it cannot be written.
    """
    text = json.dumps(dataclasses.asdict(plan))
    (folder / f"{plan.filename}{PLAN_SUFFIX}").write_text(text, encoding="utf-8")


def read_plan(filename: str, *, folder: Path) -> ShardPlan:
    """Reads the plan of a shard.

    Raises:
        OSError: if it cannot be read.
    """
    document = json.loads((folder / f"{filename}{PLAN_SUFFIX}").read_text(encoding="utf-8"))
    pairs = tuple(Pair(**pair) for pair in document.pop("pairs"))
    return ShardPlan(pairs=pairs, **document)


def _count_shards(num_bytes: float) -> int:
    """Gives the desired number, if that makes shards neither too small nor too large."""
    fewest = math.ceil(num_bytes / MAX_SHARD_BYTES)
    most = max(1, int(num_bytes // MIN_SHARD_BYTES))
    return max(fewest, min(DESIRED_NUM_SHARDS, most))


def _cut(ordered: Sequence[str], *, split: str, count: int) -> Iterable[tuple[str, Sequence[str]]]:
    """Cuts into parts that differ by one at most."""
    for index in range(count):
        start, stop = (len(ordered) * step // count for step in (index, index + 1))
        yield f"{split}-{index:05d}-of-{count:05d}.tfrecord", ordered[start:stop]
