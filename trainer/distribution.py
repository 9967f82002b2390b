"""Where training runs: the only module that knows of ``tf.distribute``.

The model is built inside of the strategy's scope and knows nothing of it.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf

logger = logging.getLogger(__name__)

DEFAULT_LOGICAL_CPU_DEVICES = 2
"""Replicas on a machine without a GPU, so that the road is the same there."""


def mirrored_strategy(num_replicas: int | None) -> tf.distribute.MirroredStrategy:
    """Makes a strategy over GPUs or, where there is none, over logical CPU devices.

    Args:
        num_replicas: how many devices; ``None`` for every GPU, or two logical CPU devices.

    Returns:
        The strategy; one that mirrors variables on each device and sums gradients over them.

    Raises:
        ValueError: if more GPUs are asked for than are there, or TensorFlow was already started
            with fewer logical devices.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        count = num_replicas or DEFAULT_LOGICAL_CPU_DEVICES
        _make_logical_cpu_devices(count)
        logger.info(
            "no GPU found: training on %d logical CPU devices; the full size is slow there, "
            "--image-size 128 --filters 16 is not",
            count,
        )
        # Logical devices share one memory; collective operations between them would only wait, and
        # two strategies of different size in one process would get in each other's way.
        return tf.distribute.MirroredStrategy(
            [f"CPU:{index}" for index in range(count)],
            cross_device_ops=tf.distribute.ReductionToOneDevice(),
        )
    count = num_replicas or len(gpus)
    if count > len(gpus):
        raise ValueError(
            f"--num-replicas is {count}, but TensorFlow sees {len(gpus)} GPUs; ask for at most "
            f"{len(gpus)}, or check the driver and CUDA_VISIBLE_DEVICES"
        )
    logger.info("training on %d of %d GPUs", count, len(gpus))
    return tf.distribute.MirroredStrategy([f"GPU:{index}" for index in range(count)])


def sum_over_replicas(value: tf.Tensor) -> tf.Tensor:
    """Sums a tensor over all replicas; to be called inside of a replica."""
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)


def run_and_sum(
    strategy: tf.distribute.Strategy,
    step: Callable[[Mapping[str, tf.Tensor]], tf.Tensor],
    batch: Mapping[str, tf.Tensor],
) -> tf.Tensor:
    """Runs a step on every replica, each on its share of the batch, and sums the results."""
    per_replica = strategy.run(step, args=(batch,))
    return strategy.reduce(tf.distribute.ReduceOp.SUM, per_replica, axis=None)


def distribute(
    strategy: tf.distribute.Strategy, batches: Iterable[Mapping[str, tf.Tensor]]
) -> Iterator[Mapping[str, tf.Tensor]]:
    """Splits each batch into equal shares, one for each replica.

    ``strategy.experimental_distribute_dataset`` would do it too, but its iterators autotune
    themselves whatever the options of the dataset say; ``trainer.input_pipeline`` tells why that
    costs seconds at the end of each epoch.

    Args:
        strategy: gives the replicas.
        batches: tensors whose first dimension is a multiple of the number of replicas.

    Yields:
        The batches, each tensor as one value for each replica.
    """
    for batch in batches:
        shares = {
            key: tf.split(value, strategy.num_replicas_in_sync) for key, value in batch.items()
        }

        def share_of(
            context: Any, shares: dict[str, list[tf.Tensor]] = shares
        ) -> dict[str, tf.Tensor]:
            return {key: parts[context.replica_id_in_sync_group] for key, parts in shares.items()}

        yield strategy.experimental_distribute_values_from_function(share_of)


def _make_logical_cpu_devices(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    configured = tf.config.get_logical_device_configuration(cpu) or []
    if len(configured) >= count:
        return
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError as error:
        raise ValueError(
            f"{count} logical CPU devices are wanted, but TensorFlow was started with "
            f"{max(len(configured), 1)}; make the strategy before anything else runs"
        ) from error
