"""The plan of shards, and how a worker writes one: whole or not at all."""

import hashlib
import math
import socket
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocessing.framing import write_record
from preprocessing.images.reading import UnreadableImageError, read_mask, read_slice
from preprocessing.manifest import RefusedFile, Shard
from preprocessing.pairing import Pair
from preprocessing.publish import whole_file
from preprocessing.records import PNG_ENCODING, encode_example
from preprocessing.resizing import resize_mask, resize_slice
from preprocessing.spec import SPLITS, TRAIN_SPLIT
from preprocessing.splitting import sort_by_hash

MIN_SHARD_BYTES = 16 * 2**20
"""Below about this a shard is not worth its file."""

MAX_SHARD_BYTES = 256 * 2**20
"""Above about this a shard is awkward to copy and to share out among readers."""

DESIRED_NUM_SHARDS = 64
"""Enough for the workers of a job and for the readers of a training, if the sizes allow."""

NUM_SAMPLED = 16
"""The size of a record is taken from so many of them."""

PROGRESS_SUFFIX = ".progress"
"""A worker adds one byte for each slice to a file of this suffix beside its shard."""

SHARED_FOLDERS = (
    "expected --images, --masks and the folder of --out on a file system that the driver and all "
    "workers mount under the same path; mount it on the workers, see docs/engines.md"
)
"""The mend where a worker sees other files than the driver."""


class ShardWriteError(RuntimeError):
    """A shard cannot be written: the disk is full, or the folder is not to be written to."""


@dataclass(frozen=True, kw_only=True)
class RecordOptions:
    """From what, and how, records are made."""

    images: str
    """Folder of the slices."""

    masks: str
    """Folder of the masks."""

    mask_foreground: tuple[int, ...] | None = None
    """Gray values that are lung; None: masks hold 0 and 255, or 0 and 1."""

    encoding: str = PNG_ENCODING
    """``png`` or ``raw``."""

    image_size: int | None = None
    """Height and width of a record, in pixels; None: those of its slice."""


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


@dataclass(frozen=True, kw_only=True)
class PixelSums:
    """Sums over pixels; whole numbers, so that the order of adding makes no difference."""

    num_pixels: int = 0
    """Pixels of the slices, and as many of their masks."""

    gray_value_sum: int = 0
    """Sum of the gray values."""

    gray_value_square_sum: int = 0
    """Sum of their squares."""

    num_lung_pixels: int = 0
    """Mask pixels that are lung."""

    def __add__(self, other: "PixelSums") -> "PixelSums":
        """Adds each of the sums."""
        return PixelSums(
            num_pixels=self.num_pixels + other.num_pixels,
            gray_value_sum=self.gray_value_sum + other.gray_value_sum,
            gray_value_square_sum=self.gray_value_square_sum + other.gray_value_square_sum,
            num_lung_pixels=self.num_lung_pixels + other.num_lung_pixels,
        )


@dataclass(frozen=True, kw_only=True)
class ShardReport:
    """What a worker did."""

    split: str
    """``train`` or ``validation``."""

    shard: Shard
    """The file that it wrote."""

    patients: Mapping[str, int]
    """Number of records by ``patient_id``, where names tell it."""

    refused: tuple[RefusedFile, ...]
    """Files for which a pair was left out."""

    sums: PixelSums
    """Over the slices that it wrote."""

    num_like_masks: int
    """Slices that it wrote that hold no more than two gray values."""


@dataclass(frozen=True, kw_only=True)
class FailedShard:
    """What a worker could not do."""

    filename: str
    """Name of the shard."""

    reason: str
    """What happened, and the mend."""


