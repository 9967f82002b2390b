"""What TensorFlow raises far from its cause, in words that name the cause."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from preprocessing.manifest import DatasetManifest, ManifestError
from trainer.interruption import WorkerLostError


@contextmanager
def explained(data: Path, manifest: DatasetManifest) -> Iterator[None]:
    """Tells which shard is damaged, and what to do when memory runs out.

    Args:
        data: folder of the dataset that is read in the block.
        manifest: of that dataset.

    Raises:
        ManifestError: if a record cannot be read.
        ValueError: if the memory of a device is exhausted.
        WorkerLostError: if another worker of the training does not answer any more.
    """
    try:
        yield
    except tf.errors.DataLossError as error:
        damaged = ", ".join(damaged_shards(data, manifest)) or f"a shard of {data}"
        raise ManifestError(
            f"{damaged} is damaged: its SHA-256 is not the one in dataset.json; copy it again or "
            "write the dataset again"
        ) from error
    except tf.errors.ResourceExhaustedError as error:
        raise ValueError(
            "the memory of a device is exhausted; lower --global-batch-size, --image-size or "
            f"--filters, use more devices, or raise --accumulation-steps ({_first_line(error)})"
        ) from error
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        raise WorkerLostError(
            "another worker is gone, so training cannot go on; start all workers again, and they "
            f"go on from the last checkpoint ({type(error).__name__})"
        ) from error


def damaged_shards(data: Path, manifest: DatasetManifest) -> list[str]:
    """Reads every shard and gives the paths of those that are not as ``dataset.json`` says."""
    damaged = []
    for split in manifest.splits.values():
        for shard in split.shards:
            with (data / shard.filename).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
                    damaged.append(str(data / shard.filename))
    return damaged


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
