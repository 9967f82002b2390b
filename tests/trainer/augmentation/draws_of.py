"""Draws for the tests: of a configuration, or nothing but what a test names."""

from typing import Any

import numpy as np
import tensorflow as tf

from trainer.augmentation.config import AugmentationConfig
from trainer.augmentation.draws import draw_augmentation, neutral_draws


def config_of(**settings: Any) -> AugmentationConfig:
    """Gives a configuration in which all is off that is not named."""
    return AugmentationConfig(**{"flip": "none", "rotation_degrees": 0.0, **settings})


def draws_of(*, num_slices: int = 1000, seed: int = 0, **settings: Any) -> dict[str, np.ndarray]:
    drawn = draw_augmentation(
        config_of(**settings), num_slices=num_slices, seed=tf.constant([seed, 1])
    )
    return {name: value.numpy() for name, value in drawn.items()}


def only(num_slices: int = 1, **values: Any) -> dict[str, tf.Tensor]:
    """Gives draws for slices: what is not named changes nothing."""
    drawn = neutral_draws(num_slices)
    drawn["black_outside"] = tf.zeros([num_slices], tf.bool)
    for name, value in values.items():
        drawn[name] = tf.broadcast_to(tf.cast(value, drawn[name].dtype), drawn[name].shape)
    return drawn
