"""Checkpoints: folders that appear whole or not at all, and hold all that a run needs to go on.

A checkpoint holds ``config.json``, ``progress.json``, and the weights that are measured and served,
``weights.npz``; one to go on from also holds ``training.npz``, the state of the optimizer and,
where the measured weights are an average, the weights that are trained. NumPy reads the arrays; the
names are those of Keras. Below a run: ``checkpoints/latest/epoch-0003-step-000120``, of which two
are kept, and ``checkpoints/best/epoch-0002``.
"""

import contextlib
import dataclasses
import json
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf

from preprocessing.publish import whole_folder, write_text
from trainer.config import CONFIG_FILENAME, TrainerConfig
from trainer.history import COLUMNS, Row, best_epoch
from trainer.metrics import TOTALS
from trainer.model import UNet
from trainer.optimizer import Optimizer
from trainer.precision import POLICIES

WEIGHTS, TRAINING, PROGRESS = "weights.npz", "training.npz", "progress.json"
NUM_KEPT = 2
"""Checkpoints to go on from that are kept: the one before the last is there if that is damaged."""

_LATEST_NAME = re.compile(r"epoch-(\d+)-step-(\d+)")
_BEST_NAME = re.compile(r"epoch-(\d+)")
_COPIES_ON_DISK = NUM_KEPT + 1
"""With the one that is being written."""


@dataclass(kw_only=True)
class Progress:
    """How far a run has come."""

    epoch: int = 1
    """Epoch that is under way, counted from 1."""

    step: int = 0
    """Steps of this epoch that are done."""

    totals: list[float] = field(default_factory=lambda: [0.0] * len(TOTALS))
    """Of these steps, in the order of ``metrics.TOTALS``."""

    rows: list[Row] = field(default_factory=list)
    """Of the epochs before, as in ``history.csv``."""


class Checkpoints:
    """Saves and restores the state of a run."""

    def __init__(
        self,
        config: TrainerConfig,
        *,
        trained: UNet,
        measured: UNet,
        optimizer: Optimizer,
    ) -> None:
        """Looks whether there is room on the disk; nothing is read or written yet.

        Args:
            config: gives the folder.
            trained: the model whose weights the optimizer changes.
            measured: the same, or another whose weights are an average of them.
            optimizer: has a state of its own.

        Raises:
            ValueError: if the disk has no room for the checkpoints.
        """
        self._config = config
        self._latest = config.out / "checkpoints" / "latest"
        self._best = best_dir(config.out)
        self._measured = _weights_of(measured)
        self._training = dict(optimizer.state)
        if measured is not trained:
            self._training |= _weights_of(trained)
        self._check_room()

    def restore(self) -> Progress:
        """Restores the newest state, if there is one.

        Raises:
            ValueError: if the checkpoint is damaged, or of another model.
        """
        folder = newest(self._latest, _LATEST_NAME)
        if folder is None:
            return Progress()
        _restore(folder / WEIGHTS, self._measured)
        _restore(folder / TRAINING, self._training)
        progress = read_progress(folder)
        # A kill between the two saves after an epoch: the weights of the best epoch are here.
        if _is_best(progress) and progress.step == 0:
            self._save_best(progress)
        return progress

    def save(self, progress: Progress) -> None:
        """Saves all that is needed to go on, and the best weights after an epoch.

        Raises:
            ValueError: if the disk is full; the checkpoints before this one stay.
        """
        name = f"epoch-{progress.epoch:04}-step-{progress.step:06}"
        self._write(self._latest / name, progress, with_training=True)
        for folder in _sorted(self._latest, _LATEST_NAME)[:-NUM_KEPT]:
            shutil.rmtree(folder)
        if _is_best(progress) and progress.step == 0:
            self._save_best(progress)

    def _save_best(self, progress: Progress) -> None:
        folder = self._best / f"epoch-{best_epoch(progress.rows):04}"
        self._write(folder, progress, with_training=False)
        for other in _sorted(self._best, _BEST_NAME):
            if other != folder:
                shutil.rmtree(other)

    def _write(self, folder: Path, progress: Progress, *, with_training: bool) -> None:
        if folder.exists():
            return  # the same state
        try:
            with whole_folder(folder) as aside:
                _save_arrays(aside / WEIGHTS, self._measured)
                if with_training:
                    _save_arrays(aside / TRAINING, self._training)
                write_text(aside / PROGRESS, json.dumps(dataclasses.asdict(progress)) + "\n")
                write_text(aside / CONFIG_FILENAME, self._config.to_json())
        except OSError as error:
            last = newest(self._latest, _LATEST_NAME)
            raise ValueError(
                f"the checkpoint {folder} cannot be written: {error.strerror or error}; make room "
                f"for {self._num_bytes / 2**20:.0f} MiB and give the same command again: the run "
                f"goes on {f'from {last.name}' if last else 'from its beginning'}"
            ) from error

    @property
    def _num_bytes(self) -> int:
        variables = [*self._measured.values(), *self._training.values()]
        return sum(int(np.prod(each.shape)) * each.dtype.size for each in variables)

    def _check_room(self) -> None:
        present = sum(
            file.stat().st_size
            for file in (self._config.out / "checkpoints").rglob("*")
            if file.is_file()
        )
        needed = _COPIES_ON_DISK * self._num_bytes - present
        free = shutil.disk_usage(self._config.out).free
        if needed > free:
            raise ValueError(
                f"the disk of --out {self._config.out} has {free / 2**20:.0f} MiB free, but the "
                f"checkpoints take {needed / 2**20:.0f} MiB; make room or choose another folder"
            )


