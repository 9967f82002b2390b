"""What happens to each slice, drawn from a seed: no pixel is touched here."""

import math
from collections.abc import Mapping
from typing import Final

import tensorflow as tf

from trainer.augmentation.config import AugmentationConfig

Draws = Mapping[str, tf.Tensor]
"""What happens to each slice of a batch; the first dimension of each tensor is the batch."""

ELASTIC_GRID: Final = 5
"""Nodes of an elastic deformation in each axis."""

ONE_OF_FIVE: Final = 1 / 5
ONE_OF_FOUR: Final = 1 / 4
ONE_OF_THREE: Final = 1 / 3
ONE_OF_TWO: Final = 1 / 2
TWO_OF_THREE: Final = 2 / 3
"""Shares of slices: most slices keep most of what they are, and few meet everything at once."""

LEVELS: Final = (-1.0, 0.7)
"""Lower end of other windows, in the scale on which 0 is air and 1 is soft tissue: black from far
below air up to all lungs."""

WIDTHS: Final = (0.3, 3.0)
"""Width of other windows in the same scale: 0.3 is about 300 HU, 3 about 3000 HU."""

SOFT_TISSUE_SHARE: Final = 0.25
SOFT_TISSUE_LEVELS: Final = (0.7, 0.88)
SOFT_TISSUE_WIDTHS: Final = (0.25, 0.6)
"""The same of windows for soft tissue, such as -160 to 240 HU, and which share of windows they are:
lungs are black there, as is all air, and fat is the next darker."""

MIN_UPPER_END: Final = 0.6
"""The upper end of a window is above this, or lung and tissue would both be white."""

CROP_MARGINS: Final = (0.03, 0.35)
"""Margin around the lungs on each side, in lengths of the box around them."""

COUCH_CURVES: Final = (-0.1, 0.5)
"""How much higher a couch is at the sides than in the middle, in quarters of the image."""

RADII: Final = (0.38, 0.56)
"""Radius of a gantry circle, in images; beyond 0.5 only corners are cut off."""

CLIP_LIMITS: Final = (1.5, 20.0)
"""How many times its even share a step of gray may have of a tile: CLAHE from weak to full."""

CENTER_SPREAD: Final = 0.05
"""Standard deviation of the center of a gantry circle, in images."""


class _Uniform:
    """Gives as many independent rows of numbers as are asked for, each from a part of the seed."""

    def __init__(self, num_slices: int, seed: tf.Tensor) -> None:
        self._num_slices = num_slices
        self._seed = tf.cast(seed, tf.int64)
        self._row = 0

    def between(self, low: float, high: float) -> tf.Tensor:
        """Draws float32 [num_slices]."""
        self._row += 1
        seed = self._seed + tf.constant([0, self._row], tf.int64)
        return tf.random.stateless_uniform([self._num_slices], seed, low, high)

    def chance(self, share: float) -> tf.Tensor:
        """Draws bool [num_slices], true for about a share of them."""
        return self.between(0.0, 1.0) < share

    def factor(self, most: float, least: float | None = None) -> tf.Tensor:
        """Draws log-uniform factors, from 1 / (1 + least) to 1 + most; equal if one is given."""
        least = most if least is None else least
        return tf.exp(self.between(-math.log1p(least), math.log1p(most)))

    def normal(self, shape: list[int]) -> tf.Tensor:
        """Draws float32 [num_slices, *shape]."""
        self._row += 1
        seed = self._seed + tf.constant([0, self._row], tf.int64)
        return tf.random.stateless_normal([self._num_slices, *shape], seed)


def draw_augmentation(config: AugmentationConfig, *, num_slices: int, seed: tf.Tensor) -> Draws:
    """Draws what happens to each slice.

    Args:
        config: gives the kinds and the sizes of the changes.
        num_slices: how many slices there are.
        seed: [2] integers; the same seed gives the same draws.

    Returns:
        Of each kind of change that the configuration has: who is changed, bool [num_slices], and
        how, float32 [num_slices] or more; the modules that change pixels say what they mean.
    """
    uniform = _Uniform(num_slices, seed)
    draws: dict[str, tf.Tensor] = {}
    draws |= _of_geometry(config, uniform)
    draws |= _of_scene(config, uniform)
    draws |= _of_kernel(config, uniform)
    draws |= _of_gray_values(config, uniform)
    bits = tf.random.stateless_uniform([num_slices, 2], seed, None, None, tf.int32)
    return {**draws, "noise_seed": bits}


def neutral_draws(num_slices: int) -> dict[str, tf.Tensor]:
    """Gives draws that change nothing, of the shapes of `draw_augmentation`."""
    nothing = AugmentationConfig(flip="none", rotation_degrees=0.0)
    drawn = dict(draw_augmentation(nothing, num_slices=num_slices, seed=tf.constant([0, 0])))
    # These are drawn in any case, and mean nothing where no slice is chosen for them.
    fixed = {"couch_gap": 0.01, "couch_thickness": 0.006, "couch_depth": 0.06, "couch_gray": 220.0}
    for key, value in {**fixed, "circle_center": 0.0, "circle_gray": 0.0}.items():
        drawn[key] = tf.fill(drawn[key].shape, value)
    return drawn


