"""What is changed at random on training, how much, and in which unit."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

FLIPS = ("none", "horizontal", "horizontal_and_vertical")


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """One setting for each kind of change, in the order in which they happen; 0 is none.

    A *share* of slices is drawn by chance, slice by slice. The defaults are those of the reference
    recipe.
    """

    flip: str = "horizontal"
    """``none``; ``horizontal``: half of the slices; ``horizontal_and_vertical``: a quarter
    upside down besides, as most patients lie on their backs."""

    quarter_turns: float = 0.0
    """Share of slices turned by 90 degrees: other programs write rows for columns."""

    rotation_degrees: float = 10.0
    """Rotation, uniform between minus and plus this many degrees."""

    magnify: float = 0.0
    """Smaller field of view: magnified by 1 plus this at most, log-uniform."""

    shrink: float = 0.0
    """Larger field of view: shrunk by 1 plus this at most, log-uniform."""

    stretch: float = 0.0
    """Width against height changes by a factor of 1 plus this at most, or one over it."""

    translation: float = 0.0
    """Shift in each axis, uniform, at most by this share of the image."""

    crop_to_body: float = 0.0
    """Share of slices whose field of view is fitted to the lungs and a margin around them."""

    elastic: float = 0.0
    """Elastic deformation of a fifth of the slices: standard deviation of the shifts at the nodes
    of a coarse grid, at most, as a share of the image."""

    background_removal: float = 0.0
    """Share of slices on which all outside of the body becomes black: couch, arms, blankets."""

    couch: float = 0.0
    """Share of slices under which a couch is drawn."""

    gantry_circle: float = 0.0
    """Share of slices that are cut to the circle that a scanner reconstructs."""

    low_resolution: float = 0.0
    """A third of the slices are sampled at a resolution lower by a factor of 1 plus this at most,
    and enlarged again."""

    blur: float = 0.0
    """Smoother kernel, for a third of the slices: share, at most, by which each pixel goes to the
    mean of its neighbors."""

    sharpen: float = 0.0
    """Sharper kernel, for a third of the slices: unsharp masking by this much at most."""

    noise: float = 0.0
    """Noise of half of the slices, white, smooth or grainy: largest standard deviation, in gray
    values."""

    window: float = 0.0
    """Other display windows for two thirds of the slices: how far level and width go from those of
    the slice (0) to any from a soft-tissue window to a very wide one (1)."""

    brightness: float = 0.0
    """Shift of all gray values, uniform, at most this many to either side."""

    contrast: float = 0.0
    """Distances from the mean gray value grow by 1 plus this at most, or shrink by one over it."""

    gamma: float = 0.0
    """The exponent of the gray values is at most 1 plus this, or one over it."""

    local_contrast: float = 0.0
    """Share of slices whose contrast is made equal everywhere, by clipped histograms of tiles."""

    invert: float = 0.0
    """Share of slices whose black becomes white."""

    def __post_init__(self) -> None:
        """Checks values.

        Raises:
            ValueError: if a value cannot work; the message names the flag.
        """
        check(self, ("flip",), f"one of {', '.join(FLIPS)}", lambda value: value in FLIPS)
        check(self, ("rotation_degrees",), "0 to 180", lambda value: 0 <= value <= 180)
        shares = ("quarter_turns", "crop_to_body", "background_removal", "couch", "gantry_circle")
        check(
            self,
            (*shares, "blur", "window", "local_contrast", "invert"),
            "0 to 1",
            lambda value: 0 <= value <= 1,
        )
        check(
            self,
            ("translation", "elastic"),
            "at least 0 and less than 1",
            lambda value: 0 <= value < 1,
        )
        check(
            self,
            (
                *("magnify", "shrink", "stretch", "low_resolution", "sharpen", "noise"),
                *("brightness", "contrast", "gamma"),
            ),
            "0 or more",
            lambda value: 0 <= value < math.inf,
        )


def check(
    config: object, names: Sequence[str], expected: str, holds: Callable[[Any], bool]
) -> None:
    """Checks some settings.

    Args:
        config: the record that has them.
        names: of the settings.
        expected: what the message says of them.
        holds: tells of a value whether it can work.

    Raises:
        ValueError: if one of them cannot; the message names its flag.
    """
    for name in names:
        value = getattr(config, name)
        if not holds(value):
            raise ValueError(f"--{name.replace('_', '-')} is {value!r}; expected {expected}")
