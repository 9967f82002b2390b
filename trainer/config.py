"""Everything that a training run depends on, in one frozen record."""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from trainer.augmentation.config import AugmentationConfig, check

CONFIG_FILENAME = "config.json"
"""Name of a run's configuration in its folder, and in that of each checkpoint."""

AUTO = "auto"
PRECISIONS = (AUTO, "float32", "tf32", "bfloat16", "float16")
EXPORT_PRECISIONS = ("float32", "bfloat16")
"""bfloat16 is for processors and GPUs that multiply such numbers, and loses time elsewhere;
float16 has too small a range for this network without a scaled loss."""
CACHES = (AUTO, "memory", "disk", "none")
NORMALIZATIONS = ("none", "instance")
LOSSES = ("bce", "bce_dice")
SCHEDULES = ("constant", "cosine", "cosine_by_size")
RESUMES = (AUTO, "always", "never")
REDUCTIONS = (4, 2, 1)
"""By what the size of a slice is divided in training, one after the other."""
DEVICES = re.compile(r"auto|cpu(:[1-9][0-9]*)?|gpu(:[0-9]+(,[0-9]+)*)?")


@dataclass(frozen=True, kw_only=True)
class TrainerConfig(AugmentationConfig):
    """Settings of ``python -m trainer train``, with those of augmentation.

    The defaults are the reference recipe.
    """

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

    normalization: str = "none"
    """``none``, or ``instance``: each channel of each slice to mean 0 and deviation 1."""

    global_batch_size: int = 8
    """Slices in one optimizer step, summed over all replicas."""

    accumulation_steps: int = 1
    """Parts in which a replica computes its share of a step, one after the other: less memory, and
    the same result."""

    epochs: int = 50
    """Passes over the training split, at most."""

    coarse_share: float = 0.0
    """Share of the epochs, at the start, that train at a smaller size, in a fraction of the time:
    the first half of them at a quarter of the height and width, the others at half. All of them at
    half, where a quarter is too small for the depth."""

    patience: int = 5
    """Stop after this many epochs without a lower validation loss."""

    loss: str = "bce"
    """``bce``: binary cross-entropy; ``bce_dice``: plus one minus the soft Dice of each slice,
    and a tenth of cross-entropy over its lung."""

    learning_rate: float = 1e-3
    """Of Adam, at its highest."""

    schedule: str = "constant"
    """Of the learning rate: ``constant``, or ``cosine``: falling to 0 at the last epoch; with
    ``cosine_by_size`` a coarse epoch counts for less of the way, by the height of its slices."""

    warmup_epochs: float = 0.0
    """Epochs in which the learning rate rises from 0, at the start."""

    clip_norm: float = 0.0
    """Largest norm of the whole gradient; a larger one is scaled down. 0: as it is."""

    ema_decay: float = 0.0
    """Decay of the moving average of the weights, which is then what is measured and served. 0: the
    weights themselves."""

    phantom_share: float = 0.0
    """Share of the slices of an epoch that are phantoms, on training only: all slices of the
    training split once, and as many phantoms as make up that share. 1: all phantoms once, alone."""

    phantoms: int = 2000
    """How many phantoms are drawn at the start, if there is a share for them."""

    hold_out: str | None = None
    """Patient whose slices are the validation split, whatever split the dataset has; all others
    are trained on. ``None``: the split of the dataset."""

    precision: str = "float32"
    """What is computed in; weights are float32 always. ``auto``: bfloat16 or float16 where the
    device is fast in it. ``tf32`` is for GPUs."""

    devices: str = AUTO
    """``auto``: every GPU, or the CPU where there is none; ``gpu``, ``gpu:0,2``, ``cpu``, or
    ``cpu:N`` for N logical devices."""

    xla: bool = False
    """Compile the gradient of a step with XLA: for GPUs; a CPU gets slower."""

    deterministic: bool = False
    """Let TensorFlow use only operations that give the same bits in each run."""

    cache: str = AUTO
    """Where decoded slices are kept: ``memory``, ``disk``, ``none``, or ``auto``: the first in
    which they fit."""

    checkpoint_minutes: float = 10.0
    """Minutes after which the state is saved within an epoch; it is saved after each epoch too."""

    checkpoint_steps: int | None = None
    """Steps after which the state is saved within an epoch, besides; ``None``: by time only."""

    resume: str = AUTO
    """``auto``: go on with the run in ``out``, if there is one; ``always``: there must be one;
    ``never``: there must be none."""

    seed: int = 0
    """Start of every random sequence: weights, order of slices, augmentation."""

    def __post_init__(self) -> None:
        """Checks values.

        Raises:
            ValueError: if a value cannot work; the message names the flag.
        """
        super().__post_init__()
        counts = ("image_size", "filters", "depth", "global_batch_size", "accumulation_steps")
        check(self, (*counts, "epochs", "patience", "phantoms"), "at least 1", lambda n: n >= 1)
        for name, choices in _CHOICES.items():
            check(self, (name,), f"one of {', '.join(choices)}", choices.__contains__)
        check(self, ("warmup_epochs", "clip_norm"), "0 or more", lambda n: 0 <= n < math.inf)
        check(self, ("learning_rate",), "more than 0", lambda rate: 0 < rate < math.inf)
        check(self, ("ema_decay",), "at least 0 and less than 1", lambda n: 0 <= n < 1)
        check(self, ("phantom_share",), "0 to 1", lambda share: 0 <= share <= 1)
        check(self, ("checkpoint_minutes",), "more than 0", lambda n: n > 0)
        check(self, ("checkpoint_steps",), "at least 1", lambda n: n is None or n >= 1)
        check(self, ("seed",), "0 to 2147483647", lambda n: 0 <= n < 2**31)
        expected = "auto, gpu, gpu:0,2 (numbers of GPUs), cpu, or cpu:2 (how many logical devices)"
        check(self, ("devices",), expected, lambda text: bool(DEVICES.fullmatch(text)))
        if self.accumulation_steps > self.global_batch_size:
            raise ValueError(
                f"--accumulation-steps is {self.accumulation_steps}, but --global-batch-size is "
                f"{self.global_batch_size}; expected at most a part for each slice"
            )
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"--warmup-epochs is {self.warmup_epochs}, but there are {self.epochs} --epochs; "
                "expected fewer"
            )
        check(self, ("coarse_share",), "at least 0 and less than 1", lambda n: 0 <= n < 1)
        factor = 2 ** (self.depth + bool(self.coarse_share))
        if self.image_size % factor:
            raise ValueError(
                f"--image-size is {self.image_size}; a U-Net of --depth {self.depth} halves the "
                f"image {self.depth} times, and --coarse-share {self.coarse_share} once more if it "
                f"is not 0, so expected a multiple of {factor}, such as "
                f"{max(factor, round(self.image_size / factor) * factor)}"
            )

    def reduction(self, epoch: int) -> int:
        """Gives by what the size is divided in an epoch, counted from 1: by 4, by 2, or by 1.

        The last epoch is never a coarse one.
        """
        num_coarse = int(self.coarse_share * self.epochs)
        if epoch > num_coarse:
            return 1
        # At least 2 x 2 pixels at the bottom: a channel of one pixel would be normalized to 0.
        at_bottom = self.image_size / (4 * 2**self.depth)
        return 4 if epoch <= num_coarse // 2 and at_bottom >= 2 and at_bottom % 1 == 0 else 2

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
    def load(cls, folder: Path) -> Self:
        """Reads the configuration of a run.

        Args:
            folder: that ``trainer train`` wrote to, or that of a checkpoint of it.

        Raises:
            ValueError: if the folder holds no configuration that this version can read.
        """
        path = folder / CONFIG_FILENAME
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**values, "data": Path(values["data"]), "out": Path(values["out"])})
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ValueError(
                f"{folder} is no training run: it holds no config.json; "
                "point to the OUT folder of `make train-multigpu`"
            ) from error
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} cannot be read as a configuration of this version: {error!r}"
            ) from error