def load_checkpoint_model(folder: Path) -> tuple[TrainerConfig, UNet]:
    """Builds the model of a checkpoint, on the default device.

    It computes in float32 whatever it was trained in: so it gives the same on every device, and
    what is measured is what is served.

    Args:
        folder: such as ``RUN/checkpoints/best/epoch-0002``.

    Returns:
        The configuration of its run, and the model with the weights that are measured and served.

    Raises:
        ValueError: if the folder is no checkpoint, is damaged, or is one of another model.
    """
    if not is_checkpoint(folder):
        raise ValueError(
            f"{folder} is no checkpoint: it holds no {WEIGHTS}; expected a folder such as "
            "RUN/checkpoints/best/epoch-0002"
        )
    config = TrainerConfig.load(folder)
    model = model_of(dataclasses.replace(config, precision="float32"))
    _restore(folder / WEIGHTS, _weights_of(model))
    return config, model


def is_checkpoint(folder: Path) -> bool:
    """Tells whether a folder is a checkpoint."""
    return (folder / WEIGHTS).is_file()


def best_checkpoint(run_dir: Path) -> Path | None:
    """Gives the folder of the best epoch's checkpoint, or ``None`` before an epoch has ended."""
    return newest(best_dir(run_dir), _BEST_NAME)


def best_dir(run_dir: Path) -> Path:
    """Gives the folder in which the best epoch's checkpoint lies."""
    return run_dir / "checkpoints" / "best"


def last_checkpoint(run_dir: Path) -> Path | None:
    """Gives the folder of the newest state to go on from, or ``None`` where there is none."""
    return newest(run_dir / "checkpoints" / "latest", _LATEST_NAME)


def has_checkpoint(run_dir: Path) -> bool:
    """Tells whether a run has a state to go on from."""
    return last_checkpoint(run_dir) is not None


def read_progress(folder: Path) -> Progress:
    """Reads how far the run of a checkpoint had come.

    Raises:
        ValueError: if the checkpoint is damaged, or was written by another version.
    """
    with _damage_explained(folder):
        progress = Progress(**json.loads((folder / PROGRESS).read_text(encoding="utf-8")))
    for row in progress.rows:
        if row.keys() != set(COLUMNS):
            different = ", ".join(sorted(row.keys() ^ set(COLUMNS)))
            raise ValueError(
                f"the checkpoint {folder} is of another version of this software: its epochs have "
                f"other figures than this one's ({different}); train anew in another folder, or go "
                "on with that version"
            )
    return progress


def newest(folder: Path, name: re.Pattern[str]) -> Path | None:
    """Gives the last of the checkpoints in a folder."""
    return next(reversed(_sorted(folder, name)), None)


def model_of(config: TrainerConfig) -> UNet:
    """Builds the U-Net that a configuration describes, with its initial weights."""
    return UNet(
        image_size=config.image_size,
        filters=config.filters,
        depth=config.depth,
        normalization=config.normalization,
        dtype_policy=POLICIES[config.precision],
        seed=config.seed,
    )


def _sorted(folder: Path, name: re.Pattern[str]) -> Sequence[Path]:
    """Lists checkpoints, by the numbers in their names; one that is being written has no such."""
    if not folder.is_dir():
        return []
    found = [(name.fullmatch(entry.name), entry) for entry in folder.iterdir()]
    numbered = [([int(each) for each in match.groups()], entry) for match, entry in found if match]
    return [entry for _, entry in sorted(numbered)]


def _is_best(progress: Progress) -> bool:
    return bool(progress.rows) and best_epoch(progress.rows) == progress.rows[-1]["epoch"]


def _weights_of(model: UNet) -> dict[str, tf.Variable]:
    return {weight.path: weight.value for weight in model.weights}


def _save_arrays(path: Path, variables: Mapping[str, tf.Variable]) -> None:
    arrays = {name: variable.numpy() for name, variable in variables.items()}
    np.savez(path, **arrays)


def _restore(path: Path, variables: Mapping[str, tf.Variable]) -> None:
    """Sets variables from a file.

    Raises:
        ValueError: if the file is damaged, or its arrays are not of these names and shapes.
    """
    # Opened here, as NumPy leaves a file open that it cannot read.
    with _damage_explained(path.parent), path.open("rb") as content, np.load(content) as file:
        arrays = {name: file[name] for name in file.files}
    expected = {name: tuple(variable.shape) for name, variable in variables.items()}
    found = {name: array.shape for name, array in arrays.items()}
    if expected != found:
        name = min(
            name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
        )
        raise ValueError(
            f"{path} is of another model than config.json beside it describes: {name} has shape "
            f"{list(found[name]) if name in found else 'none'} there, "
            f"{list(expected[name]) if name in expected else 'none'} here; restore the folder "
            "from a copy, or train anew in another one"
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])


@contextlib.contextmanager
def _damage_explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, OSError, EOFError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"the checkpoint {folder} is damaged ({error}); restore it from a copy, or remove it: "
            "the run then goes on from the checkpoint before it, if there is one"
        ) from error
