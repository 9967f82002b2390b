"""The folder of a run: whose it is, its checkpoints, and how to get its model back."""

import logging
from pathlib import Path

import keras
import tensorflow as tf

from preprocessing.publish import write_text
from trainer.config import TrainerConfig
from trainer.model import build_unet

logger = logging.getLogger(__name__)

MAY_CHANGE = ("data", "out", "num_replicas", "cache")
"""Settings that may differ when a run goes on: they do not change what it computes."""


def claim(config: TrainerConfig) -> None:
    """Makes the folder, or checks that it holds the same run, which then goes on.

    Raises:
        ValueError: if the folder holds something else.
    """
    path = config.out / "config.json"
    if not path.exists():
        if config.out.exists() and any(config.out.iterdir()):
            raise ValueError(
                f"--out {config.out} is not empty and holds no training run; choose another folder"
            )
        write_text(path, config.to_json())
        return
    earlier = TrainerConfig.load(config.out)
    differences = [
        f"--{name.replace('_', '-')} {getattr(earlier, name)} there, {value} here"
        for name, value in vars(config).items()
        if name not in MAY_CHANGE and getattr(earlier, name) != value
    ]
    if differences:
        raise ValueError(
            f"--out {config.out} holds another run ({'; '.join(differences)}); choose another "
            "folder, or give the same settings to go on with that run"
        )


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
        """Restores the last epoch's state, if there is one; gives that epoch's number or 0."""
        path = self._latest.latest_checkpoint
        if path is None:
            return 0
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
        ValueError: if the folder holds no run, or no epoch of it has ended yet.
    """
    config = TrainerConfig.load(run_dir)
    path = tf.train.latest_checkpoint(str(_best_dir(run_dir)))
    if path is None:
        raise ValueError(f"{run_dir} holds no checkpoint yet: train it for an epoch at least")
    model = model_of(config)
    tf.train.Checkpoint(model=model).restore(
        path
    ).assert_existing_objects_matched().expect_partial()
    return config, model


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
