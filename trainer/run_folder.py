"""The folder of a run: whose it is, its checkpoints, and how to get its model back."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf

from preprocessing.manifest import FILENAME, DatasetManifest, ManifestError
from preprocessing.publish import write_text
from trainer.config import CONFIG_FILENAME, TrainerConfig
from trainer.model import build_unet

MAY_CHANGE = ("data", "out", "num_replicas", "cache", "epochs", "patience")
"""Settings that may differ when a run goes on: they do not change what an epoch computes."""

PATTERN_CHARACTERS = "*?[]\\"
"""TensorFlow takes the path of a checkpoint for a pattern, so these cannot be part of it."""


@contextmanager
def claimed(config: TrainerConfig, manifest: DatasetManifest) -> Iterator[None]:
    """Holds the folder of a run: a new one, or the same run's, which then goes on.

    The folder keeps the configuration, and the manifest of the dataset that the run is trained on.

    Args:
        config: of the run; the dataset may stand elsewhere than when the run began.
        manifest: of the dataset.

    Raises:
        ValueError: if the folder holds something else, another process trains in it, or it cannot
            be written.
    """
    _check_path(config.out)
    try:
        config.out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(config.out, os.O_RDONLY)
    except OSError as error:
        raise ValueError(
            f"--out {config.out} cannot be a folder: {error.strerror}; choose another"
        ) from error
    try:
        _lock(descriptor, config.out)
        if (config.out / CONFIG_FILENAME).exists():
            _check_same_run(config, manifest)
        elif any(config.out.iterdir()):
            raise ValueError(
                f"--out {config.out} is not empty and holds no training run; choose another folder"
            )
        try:
            write_text(config.out / CONFIG_FILENAME, config.to_json())
            write_text(config.out / FILENAME, manifest.to_json())
        except OSError as error:
            raise ValueError(
                f"--out {config.out} cannot be written: {error.strerror}; choose another folder"
            ) from error
        yield
    finally:
        os.close(descriptor)


class Checkpoints:
    """The state after the last epoch, to go on from, and the weights of the best epoch.

    Under ``checkpoints/latest`` and ``checkpoints/best``.
    """

    def __init__(self, run_dir: Path, model: keras.Model, optimizer: keras.Optimizer) -> None:
        """Sets up; nothing is read or written yet."""
        self._epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._latest = tf.train.CheckpointManager(
            tf.train.Checkpoint(model=model, optimizer=optimizer, epoch=self._epoch),
            str(run_dir / "checkpoints" / "latest"),
            max_to_keep=2,
        )
        self._best = tf.train.CheckpointManager(
            tf.train.Checkpoint(model=model), str(_best_dir(run_dir)), max_to_keep=1
        )

    def restore(self) -> int:
        """Restores the last epoch's state, if there is one; gives that epoch's number or 0.

        Raises:
            ValueError: if the checkpoint is damaged.
        """
        path = self._latest.latest_checkpoint
        if path is None:
            return 0
        with _damage_explained(path):
            self._latest.checkpoint.restore(path).assert_existing_objects_matched()
        return int(self._epoch.numpy())

    def save(self, *, epoch: int, is_best: bool) -> None:
        """Saves the state after an epoch."""
        if is_best:
            self._best.save(checkpoint_number=epoch)
        self._epoch.assign(epoch)
        self._latest.save(checkpoint_number=epoch)


def load_best_model(run_dir: Path) -> tuple[TrainerConfig, keras.Model]:
    """Builds the model of a run with the weights of its best epoch, on the default device.

    Raises:
        ValueError: if the folder holds no run, no epoch of it has ended yet, or its checkpoint is
            damaged.
    """
    config = TrainerConfig.load(run_dir)
    _check_path(run_dir)
    path = tf.train.latest_checkpoint(str(_best_dir(run_dir)))
    if path is None:
        raise ValueError(f"{run_dir} holds no checkpoint yet: train it for an epoch at least")
    model = model_of(config)
    with _damage_explained(path):
        restored = tf.train.Checkpoint(model=model).restore(path)
        restored.assert_existing_objects_matched().expect_partial()
    return config, model


def load_manifest(
    run_dir: Path, config: TrainerConfig, data: Path | None
) -> tuple[Path, DatasetManifest]:
    """Finds a dataset to measure a run on.

    Args:
        run_dir: folder of the run, for messages.
        config: of the run.
        data: folder of a dataset; ``None``: the one that the run was trained on.

    Returns:
        The dataset's folder and its manifest.

    Raises:
        ManifestError: if there is no dataset.
    """
    if data is not None:
        return data, DatasetManifest.load(data)
    try:
        return config.data, DatasetManifest.load(config.data)
    except ManifestError as error:
        raise ManifestError(
            f"{run_dir} was trained on {config.data}, which cannot be used any more: {error}; or "
            "give --data, where the dataset is now"
        ) from error


def model_of(config: TrainerConfig) -> keras.Model:
    """Builds the U-Net that a configuration describes, with its initial weights."""
    return build_unet(
        image_size=config.image_size,
        filters=config.filters,
        depth=config.depth,
        precision=config.precision,
        seed=config.seed,
    )


def _best_dir(run_dir: Path) -> Path:
    return run_dir / "checkpoints" / "best"


def _check_path(run_dir: Path) -> None:
    found = sorted(set(PATTERN_CHARACTERS) & set(str(run_dir)))
    if found:
        raise ValueError(
            f"the path of the run is {run_dir}; TensorFlow cannot keep checkpoints below a name "
            f"with {' '.join(found)}; choose another folder"
        )


def _lock(descriptor: int, run_dir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(
            f"another process trains in --out {run_dir}; wait for it or choose another folder"
        ) from error


def _check_same_run(config: TrainerConfig, manifest: DatasetManifest) -> None:
    earlier = TrainerConfig.load(config.out)
    differences = [
        f"--{name.replace('_', '-')} {getattr(earlier, name)} there, {value} here"
        for name, value in vars(config).items()
        if name not in MAY_CHANGE and getattr(earlier, name) != value
    ]
    # The manifest is written after the configuration: a kill between the two leaves it out.
    if (config.out / FILENAME).exists():
        trained_on = DatasetManifest.load(config.out)
        if trained_on.splits != manifest.splits:
            differences.append(f"another dataset than the one in {config.data}")
    if differences:
        raise ValueError(
            f"--out {config.out} holds another run ({'; '.join(differences)}); choose another "
            "folder, or give the same settings to go on with that run"
        )


@contextlib.contextmanager
def _damage_explained(path: str) -> Iterator[None]:
    try:
        yield
    except (tf.errors.OpError, IndexError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"the checkpoint {path} is damaged ({reason}); restore it from a copy, or train anew "
            "in another folder"
        ) from error
