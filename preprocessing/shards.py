"""How a worker writes a shard: whole or not at all."""

import hashlib
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from zlib_ng import zlib_ng

from preprocessing.folders import read_pair
from preprocessing.framing import write_record
from preprocessing.images.reading import read_labels, read_mask
from preprocessing.manifest import RefusedFile, Shard
from preprocessing.pairing import Pair
from preprocessing.planning import ShardPlan, read_plan
from preprocessing.publish import whole_file
from preprocessing.records import PNG_ENCODING, encode_example
from preprocessing.resizing import resize_mask, resize_slice
from preprocessing.splitting import sort_by_hash

NUM_SAMPLED = 16
"""The size of a record is taken from so many of them."""

_GRAY_VALUES = np.arange(256)

PROGRESS_SUFFIX = ".progress"
"""A worker adds one byte for each slice to a file of this suffix beside its shard."""

SHARED_FOLDERS = (
    "expected --images, --masks and the folder of --out on a file system that the driver and all "
    "workers mount under the same path; mount it on the workers, see docs/engines.md"
)
"""The mend where a worker sees other files than the driver."""


Fingerprint = tuple[int, str, str]
"""A number that equal slices share and others do not, the ``slice_id`` and the ``patient_id``."""


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

    num_like_masks: int = 0
    """Slices that hold no more than two gray values."""

    def __add__(self, other: "PixelSums") -> "PixelSums":
        """Adds each of the sums."""
        return PixelSums(
            num_pixels=self.num_pixels + other.num_pixels,
            gray_value_sum=self.gray_value_sum + other.gray_value_sum,
            gray_value_square_sum=self.gray_value_square_sum + other.gray_value_square_sum,
            num_lung_pixels=self.num_lung_pixels + other.num_lung_pixels,
            num_like_masks=self.num_like_masks + other.num_like_masks,
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

    labels: frozenset[int]
    """Gray values of all masks, where lung is told by its label."""

    fingerprints: tuple[Fingerprint, ...]
    """Of all slices with more than two gray values; of the others, many are equal."""


@dataclass(frozen=True, kw_only=True)
class FailedShard:
    """What a worker could not do."""

    filename: str
    """Name of the shard."""

    reason: str
    """What happened, and the mend."""


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
    filename: str, *, options: RecordOptions, folder: str
) -> ShardReport | FailedShard:
    """Does `write_shard` for a plan; a shard that cannot be written is told and not raised.

    An engine prints what a worker raises as pages of traceback, once for each worker.
    """
    for path in (options.images, options.masks, folder):
        if not Path(path).is_dir():
            reason = f"the worker on {socket.gethostname()} has no folder {path}; {SHARED_FOLDERS}"
            return FailedShard(filename=filename, reason=reason)
    try:
        plan = read_plan(filename, folder=Path(folder))
    except OSError as error:
        reason = f"cannot read the plan of {filename} in {folder}: {error}; {SHARED_FOLDERS}"
        return FailedShard(filename=filename, reason=reason)
    try:
        return write_shard(plan, options=options, folder=folder)
    except ShardWriteError as error:
        return FailedShard(filename=filename, reason=str(error))


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
        labels=frozenset(tally.labels),
        fingerprints=tuple(tally.fingerprints),
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
    labels: set[int] = field(default_factory=set)
    fingerprints: list[Fingerprint] = field(default_factory=list)
    sums: PixelSums = field(default_factory=PixelSums)

    def count_record(self, framed: bytes) -> None:
        self.num_records += 1
        self.num_bytes += len(framed)
        self.sha256.update(framed)


def _encode_pair(
    pair: Pair, *, patient_id: str, options: RecordOptions, tally: _Tally
) -> bytes | None:
    """Gives the record of a pair, or None if it is refused; the tally is told of either."""
    image, mask, refused = read_pair(
        pair,
        images=Path(options.images),
        masks=Path(options.masks),
        read_mask=partial(_read_mask, options=options, tally=tally),
    )
    if image is None or mask is None or refused:
        tally.refused.extend(refused)
        return None
    if options.image_size is not None:
        image = resize_slice(image, size=options.image_size)
        mask = resize_mask(mask, size=options.image_size)
    if patient_id:
        tally.patients[patient_id] += 1
    sums = _sum_pixels(image, mask)
    tally.sums += sums
    if not sums.num_like_masks:
        # 64 bits of two checksums, at a small part of the cost of a cryptographic hash.
        number = zlib_ng.crc32(image) << 32 | zlib_ng.adler32(image)
        tally.fingerprints.append((number, pair.slice_id, patient_id))
    return encode_example(
        image=image,
        mask=mask,
        slice_id=pair.slice_id,
        patient_id=patient_id,
        encoding=options.encoding,
    )


def _read_mask(path: Path, *, options: RecordOptions, tally: _Tally) -> npt.NDArray[np.uint8]:
    if options.mask_foreground is None:
        return read_mask(path)
    labels = read_labels(path)
    tally.labels |= set(np.flatnonzero(Image.fromarray(labels).histogram()).tolist())
    return np.isin(labels, options.mask_foreground).view(np.uint8)


def _sum_pixels(image: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> PixelSums:
    # Counting gray values is as fast as adding them up, and takes no larger copy of the slice.
    counts = np.array(Image.fromarray(image).histogram())
    return PixelSums(
        num_pixels=image.size,
        gray_value_sum=int(counts @ _GRAY_VALUES),
        gray_value_square_sum=int(counts @ _GRAY_VALUES**2),
        num_lung_pixels=int(np.count_nonzero(mask)),
        num_like_masks=int(np.count_nonzero(counts) <= 2),
    )
