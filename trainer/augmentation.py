"""Random flips and rotation, applied to a slice and its mask together.

What happens to a slice is drawn in the input pipeline, from the seed, the epoch and the position in
the epoch: it does not depend on the number of replicas. The pixels are moved on the device, a whole
batch at a time.
"""

import math

import tensorflow as tf

from trainer.config import TrainerConfig

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
"""The transform that moves nothing."""


def random_transforms(config: TrainerConfig, *, num_slices: int, seed: tf.Tensor) -> tf.Tensor:
    """Draws a flip and a rotation about the center for each slice.

    Args:
        config: gives ``flip``, ``rotation_degrees`` and ``image_size``.
        num_slices: how many transforms to draw.
        seed: [2] integers; the same seed gives the same transforms.

    Returns:
        [num_slices, 8] float32: the projective transforms that take a pixel of the output to the
        pixel of the input that it comes from.

    Source: for the eight numbers, ``tf.raw_ops.ImageProjectiveTransformV3``.
    """
    draws = tf.random.stateless_uniform([3, num_slices], seed)
    mirrored = tf.where(draws[0] < 0.5, -1.0, 1.0)
    upended = tf.where(draws[1] < 0.5, -1.0, 1.0)
    x_sign = mirrored if config.flip != "none" else tf.ones_like(mirrored)
    y_sign = upended if config.flip == "horizontal_and_vertical" else tf.ones_like(upended)
    angle = (2 * draws[2] - 1) * math.radians(config.rotation_degrees)
    cos, sin = tf.cos(angle), tf.sin(angle)
    a, b = x_sign * cos, -x_sign * sin
    c, d = y_sign * sin, y_sign * cos
    center = (config.image_size - 1) / 2  # pixels count from 0, so this point stays where it is
    zero = tf.zeros_like(a)
    return tf.stack(
        [a, b, center * (1 - a - b), c, d, center * (1 - c - d), zero, zero],
        axis=1,
    )


def apply_transforms(
    *, image: tf.Tensor, mask: tf.Tensor, transforms: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Moves the pixels of slices and masks; what comes in from outside is air and background.

    Args:
        image: [batch, height, width, 1] uint8 gray values.
        mask: same shape, uint8 in {0, 1}.
        transforms: [batch, 8] float32, as ``random_transforms`` gives them.

    Returns:
        The slices as float32, interpolated bilinearly, and the masks as uint8 in {0, 1}, by nearest
        neighbor.
    """
    return (
        _transform(tf.cast(image, tf.float32), transforms, "BILINEAR"),
        _transform(mask, transforms, "NEAREST"),
    )


def _transform(pixels: tf.Tensor, transforms: tf.Tensor, interpolation: str) -> tf.Tensor:
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels,
        transforms=transforms,
        output_shape=tf.shape(pixels)[1:3],
        fill_value=0.0,
        interpolation=interpolation,
        fill_mode="CONSTANT",
    )
    return tf.ensure_shape(moved, pixels.shape)