def plan_shards(
    pairs: Sequence[Pair],
    *,
    splits: Mapping[str, str],
    patients: Mapping[str, str],
    seed: int,
    num_shards: int | None,
    record_bytes: float,
) -> list[ShardPlan]:
    """Decides which slice goes to which place in which shard, before anything is read.

    Args:
        pairs: all pairs.
        splits: name of the split by ``slice_id``.
        patients: ``patient_id`` by ``slice_id``, or empty.
        seed: another one gives another order.
        num_shards: of the training split; validation gets its share of them. None: from the sizes.
        record_bytes: size of a record, about.

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
    plans: list[ShardPlan] = []
    for split, members in slice_ids.items():
        if num_shards is None:
            count = _count_shards(record_bytes * len(members))
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


def estimate_record_bytes(pairs: Sequence[Pair], *, options: RecordOptions, seed: int) -> float:
    """Gives the mean size of a few records, which are made and thrown away.

    The same slices give the same figure wherever they lie; if none of them can be read, it is the
    size of the files.
    """
    order = sort_by_hash([pair.slice_id for pair in pairs], salt=f"sample {seed}")[:NUM_SAMPLED]
    by_slice_id = {pair.slice_id: pair for pair in pairs}
    sampled = [by_slice_id[slice_id] for slice_id in order]
    records = [
        record
        for pair in sampled
        if (record := _encode_pair(pair, patient_id="", options=options, tally=_Tally()))
    ]
    sizes = [len(record) for record in records] or [pair.num_bytes for pair in sampled]
    return sum(sizes) / len(sizes)


def try_write_shard(
    plan: ShardPlan, *, options: RecordOptions, folder: str
) -> ShardReport | FailedShard:
    """Does `write_shard`; a shard that cannot be written is told and not raised.

    An engine prints what a worker raises as pages of traceback, once for each worker.
    """
    for path in (options.images, options.masks, folder):
        if not Path(path).is_dir():
            reason = f"the worker on {socket.gethostname()} has no folder {path}; {SHARED_FOLDERS}"
            return FailedShard(filename=plan.filename, reason=reason)
    try:
        return write_shard(plan, options=options, folder=folder)
    except ShardWriteError as error:
        return FailedShard(filename=plan.filename, reason=str(error))


def write_shard(plan: ShardPlan, *, options: RecordOptions, folder: str) -> ShardReport:
    """Reads, checks and encodes the slices of one shard and writes it, one slice at a time.

    Args:
        plan: what to write.
        options: from what, and how.
        folder: where the shard goes.

    Returns:
        What was written and what was refused.

    Raises:
        ShardWriteError: if the shard cannot be written; nothing is left under its name.
    """
    path, tally = Path(folder) / plan.filename, _Tally()
    progress_path = path.with_name(f"{path.name}{PROGRESS_SUFFIX}")
    try:
        with (
            progress_path.open("wb", buffering=0) as progress,
            whole_file(path) as aside,
            aside.open("wb") as file,
        ):
            for pair in plan.pairs:
                patient_id = plan.patients.get(pair.slice_id, "")
                record = _encode_pair(pair, patient_id=patient_id, options=options, tally=tally)
                if record:
                    tally.count_record(write_record(file, record))
                progress.write(b".")
    except OSError as error:
        raise ShardWriteError(describe_write_error(plan.filename, folder, error)) from error
    return ShardReport(
        split=plan.split,
        shard=Shard(
            filename=plan.filename,
            num_examples=tally.num_records,
            num_bytes=tally.num_bytes,
            sha256=tally.sha256.hexdigest(),
        ),
        patients=dict(tally.patients),
        refused=tuple(tally.refused),
        sums=tally.sums,
        num_like_masks=tally.num_like_masks,
    )


def describe_write_error(filename: str, folder: str, error: OSError) -> str:
    """Gives the message for a file of a dataset that cannot be written."""
    return (
        f"cannot write {filename} in {folder}: {error.strerror or error}; "
        "make room or choose another --out, then run again"
    )


@dataclass(kw_only=True)
class _Tally:
    """Counts while a shard is written."""

    num_records: int = 0
    num_bytes: int = 0
    sha256: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    patients: Counter[str] = field(default_factory=Counter)
    refused: list[RefusedFile] = field(default_factory=list)
    sums: PixelSums = field(default_factory=PixelSums)
    num_like_masks: int = 0

    def count_record(self, framed: bytes) -> None:
        self.num_records += 1
        self.num_bytes += len(framed)
        self.sha256.update(framed)


def _encode_pair(
    pair: Pair, *, patient_id: str, options: RecordOptions, tally: _Tally
) -> bytes | None:
    """Gives the record of a pair, or None if it is refused; the tally is told of either."""
    image, mask, refused = _read_pair(pair, options=options)
    if image is None or mask is None or refused:
        tally.refused.extend(refused)
        return None
    if options.image_size is not None:
        image = resize_slice(image, size=options.image_size)
        mask = resize_mask(mask, size=options.image_size)
    if patient_id:
        tally.patients[patient_id] += 1
    tally.sums += _sum_pixels(image, mask)
    tally.num_like_masks += bool(((image == image.min()) | (image == image.max())).all())
    return encode_example(
        image=image,
        mask=mask,
        slice_id=pair.slice_id,
        patient_id=patient_id,
        encoding=options.encoding,
    )


def _read_pair(
    pair: Pair, *, options: RecordOptions
) -> tuple[npt.NDArray[np.uint8] | None, npt.NDArray[np.uint8] | None, list[RefusedFile]]:
    """Reads both files, so that the reasons of both are told at once."""
    refused = []
    image, mask = None, None
    try:
        image = read_slice(Path(options.images) / pair.image_path)
    except UnreadableImageError as error:
        refused.append(RefusedFile(file=f"images/{pair.image_path}", reason=error.reason))
    try:
        mask = read_mask(Path(options.masks) / pair.mask_path, foreground=options.mask_foreground)
    except UnreadableImageError as error:
        refused.append(RefusedFile(file=f"masks/{pair.mask_path}", reason=error.reason))
    if image is not None and mask is not None and image.shape != mask.shape:
        reason = (
            f"is {_describe_size(mask)}, but its slice {pair.image_path} is "
            f"{_describe_size(image)}; expected equal sizes; export the mask again at the size of "
            "its slice"
        )
        refused.append(RefusedFile(file=f"masks/{pair.mask_path}", reason=reason))
    return image, mask, refused


def _describe_size(pixels: npt.NDArray[np.uint8]) -> str:
    height, width = pixels.shape
    return f"{width} x {height} px"


def _sum_pixels(image: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> PixelSums:
    wide = image.astype(np.uint16)  # holds 255 squared
    return PixelSums(
        num_pixels=image.size,
        gray_value_sum=int(wide.sum(dtype=np.uint64)),
        gray_value_square_sum=int((wide * wide).sum(dtype=np.uint64)),
        num_lung_pixels=int(np.count_nonzero(mask)),
    )


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
