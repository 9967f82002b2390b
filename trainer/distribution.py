"""Where training runs: the only module that knows of ``tf.distribute`` and of ``TF_CONFIG``.

The model is built inside of the strategy's scope and knows nothing of it. A *worker* is a process,
a *replica* a device of a worker; the *chief* is the worker that writes.
"""

import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tensorflow as tf

from trainer.config import AUTO
from trainer.rendezvous import PEERS_S, meet

logger = logging.getLogger(__name__)

TF_CONFIG = "TF_CONFIG"
"""Environment variable that describes a cluster, as TensorFlow has it."""

JOB_INDEX = "JOB_COMPLETION_INDEX"
"""Environment variable that Kubernetes sets in each pod of an Indexed Job."""

NUM_WORKERS = "NUM_WORKERS"
"""Environment variable: number of pods of the Indexed Job that train together."""

WORKER_ADDRESS = "WORKER_ADDRESS"
"""Environment variable: address of a pod, ``train-{index}.train:2222``, with ``{index}`` in it."""

WORKER_WAIT = "WORKER_WAIT_S"
"""Environment variable: longest wait of a worker for the others, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The devices of a training, on one worker or on several."""

    strategy: tf.distribute.Strategy
    """Mirrors variables on all replicas."""

    num_workers: int = 1
    """Processes that train together."""

    worker_index: int = 0
    """Which of them this is."""

    @property
    def num_replicas(self) -> int:
        """Number of devices, over all workers."""
        return int(self.strategy.num_replicas_in_sync)

    @property
    def num_local_replicas(self) -> int:
        """Number of devices of this worker; all workers have as many."""
        return self.num_replicas // self.num_workers

    @property
    def device_kind(self) -> str:
        """``CPU`` or ``GPU``."""
        return str(tf.DeviceSpec.from_string(self.strategy.extended.worker_devices[0]).device_type)

    @property
    def is_chief(self) -> bool:
        """Whether this worker is the one that writes."""
        return self.worker_index == 0

    def scope(self) -> AbstractContextManager[Any]:
        """Gives the context in which variables are made."""
        return self.strategy.scope()

    @tf.autograph.experimental.do_not_convert
    def run_and_sum(
        self,
        step: Callable[[Mapping[str, tf.Tensor]], tf.Tensor],
        batch: Mapping[str, tf.Tensor],
    ) -> tf.Tensor:
        """Runs a step on every replica, each on its share of the batch, and sums the results.

        AutoGraph leaves the step alone, as its conversion takes longer than the tracing of it: what
        depends on a tensor is written by ``tf.cond``, and not by ``if``.

        Args:
            step: gets a share of the batch, and gives a tensor.
            batch: of this worker; the first dimension of each tensor is a multiple of the number of
                its replicas.

        Returns:
            The sum over all replicas of all workers.
        """

        def run_on_share(batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
            return step(self._share(batch))

        per_replica = self.strategy.run(run_on_share, args=(batch,))
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, per_replica, axis=None)

    def sum_over_workers(self, numbers: Sequence[float]) -> list[float]:
        """Sums each number over all workers; each of them has to call this at the same time."""
        if self.num_workers == 1:
            return list(numbers)
        total = self._collect(tf.constant(numbers, tf.float64)) / self.num_local_replicas
        return [float(number) for number in total]

    @cached_property
    def _collect(self) -> Callable[[tf.Tensor], tf.Tensor]:
        @tf.function
        def collect(numbers: tf.Tensor) -> tf.Tensor:
            per_replica = self.strategy.run(tf.identity, args=(numbers,))
            return self.strategy.reduce(tf.distribute.ReduceOp.SUM, per_replica, axis=None)

        return collect

    def local_replica_index(self) -> int:
        """Gives the number of the replica that calls this among those of its worker."""
        if self.num_local_replicas == 1:
            return 0
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        return int(tf.get_static_value(index)) % self.num_local_replicas

    def _share(self, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Cuts the share of the replica that calls this out of its worker's batch."""
        if self.num_local_replicas == 1:
            return dict(batch)
        position = self.local_replica_index()
        # On the host, so that only the share goes to the device.
        with tf.device("CPU:0"):
            return {
                key: tf.split(value, self.num_local_replicas)[position]
                for key, value in batch.items()
            }


def place(devices: str) -> Placement:
    """Chooses devices and strategy; to be called before TensorFlow computes anything.

    Args:
        devices: as ``TrainerConfig.devices``.

    Returns:
        One device; several devices of this machine (``MirroredStrategy``); or those of several
        workers (``MultiWorkerMirroredStrategy``), if the environment describes a cluster.

    Raises:
        ValueError: if a GPU is asked for that is not there, the cluster is described wrongly, a
            worker does not find the others, or TensorFlow was already started with fewer logical
            devices.
    """
    cluster = read_cluster(os.environ)
    names = _device_names(devices)
    if cluster:
        addresses, index = cluster
        return _place_on_workers(names, addresses, index)
    if len(names) == 1:
        strategy = tf.distribute.OneDeviceStrategy(names[0])
    elif names[0].startswith("CPU"):
        # Logical devices share one memory; collective operations between them would only wait, and
        # two strategies of different size in one process would get in each other's way.
        strategy = tf.distribute.MirroredStrategy(
            names, cross_device_ops=tf.distribute.ReductionToOneDevice()
        )
    else:
        strategy = tf.distribute.MirroredStrategy(names)
    logger.info("training on %s", ", ".join(names))
    return Placement(strategy=strategy)


def sum_over_replicas(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Sums each tensor over all replicas; to be called inside of a replica."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return list(tensors)
    return list(context.all_reduce(tf.distribute.ReduceOp.SUM, list(tensors)))


def local_handle(variable: tf.Variable) -> tf.Tensor:
    """Gives the resource of a variable on the replica that calls this.

    An update of the resource stays on the replica; when all replicas do the same with the same
    numbers, their variables stay equal, and nothing has to be sent.
    """
    return variable.handle


def read_cluster(environment: Mapping[str, str]) -> tuple[list[str], int] | None:
    """Reads from the environment which workers train together.

    Args:
        environment: may have ``TF_CONFIG``; or ``JOB_COMPLETION_INDEX`` of an Indexed Job, with
            ``NUM_WORKERS`` and ``WORKER_ADDRESS``.

    Returns:
        The addresses of all workers, chief first, and which of them this is; ``None`` for one
        worker alone.

    Raises:
        ValueError: if the variables do not describe a cluster.

    Source: tf.distribute.cluster_resolver.TFConfigClusterResolver; Kubernetes, Indexed Job.
    """
    if TF_CONFIG in environment:
        return _read_tf_config(environment[TF_CONFIG])
    given = [name for name in (NUM_WORKERS, WORKER_ADDRESS) if environment.get(name)]
    if not given:
        return None
    missing = {JOB_INDEX, NUM_WORKERS, WORKER_ADDRESS} - {n for n in environment if environment[n]}
    if missing:
        raise ValueError(
            f"the environment has {' and '.join(given)}, but not {', '.join(sorted(missing))}; "
            "an Indexed Job that trains on several pods needs all three, one alone none of them"
        )
    count, index = environment[NUM_WORKERS], environment[JOB_INDEX]
    if not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
        raise ValueError(
            f"{NUM_WORKERS} is {count!r} and {JOB_INDEX} {index!r}; expected a number of workers "
            "and the place of this one among them, counted from 0"
        )
    pattern = environment[WORKER_ADDRESS]
    if "{index}" not in pattern or ":" not in pattern:
        raise ValueError(
            f"{WORKER_ADDRESS} is {pattern!r}; expected host and port with the place of the worker "
            "in it, such as train-{index}.train:2222"
        )
    if int(count) == 1:
        return None
    return [pattern.replace("{index}", str(each)) for each in range(int(count))], int(index)


def is_alone() -> bool:
    """Tells whether the environment describes one worker only.

    Raises:
        ValueError: if it describes a cluster wrongly.
    """
    return read_cluster(os.environ) is None


def _read_tf_config(text: str) -> tuple[list[str], int] | None:
    """Reads the workers from ``TF_CONFIG``; one worker alone is no cluster."""
    try:
        document = json.loads(text)
        cluster, task = document["cluster"], document["task"]
        addresses = [*cluster.get("chief", []), *cluster.get("worker", [])]
        index = int(task["index"]) + (len(cluster.get("chief", [])) * (task["type"] == "worker"))
        is_known = task["type"] in ("chief", "worker") and task["type"] in cluster
    except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{TF_CONFIG} is {text!r}, which does not describe a cluster ({error!r}); expected "
            '{"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}'
        ) from error
    if not is_known or not 0 <= index < len(addresses):
        raise ValueError(
            f"{TF_CONFIG} says that this is {task['type']} {task['index']}, but its cluster has "
            f"{', '.join(f'{len(hosts)} {kind}' for kind, hosts in cluster.items())}; expected one "
            "of its chief or worker tasks"
        )
    return (addresses, index) if len(addresses) > 1 else None


def _device_names(devices: str) -> list[str]:
    """Gives the names of this worker's devices, such as ``GPU:0``."""
    num_gpus = len(tf.config.list_physical_devices("GPU"))
    kind, _, which = devices.partition(":")
    if kind == AUTO:
        kind = "gpu" if num_gpus else "cpu"
        if not num_gpus:
            logger.info(
                "no GPU found: the full size is slow on a CPU, --image-size 128 --filters 16 is not"
            )
    if kind == "cpu":
        count = int(which or 1)
        _make_logical_cpu_devices(count)
        return [f"CPU:{index}" for index in range(count)]
    indices = [int(index) for index in which.split(",")] if which else list(range(num_gpus))
    missing = [index for index in indices if index >= num_gpus]
    if missing or not indices:
        raise ValueError(
            f"--devices is {devices}, but TensorFlow sees "
            f"{f'{num_gpus} GPUs, numbered from 0' if num_gpus else 'no GPU'}; name others, or "
            "check the driver and CUDA_VISIBLE_DEVICES (`make setup GPU=1` installs the CUDA "
            "libraries; a pod needs the limit nvidia.com/gpu and the image with CUDA)"
        )
    return [f"GPU:{index}" for index in dict.fromkeys(indices)]


def _place_on_workers(names: Sequence[str], addresses: Sequence[str], index: int) -> Placement:
    if names[0].startswith("CPU") and len(names) > 1:
        raise ValueError(
            f"--devices asks for {len(names)} logical CPU devices on each of {len(addresses)} "
            "workers; expected one device on a worker without GPUs: --devices cpu"
        )
    if names[0].startswith("GPU"):
        gpus = tf.config.list_physical_devices("GPU")
        # The strategy takes every GPU that it sees.
        chosen = [gpus[int(name.partition(":")[2])] for name in names]
        tf.config.set_visible_devices(chosen, "GPU")
    else:
        tf.config.set_visible_devices([], "GPU")
    # The strategy finds its cluster in this variable.
    os.environ[TF_CONFIG] = json.dumps(
        {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}}
    )
    logger.info("worker %d of %d waits for the others", index, len(addresses))
    meet(addresses, index, peers_s=_wait_s(os.environ))
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    logger.info("worker %d of %d trains on %s", index, len(addresses), ", ".join(names))
    return Placement(strategy=strategy, num_workers=len(addresses), worker_index=index)


def _wait_s(environment: Mapping[str, str]) -> float:
    text = environment.get(WORKER_WAIT, str(PEERS_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{WORKER_WAIT} is {text!r}; expected seconds, such as {PEERS_S:g}")
    return seconds


def _make_logical_cpu_devices(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    configured = tf.config.get_logical_device_configuration(cpu) or []
    if max(len(configured), 1) >= count:
        return
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError as error:
        raise ValueError(
            f"{count} logical CPU devices are wanted, but TensorFlow was started with "
            f"{max(len(configured), 1)}; choose the devices before anything else runs"
        ) from error
