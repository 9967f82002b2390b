"""Random changes of a slice on training; what moves its pixels moves its mask too.

What happens to a slice is drawn in the input pipeline, from the seed, the epoch and the position in
the epoch: it does not depend on the number of replicas. The pixels are changed on the device, a
whole batch at a time: first where they lie, then how bright they are.
"""

import math
from collections.abc import Mapping

import tensorflow as tf

from trainer.config import TrainerConfig

Draws = Mapping[str, tf.Tensor]
"""What happens to each slice of a batch; the first dimension of each tensor is the batch."""


def draw_augmentation(config: TrainerConfig, *, num_slices: int, seed: tf.Tensor) -> Draws:
    """Draws what happens to each slice.

    Args:
        config: gives the kinds and the sizes of the changes.
        num_slices: how many slices there are.
        seed: [2] integers; the same seed gives the same draws.

    Returns:
        ``transform``: float32 [num_slices, 8], the projective transforms that take a pixel of the
        output to the pixel of the input that it comes from; ``gain``, ``shift``, ``exponent``,
        ``blur`` and ``noise``: float32 [num_slices], for `change_gray_values`; ``noise_seed``:
        int32 [num_slices, 2].

    Source: for the eight numbers, ``tf.raw_ops.ImageProjectiveTransformV3``.
    """
    uniform = tf.unstack(tf.random.stateless_uniform([13, num_slices], seed, minval=-1.0))
    gain = 1 / (1 + config.contrast * uniform[7])
    blurred = (uniform[10] + 1) / 2 < config.blur
    bits = tf.random.stateless_uniform([num_slices, 2], seed, None, None, tf.int32)
    return {
        "transform": _transforms(config, uniform[:7]),
        "gain": gain,
        "shift": 255 * config.contrast * uniform[8] / 2 * gain,
        "exponent": (1 + config.gamma) ** uniform[9],
        "blur": tf.where(blurred, (uniform[11] + 1) / 2, 0.0),
        "noise": config.noise * tf.maximum(uniform[12], 0.0),
        "noise_seed": bits,
    }


def move_pixels(
    *, image: tf.Tensor, mask: tf.Tensor, transform: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Moves the pixels of slices and masks; what comes in from outside is air and background.

    Args:
        image: [batch, height, width, 1] uint8 gray values.
        mask: same shape, uint8 in {0, 1}.
        transform: [batch, 8] float32, as `draw_augmentation` gives them.

    Returns:
        The slices as float32, interpolated bilinearly, and the masks as uint8 in {0, 1}, by nearest
        neighbor.
    """
    return (
        _transform(tf.cast(image, tf.float32), transform, "BILINEAR"),
        _transform(mask, transform, "NEAREST"),
    )


def change_gray_values(config: TrainerConfig, image: tf.Tensor, draws: Draws) -> tf.Tensor:
    """Changes the gray values of slices: window, gamma, resolution, noise, in this order.

    Args:
        config: what is 0 in it is left out.
        image: [batch, height, width, 1] float32 gray values, 0 to 255; the batch is of known size.
        draws: as `draw_augmentation` gives them.

    Returns:
        Of the same shape, and 0 to 255 too.
    """
    if config.contrast:
        # Another window, wider or narrower, higher or lower, shows the same tissue so.
        image = (image - 127.5) * _column(draws["gain"]) + 127.5 + _column(draws["shift"])
        image = tf.clip_by_value(image, 0.0, 255.0)
    if config.gamma:
        # The gradient of a power is infinite at 0, but no gradient is asked for here.
        image = 255 * (image / 255) ** _column(draws["exponent"])
    if config.blur:
        height, width = image.shape[1:3]
        coarse = tf.image.resize(tf.nn.avg_pool2d(image, 2, 2, "VALID"), [height, width])
        image += _column(draws["blur"]) * (coarse - image)
    if config.noise:
        # Slice by slice, so that no slice's noise depends on who else is on its replica.
        noise = [
            tf.random.stateless_normal(image.shape[1:], seed)
            for seed in tf.unstack(draws["noise_seed"], image.shape[0])
        ]
        image += _column(draws["noise"]) * tf.stack(noise)
        image = tf.clip_by_value(image, 0.0, 255.0)
    return image


def _transforms(config: TrainerConfig, uniform: list[tf.Tensor]) -> tf.Tensor:
    """Makes flips, zooms, a rotation about the center, and a shift: [num_slices, 8]."""
    mirrored, upended, turned, zoomed_x, zoomed_y, moved_x, moved_y = uniform
    x_sign = tf.where(mirrored < 0, -1.0, 1.0) if config.flip != "none" else 1.0
    y_sign = tf.where(upended < 0, -1.0, 1.0) if config.flip == "horizontal_and_vertical" else 1.0
    x_scale = x_sign * (1 + config.zoom) ** zoomed_x
    y_scale = y_sign * (1 + config.zoom) ** zoomed_y
    angle = turned * math.radians(config.rotation_degrees)
    cos, sin = tf.cos(angle), tf.sin(angle)
    a, b = x_scale * cos, -x_scale * sin
    c, d = y_scale * sin, y_scale * cos
    center = (config.image_size - 1) / 2  # pixels count from 0, so this point stays where it is
    x_move = moved_x * config.translation * config.image_size
    y_move = moved_y * config.translation * config.image_size
    zero = tf.zeros_like(a)
    return tf.stack(
        [
            *(a, b, center * (1 - a - b) + x_move),
            *(c, d, center * (1 - c - d) + y_move),
            *(zero, zero),
        ],
        axis=1,
    )


def _transform(pixels: tf.Tensor, transform: tf.Tensor, interpolation: str) -> tf.Tensor:
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels,
        transforms=transform,
        output_shape=tf.shape(pixels)[1:3],
        fill_value=0.0,
        interpolation=interpolation,
        fill_mode="CONSTANT",
    )
    return tf.ensure_shape(moved, pixels.shape)


def _column(values: tf.Tensor) -> tf.Tensor:
    """Makes [batch, 1, 1, 1] of [batch]."""
    return values[:, tf.newaxis, tf.newaxis, tf.newaxis]
