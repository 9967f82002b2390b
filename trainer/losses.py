"""Losses of a slice; the caller averages them over the slices of the global batch."""

import tensorflow as tf

LUNG_SMOOTHING, NO_LUNG_SMOOTHING = 0.0005, 0.002
"""Shares of the pixels of a slice, with lung and without, that are added to both parts of the
ratio: two empty masks agree wholly, and nothing is 0/0. The smallest lung of a slice has about as
many pixels as the second. Were it a single pixel, then a little false lung would cost all, and more
of it nothing else: no gradient would lead away from bowel gas."""

MISSED_LUNG_WEIGHT = 0.1
"""Of cross-entropy over the lung alone. A small lung that a model is sure not to see is too few
pixels for cross-entropy over the slice, and soft Dice is flat there: it would never be learned."""


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

    Of each slice, not of the batch: so it does not depend on which slices share a replica. Shares
    of the slice are added to it, not pixels: so it does not depend on the size of the model.

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
    has_lung = tf.reduce_any(lung > 0, axis=[1, 2, 3])
    num_pixels = tf.cast(tf.reduce_prod(tf.shape(lung)[1:]), logits.dtype)
    smoothing = num_pixels * tf.where(has_lung, LUNG_SMOOTHING, NO_LUNG_SMOOTHING)
    return 1 - (2 * both + smoothing) / (areas + smoothing)


def missed_lung(*, mask: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Computes binary cross-entropy, averaged over the pixels of the lung of each slice.

    Args:
        mask: [batch, height, width, 1] in {0, 1}; 1 is lung.
        logits: same shape, float32.

    Returns:
        [batch] float32, in nats a pixel; 0 for slices without lung.

    Raises:
        ValueError: if the two shapes differ.
    """
    mask.shape.assert_is_compatible_with(logits.shape)
    lung = tf.cast(mask, logits.dtype)
    missed = tf.reduce_sum(lung * tf.math.softplus(-logits), axis=[1, 2, 3])
    return tf.math.divide_no_nan(missed, tf.reduce_sum(lung, axis=[1, 2, 3]))


def loss_of_slices(name: str, *, mask: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Computes the loss of each slice that a run is trained with: [batch] float32.

    Args:
        name: as ``TrainerConfig.loss``.
        mask: [batch, height, width, 1] in {0, 1}; 1 is lung.
        logits: same shape, float32.
    """
    loss = binary_cross_entropy(mask=mask, logits=logits)
    if name == "bce_dice":
        loss += dice_loss(mask=mask, logits=logits)
        loss += MISSED_LUNG_WEIGHT * missed_lung(mask=mask, logits=logits)
    return loss
