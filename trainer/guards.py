"""Checks inside of the exported graph: a client sees their message with INVALID_ARGUMENT."""

import tensorflow as tf

from preprocessing.spec import MAX_PIXELS

IMAGES_MESSAGE = (
    f"expected the shape (batch, height, width, 1), one image at least, each of 1 to {MAX_PIXELS} "
    "pixels; received"
)
RANGE_MESSAGE = (
    "expected gray values from 0 to 1, those of a file divided by 255; received, from and to"
)
BATCH_MESSAGE = "expected the shape (batch), one file at least; received"

_MAX_PRINTED = 8
"""Numbers of a tensor that a message shows."""


def when(condition: tf.Tensor, value: tf.Tensor, message: str, *received: tf.Tensor) -> tf.Tensor:
    """Passes a value on when a condition holds.

    What reads the value runs after the check; an assertion that stands alone may run after it.

    Args:
        condition: scalar bool.
        value: of any type and shape.
        message: what was expected.
        received: tensors that are printed behind the message.

    Returns:
        The value.

    Raises:
        tf.errors.InvalidArgumentError: when run, if the condition does not hold.
    """
    check = tf.debugging.Assert(condition, [message, *received], summarize=_MAX_PRINTED)
    with tf.control_dependencies([check]):
        return tf.identity(value)


def checked_images(images: tf.Tensor) -> tf.Tensor:
    """Passes slices on that have pixels, and not too many.

    A session takes an array of any shape, whatever the signature says of it.

    Args:
        images: [batch, height, width, 1] of any type.

    Returns:
        The same.

    Raises:
        tf.errors.InvalidArgumentError: when run, if the shape is another one, if there is no
            pixel, or if an image has more than ``MAX_PIXELS``.
    """
    # Else the sizes that the signature says would be taken for those that came.
    received = tf.raw_ops.PlaceholderWithDefault(input=images, shape=tf.TensorShape(None))
    shape = tf.shape(received, out_type=tf.int64)
    batch, height, width, channels = tf.unstack(tf.concat([shape, [0, 0, 0, 0]], 0)[:4], num=4)
    is_right = (tf.size(shape) == 4) & (channels == 1) & (batch > 0)
    has_pixels = (height > 0) & (width > 0) & (height * width <= MAX_PIXELS)
    checked = when(is_right & has_pixels, received, IMAGES_MESSAGE, shape)
    return tf.ensure_shape(checked, images.shape)


def checked_gray_values(images: tf.Tensor) -> tf.Tensor:
    """Passes slices on whose gray values are scaled to 0 to 1.

    Args:
        images: [batch, height, width, 1] float32, with a pixel at least.

    Returns:
        The same.

    Raises:
        tf.errors.InvalidArgumentError: when run, if a value is below 0, above 1 or no number.
    """
    lowest, highest = tf.reduce_min(images), tf.reduce_max(images)
    return when((lowest >= 0) & (highest <= 1), images, RANGE_MESSAGE, lowest, highest)


def checked_files(contents: tf.Tensor) -> tf.Tensor:
    """Passes on files, one at least.

    Args:
        contents: [batch] string.

    Returns:
        The same.

    Raises:
        tf.errors.InvalidArgumentError: when run, if the shape is another one or there is no file.
    """
    received = tf.raw_ops.PlaceholderWithDefault(input=contents, shape=tf.TensorShape(None))
    shape = tf.shape(received)
    is_right = (tf.size(shape) == 1) & (tf.size(received) > 0)
    checked = when(is_right, received, BATCH_MESSAGE, shape)
    return tf.ensure_shape(checked, contents.shape)
