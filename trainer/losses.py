"""Losses of a slice; the caller averages them over the slices of the global batch."""

import tensorflow as tf


def binary_cross_entropy(*, mask: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Computes binary cross-entropy, averaged over the pixels of each slice.

    Args:
        mask: [batch, height, width, 1] in {0, 1}; 1 is lung.
        logits: same shape, float32.

    Returns:
        [batch] float32, in nats a pixel.

    Raises:
        ValueError: if the two shapes differ.
    """
    mask.shape.assert_is_compatible_with(logits.shape)
    per_pixel = tf.nn.sigmoid_cross_entropy_with_logits(
        labels=tf.cast(mask, logits.dtype), logits=logits
    )
    return tf.reduce_mean(per_pixel, axis=[1, 2, 3])
