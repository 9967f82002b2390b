"""From slices to the probability of lung at their own size: what is measured and what is served."""

import tensorflow as tf

from trainer.model import UNet
from trainer.resizing import resize_image, restore_probability


def segment(model: UNet, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Runs the model on slices of any one size.

    Args:
        model: as ``trainer.model`` builds it.
        image: [batch, height, width, 1] gray values, 0 to 255; uint8 or float32.

    Returns:
        The logits, float32 at the size of the model, and the probability, float32 [batch, height,
        width, 1] in [0, 1].
    """
    logits = logits_of(model, resize_image(image, model.image_size))
    probability = restore_probability(
        tf.sigmoid(logits), height=tf.shape(image)[1], width=tf.shape(image)[2]
    )
    return logits, tf.ensure_shape(probability, image.shape)


def logits_of(model: UNet, resized: tf.Tensor) -> tf.Tensor:
    """Runs the model on slices, uint8, that have its size already."""
    return model(tf.cast(resized, tf.float32), training=False)