def _of_geometry(config: AugmentationConfig, uniform: _Uniform) -> dict[str, tf.Tensor]:
    mirrored = uniform.chance(ONE_OF_TWO if config.flip != "none" else 0.0)
    upended = uniform.chance(ONE_OF_FOUR if config.flip == "horizontal_and_vertical" else 0.0)
    turned = uniform.chance(config.quarter_turns)
    degrees = uniform.between(-config.rotation_degrees, config.rotation_degrees)
    stretch = tf.sqrt(uniform.factor(config.stretch))
    magnified = uniform.factor(config.magnify, config.shrink)
    shift = config.translation
    return {
        "x_sign": tf.where(mirrored, -1.0, 1.0),
        "y_sign": tf.where(upended, -1.0, 1.0),
        "angle": (degrees + tf.where(turned, 90.0, 0.0)) * (math.pi / 180),
        "x_magnify": magnified * stretch,
        "y_magnify": magnified / stretch,
        "x_shift": uniform.between(-shift, shift),
        "y_shift": uniform.between(-shift, shift),
        "black_outside": uniform.chance(ONE_OF_TWO),
        "is_cropped": uniform.chance(config.crop_to_body),
        "crop_margin": uniform.between(*CROP_MARGINS),
        "is_elastic": uniform.chance(ONE_OF_FIVE if config.elastic else 0.0),
        "nodes": uniform.normal([ELASTIC_GRID, ELASTIC_GRID, 2])
        * uniform.between(0.0, config.elastic)[:, tf.newaxis, tf.newaxis, tf.newaxis],
    }


def _of_scene(config: AugmentationConfig, uniform: _Uniform) -> dict[str, tf.Tensor]:
    return {
        "is_background_removed": uniform.chance(config.background_removal),
        "has_couch": uniform.chance(config.couch),
        "couch_gap": uniform.between(0.0, 0.03),
        "couch_curve": uniform.between(*COUCH_CURVES),
        "couch_thickness": uniform.between(0.002, 0.012),
        "couch_depth": uniform.between(0.02, 0.12),
        "couch_gray": uniform.between(60.0, 255.0),
        "has_circle": uniform.chance(config.gantry_circle),
        "circle_radius": uniform.between(*RADII),
        "circle_center": CENTER_SPREAD * uniform.normal([2]),
        "circle_gray": tf.where(
            uniform.chance(0.7), 0.0, tf.where(uniform.chance(0.8), 30.0, 255.0)
        ),
    }


def _of_kernel(config: AugmentationConfig, uniform: _Uniform) -> dict[str, tf.Tensor]:
    return {
        "is_coarse": uniform.chance(ONE_OF_THREE if config.low_resolution else 0.0),
        "coarseness": tf.exp(uniform.between(0.0, math.log1p(config.low_resolution))),
        "is_blurred": uniform.chance(ONE_OF_THREE if config.blur else 0.0),
        "blur": uniform.between(0.0, config.blur),
        "is_sharpened": uniform.chance(ONE_OF_THREE if config.sharpen else 0.0),
        "sharpen": uniform.between(0.0, config.sharpen),
        "is_noisy": uniform.chance(ONE_OF_TWO if config.noise else 0.0),
        # Squared: weak noise is usual, strong noise is rare.
        "noise": config.noise * uniform.between(0.0, 1.0) ** 2,
        "grain": uniform.between(-1.0, 1.0),
    }


def _of_gray_values(config: AugmentationConfig, uniform: _Uniform) -> dict[str, tf.Tensor]:
    is_soft = uniform.chance(SOFT_TISSUE_SHARE)
    low, width = (
        tf.where(is_soft, soft, other)
        for soft, other in (
            (uniform.between(*SOFT_TISSUE_LEVELS), uniform.between(*LEVELS)),
            (_log_uniform(uniform, SOFT_TISSUE_WIDTHS), _log_uniform(uniform, WIDTHS)),
        )
    )
    is_other = uniform.chance(TWO_OF_THREE if config.window else 0.0)
    return {
        "window_low": low,
        "window_high": tf.maximum(low + width, MIN_UPPER_END),
        "window_distance": tf.where(is_other, config.window, 0.0),
        "brightness": uniform.between(-config.brightness, config.brightness),
        "contrast": uniform.factor(config.contrast),
        "exponent": uniform.factor(config.gamma),
        "is_equalized": uniform.chance(config.local_contrast),
        "clip_limit": _log_uniform(uniform, CLIP_LIMITS),
        "locality": uniform.between(0.0, 1.0),
        "is_inverted": uniform.chance(config.invert),
    }


def _log_uniform(uniform: _Uniform, ends: tuple[float, float]) -> tf.Tensor:
    return tf.exp(uniform.between(math.log(ends[0]), math.log(ends[1])))
