"""From the size of a slice to the size of the model, and back.

Training, evaluation and the exported graph all use these functions, so they cannot differ.
"""

import tensorflow as tf


def resize_image(image: tf.Tensor, size: int) -> tf.Tensor:
    """Scales slices to the size of the model, each new pixel the mean of those it covers.

    Args:
        image: [batch, height, width, 1] uint8.
        size: new height and width in pixels.

    Returns:
        [batch, size, size, 1] uint8, rounded to the nearest gray value.
    """
    resized = tf.image.resize(image, [size, size], method="area")
    return tf.cast(tf.round(resized), tf.uint8)


def resize_mask(mask: tf.Tensor, size: int) -> tf.Tensor:
    """Scales masks to the size of the model by nearest neighbor, so that labels stay labels.

    Args:
        mask: [batch, height, width, 1] uint8 in {0, 1}.
        size: new height and width in pixels.

    Returns:
        [batch, size, size, 1] uint8 in {0, 1}.
    """
    return tf.image.resize(mask, [size, size], method="nearest")


def restore_probability(
    probability: tf.Tensor, *, height: tf.Tensor, width: tf.Tensor
) -> tf.Tensor:
    """Scales the model's probability to the size of the slice, bilinearly.

    Scaling the probability and thresholding afterwards gives smooth outlines; scaling a thresholded
    mask gives stairs.

    Args:
        probability: [batch, size, size, 1] float32.
        height: of the slice, in pixels.
        width: of the slice, in pixels.

    Returns:
        [batch, height, width, 1] float32.
    """
    return tf.image.resize(probability, [height, width], method="bilinear")
