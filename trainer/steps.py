"""One step of training and one of validation, on every replica at once."""

from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

from trainer.augmentation import apply_transforms
from trainer.distribution import run_and_sum, sum_over_replicas
from trainer.losses import binary_cross_entropy
from trainer.metrics import slice_totals
from trainer.signature import PROBABILITY_THRESHOLD

Batch = Mapping[str, tf.Tensor]
Step = Callable[[Batch], tf.Tensor]
"""From a batch as ``trainer.input_pipeline`` makes it to one row of ``trainer.metrics.TOTALS``."""


def make_training_step(
    strategy: tf.distribute.Strategy, model: keras.Model, optimizer: keras.Optimizer
) -> Step:
    """Makes the function that updates the weights once from a global batch.

    The gradient is that of the mean loss over the real slices of the *global* batch: each replica
    divides the sum over its own slices by the count over all replicas, and the optimizer sums the
    gradients. So the result does not depend on how the batch was split, nor on padding.
    """

    def replica_step(batch: Batch) -> tf.Tensor:
        image, mask = apply_transforms(
            image=batch["image"], mask=batch["mask"], transforms=batch["transform"]
        )
        weight = batch["weight"]
        num_slices = sum_over_replicas(tf.reduce_sum(weight))
        with tf.GradientTape() as tape:
            logits = model(image, training=True)
            loss = binary_cross_entropy(mask=mask, logits=logits)  # [batch]
            objective = tf.reduce_sum(loss * weight) / num_slices
        gradients = tape.gradient(objective, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return _weighted_totals(mask, logits, loss, weight)

    return tf.function(lambda batch: run_and_sum(strategy, replica_step, batch))


def make_validation_step(strategy: tf.distribute.Strategy, model: keras.Model) -> Step:
    """Makes the function that measures the model on a global batch, without augmentation."""

    def replica_step(batch: Batch) -> tf.Tensor:
        mask = batch["mask"]
        logits = model(tf.cast(batch["image"], tf.float32), training=False)
        loss = binary_cross_entropy(mask=mask, logits=logits)
        return _weighted_totals(mask, logits, loss, batch["weight"])

    return tf.function(lambda batch: run_and_sum(strategy, replica_step, batch))


def _weighted_totals(
    mask: tf.Tensor, logits: tf.Tensor, loss: tf.Tensor, weight: tf.Tensor
) -> tf.Tensor:
    """Sums the totals of the real slices: [len(TOTALS)] float64."""
    totals = slice_totals(
        mask=mask, probability=tf.sigmoid(logits), loss=loss, threshold=PROBABILITY_THRESHOLD
    )
    return tf.reduce_sum(totals * tf.cast(weight, tf.float64)[:, tf.newaxis], axis=0)
