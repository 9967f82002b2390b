"""Everything that a training run depends on, in one frozen record."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

CONFIG_FILENAME = "config.json"
"""Name of a run's configuration in its folder."""

PRECISIONS = ("float32", "mixed_bfloat16")
FLIPS = ("none", "horizontal", "horizontal_and_vertical")
CACHES = ("auto", "memory", "none")


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """Settings of ``python -m trainer train``; the defaults are the reference recipe."""

    data: Path
    """Folder with ``dataset.json`` and its shards."""

    out: Path
    """Folder of the run: checkpoints, curves, pictures, metrics. A run that was stopped goes on."""

    image_size: int = 512
    """Height and width that the model works at, in pixels; slices are scaled to it."""

    filters: int = 64
    """Filters of the first level of the U-Net; each level below has twice as many."""

    depth: int = 4
    """Number of times that the U-Net halves the image."""

    global_batch_size: int = 8
    """Slices in one optimizer step, summed over all replicas."""

    epochs: int = 50
    """Passes over the training split, at most."""

    patience: int = 5
    """Stop after this many epochs without a lower validation loss."""

    learning_rate: float = 1e-3
    """Of Adam."""

    precision: str = "float32"
    """``float32``, or ``mixed_bfloat16``: computing in bfloat16, weights in float32."""

    flip: str = "horizontal"
    """Random flips on training: ``none``, ``horizontal`` or ``horizontal_and_vertical``."""

    rotation_degrees: float = 10.0
    """Random rotation on training: uniform between minus and plus this many degrees."""

    num_replicas: int | None = None
    """Devices to train on; ``None``: every GPU, or two logical CPU devices where there is none."""

    cache: str = "auto"
    """Keep decoded slices in memory: ``memory``, ``none``, or ``auto``: when they fit."""

    seed: int = 0
    """Start of every random sequence: weights, order of slices, augmentation."""

    def __post_init__(self) -> None:
        """Checks values.

        Raises:
            ValueError: if a value cannot work; the message names the flag.
        """
        for name in ("image_size", "filters", "depth", "global_batch_size", "epochs", "patience"):
            _require(self, name, getattr(self, name) >= 1, "at least 1")
        _require(self, "learning_rate", self.learning_rate > 0, "more than 0")
        _require(self, "rotation_degrees", 0 <= self.rotation_degrees <= 180, "0 to 180")
        _require(self, "seed", 0 <= self.seed < 2**31, "0 to 2147483647")
        _require(self, "precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        _require(self, "flip", self.flip in FLIPS, f"one of {', '.join(FLIPS)}")
        _require(self, "cache", self.cache in CACHES, f"one of {', '.join(CACHES)}")
        _require(
            self, "num_replicas", self.num_replicas is None or self.num_replicas >= 1, "at least 1"
        )
        factor = 2**self.depth
        if self.image_size % factor:
            raise ValueError(
                f"--image-size is {self.image_size}; a U-Net of --depth {self.depth} halves the "
                f"image {self.depth} times, so expected a multiple of {factor}, such as "
                f"{max(factor, round(self.image_size / factor) * factor)}"
            )

    def to_json(self) -> str:
        """Gives the text of ``config.json``; paths are absolute, so it is right from anywhere."""
        values = {
            name: str(value.absolute()) if isinstance(value, Path) else value
            for name, value in dataclasses.asdict(self).items()
        }
        return json.dumps(values, indent=2) + "\n"

    def recipe_to_json(self) -> str:
        """Gives the same without paths, for the model that leaves this machine."""
        values = dataclasses.asdict(self)
        del values["data"], values["out"]
        return json.dumps(values, indent=2) + "\n"

    @classmethod
    def load(cls, run_dir: Path) -> Self:
        """Reads the configuration of a run.

        Args:
            run_dir: folder that ``trainer train`` wrote to.

        Raises:
            ValueError: if the folder holds no configuration that this version can read.
        """
        path = run_dir / CONFIG_FILENAME
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**values, "data": Path(values["data"]), "out": Path(values["out"])})
        except FileNotFoundError as error:
            raise ValueError(
                f"{run_dir} is no training run: it holds no config.json; "
                "point to the OUT folder of `make train-multigpu`"
            ) from error
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} cannot be read as a configuration of this version: {error!r}"
            ) from error


def _require(config: TrainerConfig, name: str, holds: bool, expected: str) -> None:
    if not holds:
        flag = f"--{name.replace('_', '-')}"
        raise ValueError(f"{flag} is {getattr(config, name)!r}; expected {expected}")