_CHOICES = {
    "normalization": NORMALIZATIONS,
    "loss": LOSSES,
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
    "cache": CACHES,
    "resume": RESUMES,
}

AUGMENTATION: Mapping[str, Any] = {
    "flip": "horizontal_and_vertical",
    "quarter_turns": 0.1,
    "rotation_degrees": 20.0,
    "magnify": 0.8,
    "shrink": 0.5,
    "stretch": 0.15,
    "translation": 0.1,
    "crop_to_body": 0.15,
    "elastic": 0.02,
    "background_removal": 0.15,
    "couch": 0.2,
    "gantry_circle": 0.2,
    "low_resolution": 2.0,
    "blur": 1.0,
    "sharpen": 1.0,
    "noise": 20.0,
    "window": 1.0,
    "brightness": 20.0,
    "contrast": 0.25,
    "gamma": 0.5,
    "local_contrast": 0.3,
}
"""What makes slices look as if they came from other scanners."""

_BEST: Mapping[str, Any] = {
    "image_size": 256,
    "filters": 16,
    "depth": 5,
    "normalization": "instance",
    "loss": "bce_dice",
    "global_batch_size": 4,
    "epochs": 48,
    "coarse_share": 0.9,
    "patience": 48,
    "learning_rate": 3e-3,
    "schedule": "cosine_by_size",
    "warmup_epochs": 1.0,
    "clip_norm": 1.0,
    "ema_decay": 0.99,
    **AUGMENTATION,
    "phantom_share": 0.5,
    "precision": AUTO,
}

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "reference": {},
    "best": _BEST,
    "best-full-size": {**_BEST, "image_size": 512, "filters": 64, "global_batch_size": 8},
}
"""What ``--recipe`` sets, where a flag does not set it: the reference is the defaults."""

OF_THE_TASK = (
    *("data", "out", "hold_out", "image_size", "filters", "depth", "global_batch_size", "seed"),
)
"""Settings that follow from what is to be done: they make no other recipe."""

OF_THE_MACHINE = (
    *("accumulation_steps", "devices", "xla", "deterministic", "cache"),
    *("checkpoint_minutes", "checkpoint_steps", "resume"),
)
"""Settings that follow from where it is done, and change its result by rounding at most."""


def make_config(recipe: str, **settings: Any) -> TrainerConfig:
    """Makes a configuration of a recipe and of what differs from it.

    Args:
        recipe: a key of ``RECIPES``.
        settings: fields of ``TrainerConfig``; they win over the recipe.

    Raises:
        ValueError: if there is no such recipe, or a value cannot work.
    """
    if recipe not in RECIPES:
        raise ValueError(f"--recipe is {recipe!r}; expected one of {', '.join(RECIPES)}")
    return TrainerConfig(**{**RECIPES[recipe], **settings})


def describe_recipe(config: TrainerConfig) -> str:
    """Names the recipe that a configuration is nearest to, and what differs from it."""
    differences = {
        name: [
            f"--{field.name.replace('_', '-')} {getattr(config, field.name)}"
            for field in dataclasses.fields(config)
            if field.name not in (*OF_THE_TASK, *OF_THE_MACHINE)
            and getattr(config, field.name) != values.get(field.name, field.default)
            # What "auto" was resolved to on this machine is no other recipe.
            and values.get(field.name, field.default) != AUTO
        ]
        for name, values in RECIPES.items()
    }
    name = min(differences, key=lambda key: len(differences[key]))
    return f"{name}, but {' '.join(differences[name])}" if differences[name] else name
