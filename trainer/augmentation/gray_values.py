"""Changes of how bright a pixel is shown: window, brightness, contrast, gamma, local contrast."""

import tensorflow as tf

from trainer.augmentation.config import AugmentationConfig
from trainer.augmentation.draws import Draws
from trainer.augmentation.selection import change_some, column

TILES = 8
"""Tiles in each axis whose contrast is made equal."""

BINS = 64
"""Steps of gray of a histogram."""


def change_gray_values(config: AugmentationConfig, image: tf.Tensor, draws: Draws) -> tf.Tensor:
    """Changes window, brightness, contrast, gamma, local contrast and polarity, in this order.

    Args:
        config: what is 0 in it is left out.
        image: [batch, size, size, 1] float32 gray values, 0 to 255.
        draws: as ``trainer.augmentation.draws`` gives them.

    Returns:
        Of the same shape, and 0 to 255 too.
    """
    if config.window:
        image = show_in_window(image, draws)
    if config.brightness or config.contrast:
        mean = tf.reduce_mean(image, axis=[1, 2, 3], keepdims=True)
        image = (image - mean) * column(draws["contrast"]) + mean + column(draws["brightness"])
        image = tf.clip_by_value(image, 0.0, 255.0)
    if config.gamma:
        # The gradient of a power is infinite at 0, but no gradient is asked for here.
        image = 255 * (image / 255) ** column(draws["exponent"])
    if config.local_contrast:
        image = change_some(
            draws["is_equalized"], equalize_tiles, image, draws["clip_limit"], draws["locality"]
        )
    if config.invert:
        image = tf.where(column(draws["is_inverted"]), 255 - image, image)
    return image


def show_in_window(image: tf.Tensor, draws: Draws) -> tf.Tensor:
    """Shows slices through another window.

    What a gray value is in Hounsfield units is not known; so levels are told from the slice itself,
    on the scale on which the mean of its dark half is 0 (air) and that of its bright half is 1
    (soft tissue).
    """
    mean = tf.reduce_mean(image, axis=[1, 2, 3], keepdims=True)
    is_bright = tf.cast(image > mean, tf.float32)
    bright, dark = _mean_where(image, is_bright), _mean_where(image, 1 - is_bright)
    # A slice of one gray value has no scale.
    scale = tf.maximum(bright - dark, 1.0)
    distance = column(draws["window_distance"])
    low = distance * (dark + column(draws["window_low"]) * scale)
    high = 255 + distance * (dark + column(draws["window_high"]) * scale - 255)
    return tf.clip_by_value(255 * (image - low) / tf.maximum(high - low, 1.0), 0.0, 255.0)


def equalize_tiles(image: tf.Tensor, clip_limit: tf.Tensor, locality: tf.Tensor) -> tf.Tensor:
    """Makes the contrast equal everywhere: CLAHE.

    Args:
        image: [few, size, size, 1] gray values, 0 to 255.
        clip_limit: [few], how many times its even share a step of gray may have of a tile.
        locality: [few], 0: one histogram of the whole slice; 1: each tile has its own.

    Source: Zuiderveld, "Contrast limited adaptive histogram equalization", Graphics Gems IV, 1994.
    """
    size = image.shape[1]
    few = tf.shape(image)[0]
    step = tf.minimum(tf.cast(image[..., 0] * (BINS / 256), tf.int32), BINS - 1)
    tile = tf.range(size) * TILES // size
    tile_of_pixel = tile[:, tf.newaxis] * TILES + tile  # [size, size]
    tiles = TILES * TILES
    slice_number = tf.range(few)[:, tf.newaxis, tf.newaxis]
    index = (slice_number * tiles + tile_of_pixel) * BINS + step
    counts = tf.math.bincount(
        tf.reshape(index, [-1]), minlength=few * tiles * BINS, maxlength=few * tiles * BINS
    )
    shares = tf.cast(tf.reshape(counts, [few, tiles, BINS]), tf.float32)
    shares /= tf.reduce_sum(shares, axis=2, keepdims=True)
    whole = tf.reduce_mean(shares, axis=1, keepdims=True)
    shares = whole + locality[:, tf.newaxis, tf.newaxis] * (shares - whole)
    # What is above the limit is spread over all steps.
    clipped = tf.minimum(shares, clip_limit[:, tf.newaxis, tf.newaxis] / BINS)
    clipped += (1 - tf.reduce_sum(clipped, axis=2, keepdims=True)) / BINS
    upper = 255 * tf.cumsum(clipped, axis=2)
    # The middle of the step of gray: a flat slice stays in the middle of its range.
    table = tf.reshape(upper - 255 * clipped / 2, [few, tiles * BINS])
    return _look_up(table, step, size)[..., tf.newaxis]


def _look_up(table: tf.Tensor, step: tf.Tensor, size: int) -> tf.Tensor:
    """Looks each pixel up in the tables of the four tiles around it, and blends what they say."""
    place = (tf.range(size, dtype=tf.float32) + 0.5) * (TILES / size) - 0.5
    place = tf.clip_by_value(place, 0.0, TILES - 1.0)
    first = tf.minimum(tf.cast(place, tf.int32), TILES - 2)
    share = place - tf.cast(first, tf.float32)
    result = tf.zeros(tf.shape(step), tf.float32)
    for down in (0, 1):
        for right in (0, 1):
            tile = (first + down)[:, tf.newaxis] * TILES + first + right
            row = share if down else 1 - share
            column_share = share if right else 1 - share
            found = tf.gather(table, tile * BINS + step, batch_dims=1)
            result += row[:, tf.newaxis] * column_share * found
    return result


def _mean_where(image: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    axes = [1, 2, 3]
    total = tf.reduce_sum(weight, axis=axes, keepdims=True)
    return tf.reduce_sum(image * weight, axis=axes, keepdims=True) / tf.maximum(total, 1.0)
