"""From the shards of a dataset to batches, with tf.data.

Batches stay uint8 until they are on the device: a quarter of the bytes of float32.
"""

import logging
import os
from pathlib import Path

import tensorflow as tf

from preprocessing.manifest import DatasetManifest, ManifestError
from preprocessing.records import parse_example
from trainer.augmentation import IDENTITY, random_transforms
from trainer.config import TrainerConfig
from trainer.resizing import resize_image, resize_mask

logger = logging.getLogger(__name__)

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Where a container finds its limit of memory in bytes, or ``max``."""

SHARDS_AT_ONCE = 4
"""Shards that are read in turn. A constant: the order of records must not depend on the machine."""

Batch = dict[str, tf.Tensor]
"""``image`` and ``mask``: uint8 [batch, size, size, 1]; ``weight``: float32 [batch], 1 for a slice
and 0 for padding; on training also ``transform``: float32 [batch, 8], for ``augmentation``."""


class SplitReader:
    """One split of a dataset, decoded and scaled to the size of the model."""

    def __init__(
        self,
        config: TrainerConfig,
        manifest: DatasetManifest,
        split_name: str,
        *,
        num_replicas: int,
    ) -> None:
        """Checks the shards and sets up the reading; nothing is read yet.

        Args:
            config: sizes, cache and seed.
            manifest: of the dataset in ``config.data``.
            split_name: ``train`` or ``validation``.
            num_replicas: the padded batch is a multiple of it, so that every replica has a share.

        Raises:
            ManifestError: if the split is empty, or a shard is missing or has another size.
        """
        self._config = config
        self.num_replicas = num_replicas
        self.num_slices = manifest.splits[split_name].num_examples
        self.padded_batch_size = -(-config.global_batch_size // num_replicas) * num_replicas
        self._slices = self._cached(read_examples(config.data, manifest, split_name))

    @property
    def steps(self) -> int:
        """Number of batches in one pass; the last one may be padded."""
        return -(-self.num_slices // self._config.global_batch_size)

    def training_batches(self, epoch: int) -> tf.data.Dataset:
        """Gives one epoch of shuffled batches with random transforms.

        The order and the transforms follow from the seed and the epoch alone, so an epoch that is
        run again sees the same batches, whatever the number of replicas.
        """
        epoch_seed = self._config.seed * 1_000_003 + epoch
        num_slices = self._config.global_batch_size

        def draw_transforms(step: tf.Tensor, batch: Batch) -> Batch:
            seed = tf.stack([tf.constant(epoch_seed, tf.int64), step])
            drawn = random_transforms(self._config, num_slices=num_slices, seed=seed)
            return {**batch, "transform": self._pad_transforms(drawn)}

        # Shuffle over the whole split: its slices lie in the cache, and the buffer shares them.
        shuffled = self._slices.shuffle(
            self.num_slices, seed=epoch_seed, reshuffle_each_iteration=False
        )
        return self._batches(shuffled).enumerate().map(draw_transforms).prefetch(2)

    def evaluation_batches(self) -> tf.data.Dataset:
        """Gives every slice of the split exactly once, in order, without augmentation."""
        return self._batches(self._slices).prefetch(2)

    def _cached(self, examples: tf.data.Dataset) -> tf.data.Dataset:
        size = self._config.image_size

        def scale(example: Batch) -> Batch:
            return {
                "image": resize_image(example["image"][tf.newaxis], size)[0],
                "mask": resize_mask(example["mask"][tf.newaxis], size)[0],
            }

        slices = examples.map(scale, num_parallel_calls=_num_cores())
        num_bytes = 2 * self.num_slices * size * size
        fits = num_bytes < _memory_bytes() / 4
        if self._config.cache == "memory" or (self._config.cache == "auto" and fits):
            return slices.cache()
        logger.info(
            "slices take %.1f GiB decoded: they are read anew each epoch", num_bytes / 2**30
        )
        return slices

    def _batches(self, slices: tf.data.Dataset) -> tf.data.Dataset:
        # Batch before padding: the last batch is filled up with weight 0, never dropped.
        return slices.batch(self._config.global_batch_size).map(self._pad)

    def _pad(self, batch: Batch) -> Batch:
        num_real = tf.shape(batch["image"])[0]
        missing = self.padded_batch_size - num_real
        size = self._config.image_size
        padded = {
            key: tf.ensure_shape(
                tf.pad(pixels, [[0, missing], [0, 0], [0, 0], [0, 0]]),
                [self.padded_batch_size, size, size, 1],
            )
            for key, pixels in batch.items()
        }
        padded["weight"] = tf.cast(tf.range(self.padded_batch_size) < num_real, tf.float32)
        return padded

    def _pad_transforms(self, transforms: tf.Tensor) -> tf.Tensor:
        missing = self.padded_batch_size - transforms.shape[0]
        return tf.concat([transforms, tf.tile(tf.constant([IDENTITY]), [missing, 1])], axis=0)


def read_examples(dataset_dir: Path, manifest: DatasetManifest, split_name: str) -> tf.data.Dataset:
    """Reads a split's records, each at its own size, in an order that is always the same.

    Args:
        dataset_dir: folder of the dataset.
        manifest: of that dataset; only the shards that it lists are read.
        split_name: ``train`` or ``validation``.

    Returns:
        Elements as ``preprocessing.records.parse_example`` gives them.

    Raises:
        ManifestError: if the split is empty, or a shard is missing or has another size.
    """
    split = manifest.splits[split_name]
    if not split.num_examples:
        raise ManifestError(
            f"the {split_name} split of {dataset_dir} is empty; "
            "write the dataset again with more patients or another --validation-fraction"
        )
    paths = []
    for shard in split.shards:
        path = dataset_dir / shard.filename
        if not path.is_file():
            raise ManifestError(
                f"{path} is missing, but dataset.json lists it; write the dataset again"
            )
        if path.stat().st_size != shard.num_bytes:
            raise ManifestError(
                f"{path} has {path.stat().st_size} bytes; dataset.json says {shard.num_bytes}: "
                "it was changed or copied in part; copy it again or write the dataset again"
            )
        paths.append(str(path))
    records = tf.data.Dataset.from_tensor_slices(paths).interleave(
        tf.data.TFRecordDataset,
        cycle_length=SHARDS_AT_ONCE,
        num_parallel_calls=SHARDS_AT_ONCE,
        deterministic=True,
    )
    # With autotuning, deleting an iterator may wait for the next tick of its thread, and the ticks
    # come at 5, 10, 20 seconds and so on: measured as a pause after each epoch.
    options = tf.data.Options()
    options.autotune.enabled = False
    return records.map(parse_example, num_parallel_calls=_num_cores()).with_options(options)


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
