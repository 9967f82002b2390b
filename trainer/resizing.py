"""From the size of a slice to the square of the model, and back.

A slice keeps its proportions: its longer side fills the square, and the rest is padding in equal
parts on both sides. Training, evaluation and the exported graph all use these functions, so they
cannot differ. Why each kernel: docs/decisions/0011-inference.md.
"""

import tensorflow as tf

PADDING_GRAY_VALUE = 0
"""Black, as the air around a body is. Padding is background in a mask."""


def resize_image(image: tf.Tensor, size: int) -> tf.Tensor:
    """Fits slices into the square of the model.

    Args:
        image: [batch, height, width, 1] gray values, 0 to 255; uint8 or float32.
        size: height and width of the model in pixels.

    Returns:
        [batch, size, size, 1] uint8, rounded to the nearest gray value.
    """
    resized = tf.cast(tf.round(_fit(image, size)), tf.uint8)
    return _pad(resized, size, PADDING_GRAY_VALUE)


def resize_mask(mask: tf.Tensor, size: int) -> tf.Tensor:
    """Fits masks into the square of the model; labels stay labels.

    A new pixel is lung where lung covers more than half of it. At half exactly, which is common
    where a size is halved, the black fields of a chessboard are lung: always lung would make lungs
    grow, and never would make them shrink. One pixel out of many (nearest neighbor) would shift
    them by half a pixel.

    Args:
        mask: [batch, height, width, 1] uint8 in {0, 1}.
        size: height and width of the model in pixels.

    Returns:
        [batch, size, size, 1] uint8 in {0, 1}.
    """
    coverage = _fit(mask, size)
    rows, columns = tf.range(tf.shape(coverage)[1]), tf.range(tf.shape(coverage)[2])
    is_black = (rows[:, tf.newaxis] + columns) % 2 == 0
    is_lung = (coverage > 0.5) | ((coverage == 0.5) & is_black[:, :, tf.newaxis])
    return _pad(tf.cast(is_lung, tf.uint8), size, 0)


def restore_probability(
    probability: tf.Tensor, *, height: tf.Tensor, width: tf.Tensor
) -> tf.Tensor:
    """Takes the padding off the model's probability, and scales it to the size of the slice.

    Scaling the probability and thresholding afterwards gives smooth outlines; scaling a thresholded
    mask gives stairs.

    Args:
        probability: [batch, size, size, 1] float32.
        height: of the slice, in pixels.
        width: of the slice, in pixels.

    Returns:
        [batch, height, width, 1] float32.
    """
    size = tf.shape(probability)[1]
    sides = tf.stack([height, width])
    inner = _inner_sides(sides, size)
    top, left = tf.unstack((size - inner) // 2)
    cropped = probability[:, top : top + inner[0], left : left + inner[1]]
    return _scale(cropped, sides)


def _fit(pixels: tf.Tensor, size: int) -> tf.Tensor:
    """Scales so that the longer side is the model's: float32 [batch, inner sides, 1]."""
    return _scale(pixels, _inner_sides(tf.shape(pixels)[1:3], size))


def _inner_sides(sides: tf.Tensor, size: int | tf.Tensor) -> tf.Tensor:
    """Gives height and width, int32 [2], that a slice has inside of the square of the model."""
    longer = tf.reduce_max(sides)
    # To the nearest whole pixel; a slice as thin as a thread keeps one.
    return tf.maximum((2 * size * sides + longer) // (2 * longer), 1)


def _scale(pixels: tf.Tensor, sides: tf.Tensor) -> tf.Tensor:
    """Scales to height and width, so that the edges of both images fall together.

    Where a side gets shorter, a new pixel is the mean of the area that it covers; where it gets
    longer, it lies between its neighbors. One of the two steps changes nothing.
    """
    shrunk = tf.image.resize(pixels, tf.minimum(sides, tf.shape(pixels)[1:3]), method="area")
    return tf.image.resize(shrunk, sides, method="bilinear")


def _pad(pixels: tf.Tensor, size: int, value: int) -> tf.Tensor:
    before = (size - tf.shape(pixels)[1:3]) // 2
    after = size - tf.shape(pixels)[1:3] - before
    around = tf.stack([before, after], axis=1)
    padded = tf.pad(pixels, tf.pad(around, [[1, 1], [0, 0]]), constant_values=value)
    return tf.ensure_shape(padded, [None, size, size, 1])
