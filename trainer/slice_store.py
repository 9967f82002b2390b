"""The slices of a split, decoded and scaled to the size of the model, in any order."""

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tqdm import tqdm

from preprocessing.publish import whole_file
from preprocessing.records import parse_example
from trainer.config import AUTO
from trainer.resizing import resize_image, resize_mask
from trainer.shard_index import ShardIndex

logger = logging.getLogger(__name__)

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Where a container finds its limit of memory in bytes, or ``max``."""

SHARE_OF_MEMORY, SHARE_OF_DISK = 0.25, 0.5
"""A split is kept where it takes at most this share of the memory, or of the free disk."""

Slices = npt.NDArray[np.uint8]
"""[num_slices, 2, size, size, 1]: each slice, and its mask."""


class SliceStore:
    """Gives slices by their numbers, from memory, from a file, or from the records."""

    def __init__(self, index: ShardIndex, *, size: int, cache: str, folder: Path) -> None:
        """Decodes all slices once, unless they are not to be kept.

        Args:
            index: of the records of a split.
            size: height and width of the model, in pixels.
            cache: as ``TrainerConfig.cache``.
            folder: for the file, if it is kept on disk; a file that is there already is used.

        Raises:
            ValueError: if the disk is too small for the file.
        """
        self._index = index
        self._size = size
        self.kept_in = self._choose(cache, folder)
        self._slices: Slices | None = None
        if self.kept_in == "memory":
            self._slices = np.empty(self._shape, np.uint8)
            self._decode_into(self._slices)
        elif self.kept_in == "disk":
            self._slices = self._on_disk(folder)

    def batches(self, numbers: npt.NDArray[np.int64]) -> tf.data.Dataset:
        """Gives the slices of each row of numbers.

        Args:
            numbers: [num_batches, batch], each the number of a record of the index.

        Returns:
            ``image`` and ``mask``, uint8 [batch, size, size, 1].
        """
        if self._slices is None:
            slices = self._decoded(numbers.ravel()).batch(numbers.shape[1])
        else:
            taken = self._slices
            slices = tf.data.Dataset.from_tensor_slices(numbers).map(
                lambda row: tf.numpy_function(taken.__getitem__, [row], tf.uint8),
                num_parallel_calls=_num_cores(),
                deterministic=True,
            )
        shape = [numbers.shape[1], 2, *self._shape[2:]]

        def name(batch: tf.Tensor) -> Mapping[str, tf.Tensor]:
            batch = tf.ensure_shape(batch, shape)
            return {"image": batch[:, 0], "mask": batch[:, 1]}

        return slices.map(name)

    @property
    def _shape(self) -> tuple[int, ...]:
        return (len(self._index), 2, self._size, self._size, 1)

    def _choose(self, cache: str, folder: Path) -> str:
        if cache != AUTO:
            return cache
        num_bytes = int(np.prod(self._shape))
        if num_bytes <= SHARE_OF_MEMORY * _memory_bytes():
            return "memory"
        size = f"slices take {num_bytes / 2**30:.1f} GiB decoded"
        if num_bytes <= SHARE_OF_DISK * _free_bytes(folder) or self._path(folder).exists():
            logger.info("%s, too much for memory: they are kept in %s", size, folder)
            return "disk"
        logger.info("%s, too much for memory and disk: they are decoded anew each epoch", size)
        return "none"

    def _path(self, folder: Path) -> Path:
        """Gives the file of these slices: the name says from which records, at which size."""
        names = "".join(f"{path.name} {path.stat().st_size}\n" for path in self._index.paths)
        digest = hashlib.sha256(names.encode() + self._index.offsets.tobytes()).hexdigest()
        return folder / f"slices-{self._size}-{digest[:16]}.npy"

    def _on_disk(self, folder: Path) -> Slices:
        path = self._path(folder)
        if not path.exists():
            num_bytes, free = int(np.prod(self._shape)), _free_bytes(folder)
            if num_bytes > free:
                raise ValueError(
                    f"--cache disk needs {num_bytes / 2**30:.1f} GiB in {folder}, where "
                    f"{free / 2**30:.1f} GiB are free; make room, or give --cache none"
                )
            with whole_file(path) as aside:
                slices = np.lib.format.open_memmap(aside, "w+", np.uint8, self._shape)
                self._decode_into(slices)
                slices.flush()
        return np.load(path, mmap_mode="r")

    def _decode_into(self, slices: Slices) -> None:
        decoded = self._decoded(np.arange(len(self._index))).as_numpy_iterator()
        for number, pair in enumerate(
            tqdm(decoded, "decoding", len(slices), unit="slice", disable=None, leave=False)
        ):
            slices[number] = pair

    def _decoded(self, numbers: npt.NDArray[np.int64]) -> tf.data.Dataset:
        """Reads and decodes records one by one, many at the same time: [2, size, size, 1]."""

        def decode(number: tf.Tensor) -> tf.Tensor:
            record = tf.numpy_function(self._index.read, [number], tf.string)
            example = parse_example(tf.ensure_shape(record, []))
            image = resize_image(example["image"][tf.newaxis], self._size)
            return tf.concat([image, resize_mask(example["mask"][tf.newaxis], self._size)], axis=0)

        return tf.data.Dataset.from_tensor_slices(numbers).map(
            decode, num_parallel_calls=2 * _num_cores(), deterministic=True
        )


def remove_kept_slices(folder: Path) -> None:
    """Removes the files of a run that has ended."""
    shutil.rmtree(folder, ignore_errors=True)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0))


def _memory_bytes() -> int:
    """Gives the memory that this process may use: of the machine, or of its container."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = CGROUP_LIMIT.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return machine  # no control groups, or those of version 1
    return machine if limit == "max" else min(machine, int(limit))


def _free_bytes(folder: Path) -> int:
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    return shutil.disk_usage(existing).free
