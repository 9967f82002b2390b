"""From the shards of a dataset to batches, with tf.data.

Batches stay uint8 until they are on the device: a quarter of the bytes of float32.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from preprocessing.manifest import DatasetManifest
from preprocessing.records import parse_example
from preprocessing.spec import TRAIN_SPLIT
from trainer.augmentation.draws import draw_augmentation
from trainer.config import TrainerConfig
from trainer.phantom_store import PhantomStore
from trainer.shard_index import index_patients, index_shards, shard_paths
from trainer.slice_store import SliceStore

SHARDS_AT_ONCE = 4
"""Shards that are read in turn. A constant: the order of records must not depend on the machine."""

PADDING = -1
"""Stands for no slice in the plan of an epoch."""

Batch = dict[str, tf.Tensor]
"""``image`` and ``mask``: uint8 [batch, size, size, 1]; ``weight``: float32 [batch], 1 for a slice
and 0 for padding; ``num_slices``: float32 [batch], the number of slices in the global batch, in
each place; on training also what ``trainer.augmentation`` draws."""


class SplitReader:
    """One split of a dataset, in global batches, of which a worker reads its own part.

    An epoch is planned as a whole: from the seed and the epoch follows which slice goes to which
    place of which batch. So it is the same on any number of replicas and workers, however slices
    are kept, and can begin at any step.
    """

    def __init__(
        self,
        config: TrainerConfig,
        manifest: DatasetManifest,
        split_name: str,
        *,
        num_replicas: int,
        num_workers: int = 1,
        worker_index: int = 0,
    ) -> None:
        """Reads the shards once, and checks them; no slice is decoded yet.

        Args:
            config: sizes, cache and seed.
            manifest: of the dataset in ``config.data``.
            split_name: ``train`` or ``validation``.
            num_replicas: over all workers; the padded batch is a multiple of it.
            num_workers: processes that train together.
            worker_index: which of them this is.

        Raises:
            ManifestError: if the split is empty, or a shard is missing or is not the one that was
                written.
        """
        self._config = config
        if config.hold_out is None:
            self._index = index_shards(config.data, manifest, split_name)
        else:
            self._index = index_patients(
                config.data, manifest, hold_out=config.hold_out, split_name=split_name
            )
        share = config.phantom_share if split_name == TRAIN_SPLIT else 0.0
        self.num_real_slices = len(self._index) if share < 1 else 0
        self.num_phantoms = _num_phantoms(len(self._index), share, config.phantoms)
        parts = num_replicas * config.accumulation_steps
        self.padded_batch_size = -(-config.global_batch_size // parts) * parts
        width = self.padded_batch_size // num_workers
        self._columns = np.arange(worker_index * width, (worker_index + 1) * width)
        self._folder = config.out / "cache" / f"{split_name}-{worker_index}"
        self._store: SliceStore | None = None
        self._phantoms: PhantomStore | None = None

    @property
    def num_slices(self) -> int:
        """Number of slices in one pass, phantoms too."""
        return self.num_real_slices + self.num_phantoms

    @property
    def steps(self) -> int:
        """Number of batches in one pass; the last one may be padded."""
        return -(-self.num_slices // self._config.global_batch_size)

    @property
    def store(self) -> SliceStore:
        """The slices; they are decoded when they are asked for the first time.

        Raises:
            ValueError: if the disk is too small to keep them.
        """
        if self._store is None:
            self._store = SliceStore(
                self._index,
                size=self._config.image_size,
                cache=self._config.cache,
                folder=self._folder,
            )
        return self._store

    @property
    def phantoms(self) -> PhantomStore:
        """The phantoms; they are drawn when they are asked for the first time."""
        if self._phantoms is None:
            self._phantoms = PhantomStore(
                num_phantoms=self._config.phantoms,
                size=self._config.image_size,
                seed=self._config.seed,
                folder=self._folder,
            )
        return self._phantoms

    def training_batches(self, epoch: int, *, first_step: int = 0) -> tf.data.Dataset:
        """Gives an epoch of shuffled batches with random augmentation.

        Args:
            epoch: which one, counted from 1; it decides on order and augmentation.
            first_step: how many batches are left out at the beginning.
        """
        epoch_seed = self._config.seed * 1_000_003 + epoch
        order = self._shuffled(np.random.default_rng(epoch_seed))
        drawn = tf.data.Dataset.from_tensor_slices(self._draw(epoch_seed, first_step))
        batches = tf.data.Dataset.zip(self._batches(order, first_step), drawn)
        both = batches.map(lambda batch, draws: {**batch, **draws})
        return both.prefetch(2).with_options(_options())

    def evaluation_batches(self) -> tf.data.Dataset:
        """Gives every slice of the split exactly once, in order, without augmentation."""
        order = np.arange(self.num_slices)
        return self._batches(order, 0).prefetch(2).with_options(_options())

    def _draw(self, epoch_seed: int, first_step: int) -> dict[str, tf.Tensor]:
        """Draws the augmentation of an epoch, all at once: [steps, share of this worker, …]."""
        size = self._config.global_batch_size
        # Padding is not drawn for: it gets what the last slice of its batch gets.
        columns = np.minimum(self._columns, size - 1)
        with tf.device("CPU:0"):
            seed = tf.constant([epoch_seed, 0], tf.int64)
            draws = draw_augmentation(self._config, num_slices=self.steps * size, seed=seed)
            by_step = {
                key: tf.reshape(value, [self.steps, size, *value.shape[1:]])
                for key, value in draws.items()
            }
            return {
                key: tf.gather(value[first_step:], columns, axis=1)
                for key, value in by_step.items()
            }

    def _batches(self, order: npt.NDArray[np.int64], first_step: int) -> tf.data.Dataset:
        plan = self._plan(order)[first_step:]
        num_slices: npt.NDArray[np.float32] = np.sum(plan != PADDING, axis=1, dtype=np.float32)
        own = plan[:, self._columns]
        weights = (own != PADDING).astype(np.float32)
        counts = np.repeat(num_slices[:, np.newaxis], own.shape[1], axis=1)
        # Where there is padding, some slice is read all the same, and weighs nothing.
        slices = self._read(np.maximum(own, 0))
        weighted = tf.data.Dataset.from_tensor_slices({"weight": weights, "num_slices": counts})
        return tf.data.Dataset.zip(slices, weighted).map(lambda one, other: {**one, **other})

    def _shuffled(self, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Gives the slices of an epoch: all real ones, and some phantoms, others in each epoch.

        Phantoms count on from the last real slice.
        """
        rounds = -(-self.num_phantoms // self._config.phantoms)
        drawn = [rng.permutation(self._config.phantoms) for _ in range(rounds)]
        phantoms = np.concatenate([*drawn, np.empty(0, np.int64)])[: self.num_phantoms]
        return rng.permutation(
            np.concatenate([np.arange(self.num_real_slices), len(self._index) + phantoms])
        )

    def _read(self, numbers: npt.NDArray[np.int64]) -> tf.data.Dataset:
        """Reads batches of slices, real ones and phantoms."""
        is_phantom = numbers >= len(self._index)
        # Where there is a phantom, some real slice is read all the same, and the other way round.
        real = (
            self.store.batches(np.where(is_phantom, 0, numbers)) if self.num_real_slices else None
        )
        if not is_phantom.any():
            return real
        drawn = self.phantoms.batches(np.where(is_phantom, numbers - len(self._index), 0))
        if real is None:
            return drawn
        chosen = tf.data.Dataset.from_tensor_slices(is_phantom[..., None, None, None])
        return tf.data.Dataset.zip(chosen, drawn, real).map(
            lambda chosen, one, other: {key: tf.where(chosen, one[key], other[key]) for key in one}
        )

    def _plan(self, order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Cuts an order of slices into global batches: [steps, padded_batch_size]."""
        size = self._config.global_batch_size
        plan = np.full([self.steps, self.padded_batch_size], PADDING)
        for step in range(self.steps):
            batch = order[step * size : (step + 1) * size]
            plan[step, : len(batch)] = batch
        return plan


def _num_phantoms(num_real: int, share: float, num_drawn: int) -> int:
    """Gives how many phantoms make up a share of an epoch that has all real slices too."""
    return num_drawn if share == 1 else round(num_real * share / (1 - share))


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
    paths = [str(path) for path in shard_paths(dataset_dir, manifest, split_name)]
    records = tf.data.Dataset.from_tensor_slices(paths).interleave(
        tf.data.TFRecordDataset,
        cycle_length=SHARDS_AT_ONCE,
        num_parallel_calls=SHARDS_AT_ONCE,
        deterministic=True,
    )
    examples = records.map(parse_example, num_parallel_calls=SHARDS_AT_ONCE)
    return examples.with_options(_options())


def _options() -> tf.data.Options:
    # With autotuning, deleting an iterator may wait for the next tick of its thread, and the ticks
    # come at 5, 10, 20 seconds and so on: measured as a pause after each epoch.
    options = tf.data.Options()
    options.autotune.enabled = False
    return options
