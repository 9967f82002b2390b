"""Losses of a slice; the caller averages them over the slices of the global batch."""

import tensorflow as tf

DICE_SMOOTHING_PX = 1.0
"""Pixels added to both parts of the ratio: two empty masks agree wholly, and nothing is 0/0."""


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


def dice_loss(*, mask: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Computes one minus the soft Dice coefficient of each slice.

    Of each slice, not of the batch: so it does not depend on which slices share a replica.

    Args:
        mask: [batch, height, width, 1] in {0, 1}; 1 is lung.
        logits: same shape, float32.

    Returns:
        [batch] float32 in [0, 1].

    Raises:
        ValueError: if the two shapes differ.

    Source: Milletari et al., V-Net, arXiv 1606.04797, with areas instead of their squares.
    """
    mask.shape.assert_is_compatible_with(logits.shape)
    lung = tf.cast(mask, logits.dtype)
    probability = tf.sigmoid(logits)
    both = tf.reduce_sum(lung * probability, axis=[1, 2, 3])
    areas = tf.reduce_sum(lung + probability, axis=[1, 2, 3])
    return 1 - (2 * both + DICE_SMOOTHING_PX) / (areas + DICE_SMOOTHING_PX)


def loss_of_slices(name: str, *, mask: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Computes the loss of each slice that a run is trained with: [batch] float32.

    Args:
        name: as ``TrainerConfig.loss``.
        mask: [batch, height, width, 1] in {0, 1}; 1 is lung.
        logits: same shape, float32.
    """
    loss = binary_cross_entropy(mask=mask, logits=logits)
    return loss + dice_loss(mask=mask, logits=logits) if name == "bce_dice" else loss
