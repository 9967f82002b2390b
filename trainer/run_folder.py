"""The folder of a run: whose it is, and how to get its model and its dataset back."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from preprocessing.manifest import FILENAME, DatasetManifest, ManifestError
from preprocessing.publish import write_text
from trainer.checkpoints import (
    best_checkpoint,
    has_checkpoint,
    is_checkpoint,
    load_checkpoint_model,
)
from trainer.config import CONFIG_FILENAME, OF_THE_MACHINE, TrainerConfig
from trainer.model import UNet

MAY_CHANGE = ("data", "out", "epochs", "patience", *OF_THE_MACHINE)
"""Settings that may differ when a run goes on: they do not change what an epoch computes."""


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
    try:
        config.out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(config.out, os.O_RDONLY)
    except OSError as error:
        raise ValueError(
            f"--out {config.out} cannot be a folder: {error.strerror}; choose another"
        ) from error
    try:
        _lock(descriptor, config.out)
        _remove_abandoned(config.out)
        _check_resume(config)
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


def load_best_model(run_dir: Path) -> tuple[TrainerConfig, UNet]:
    """Builds the model of a run with the weights of its best epoch, on the default device.

    Returns:
        The configuration of the run as it is now (a dataset may have moved), and the model.

    Raises:
        ValueError: if the folder holds no run, no epoch of it has ended yet, or its checkpoint is
            damaged.
    """
    config = TrainerConfig.load(run_dir)
    folder = best_checkpoint(run_dir)
    if folder is None and is_checkpoint(run_dir):
        raise ValueError(
            f"{run_dir} is a checkpoint of a run; name the folder of the run, or evaluate it with "
            "--checkpoint"
        )
    if folder is None:
        raise ValueError(f"{run_dir} holds no checkpoint yet: train it for an epoch at least")
    _, model = load_checkpoint_model(folder)
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


def _lock(descriptor: int, run_dir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(
            f"another process trains in --out {run_dir}; wait for it or choose another folder"
        ) from error


def _remove_abandoned(run_dir: Path) -> None:
    """Removes what a killed process had not written to its end; only this one writes here now."""
    for entry in [*run_dir.glob(".*.partial*"), *run_dir.glob("c*/**/.*.partial*")]:
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def _check_resume(config: TrainerConfig) -> None:
    is_run = (config.out / CONFIG_FILENAME).exists()
    if config.resume == "never" and is_run:
        raise ValueError(
            f"--resume is never, but --out {config.out} holds a training run; choose another "
            "folder, or remove that one"
        )
    if config.resume == "always" and not has_checkpoint(config.out):
        raise ValueError(
            f"--resume is always, but --out {config.out} holds no checkpoint of a run; name the "
            "folder of the run, or leave the flag out to begin one"
        )


def _check_same_run(config: TrainerConfig, manifest: DatasetManifest) -> None:
    earlier = TrainerConfig.load(config.out)
    differences = [
        f"--{name.replace('_', '-')} {getattr(earlier, name)} there, {value} here"
        for name, value in vars(config).items()
        if name not in MAY_CHANGE and getattr(earlier, name) != value
    ]
    if config.schedule != "constant" and earlier.epochs != config.epochs:
        differences.append(
            f"--epochs {earlier.epochs} there, {config.epochs} here, on which the learning rates "
            "of a cosine schedule depend"
        )
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
