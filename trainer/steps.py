"""Steps of training and of validation, on every replica at once, many of them in one call."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import tensorflow as tf

from trainer.augmentation.augment import augment
from trainer.config import TrainerConfig
from trainer.distribution import Placement, sum_over_replicas
from trainer.losses import loss_of_slices
from trainer.metrics import TOTALS, slice_totals
from trainer.model import UNet
from trainer.optimizer import Optimizer
from trainer.resizing import resize_image, resize_mask
from trainer.signature import PROBABILITY_THRESHOLD

Batch = Mapping[str, tf.Tensor]
Steps = Callable[[Iterator[Batch], tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
"""Takes batches as ``trainer.input_pipeline`` makes them, the number of steps, and the totals so
far, float64 [len(TOTALS)]. Gives the totals after these steps, and in which of them, counted from
1, the loss was no number for the first time, or 0."""


def make_training_steps(
    config: TrainerConfig,
    placement: Placement,
    model: UNet,
    optimizer: Optimizer,
    *,
    reduction: int = 1,
) -> Steps:
    """Makes the function that updates the weights, once with each global batch.

    The gradient is that of the mean loss over the real slices of the *global* batch: each replica
    divides the sum over its own slices by the count over all replicas, and the gradients are
    summed. So the result does not depend on how the batch was split, nor on padding, nor on the
    number of parts in which a replica computes its share.

    Args:
        config: all settings.
        placement: where the replicas are.
        model: what is trained.
        optimizer: of its variables.
        reduction: height and width of the slices are divided by it first; the weights are the same
            ones.
    """
    variables = [variable.value for variable in model.trainable_variables]
    gradient_of: dict[int, Callable[..., tuple[tf.Tensor, list[tf.Tensor]]]] = {}

    def gradient_step(part: Batch, scale: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Gives the totals of a part, and the gradient of its share of the mean loss."""
        with tf.GradientTape() as tape:
            logits = model(part["image"], training=True)
            loss = loss_of_slices(config.loss, mask=part["mask"], logits=logits)  # [batch]
            objective = scale * tf.reduce_sum(loss * part["weight"] / part["num_slices"])
        gradients = tape.gradient(objective, variables)
        return _weighted_totals(part, logits, loss), gradients

    def replica_step(share: Batch) -> tf.Tensor:
        # Each replica has a function of its own, which captures that replica's variables. Only the
        # gradient is compiled: sums over replicas cannot be inside of XLA.
        compute = gradient_of.setdefault(
            placement.local_replica_index(),
            tf.function(gradient_step, jit_compile=config.xla or None, autograph=False),
        )
        scale = tf.identity(optimizer.loss_scale) if optimizer.scales_loss else tf.constant(1.0)
        if reduction > 1:
            share = _reduced(share, reduction)
        parts = [_augment(config, part) for part in _parts(share, config.accumulation_steps)]
        totals, gradients = compute(parts[0], scale)
        for part in parts[1:]:
            # One after the other, so that the memory of a part is free before the next one.
            with tf.control_dependencies(gradients):
                part = {key: tf.identity(value) for key, value in part.items()}
            more_totals, more = compute(part, scale)
            totals += more_totals
            gradients = [one + other for one, other in zip(gradients, more, strict=True)]
        optimizer.apply(sum_over_replicas(gradients))
        return totals

    return _many(placement, replica_step)


def make_validation_steps(
    config: TrainerConfig, placement: Placement, model: UNet, *, reduction: int = 1
) -> Steps:
    """Makes the function that measures the model on global batches, without augmentation.

    Args:
        config: gives the loss.
        placement: where the replicas are.
        model: what is measured.
        reduction: as of the training steps; a model does well at the size that it trains at.
    """

    def replica_step(share: Batch) -> tf.Tensor:
        if reduction > 1:
            share = _reduced(share, reduction)
        logits = model(tf.cast(share["image"], tf.float32), training=False)
        loss = loss_of_slices(config.loss, mask=share["mask"], logits=logits)
        return _weighted_totals(share, logits, loss)

    return _many(placement, replica_step)


def _many(placement: Placement, replica_step: Callable[[Batch], tf.Tensor]) -> Steps:
    """Puts a loop over batches around a step, inside of one graph."""

    @tf.function
    def steps(
        batches: Iterator[Batch], num_steps: tf.Tensor, totals: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        bad_step = tf.constant(0)
        for index in tf.range(1, num_steps + 1):
            row = placement.run_and_sum(replica_step, next(batches))
            # Added one by one, so that the sum does not depend on the number of steps in a call.
            totals += row
            is_bad = ~tf.math.is_finite(row[TOTALS.index("loss_sum")])
            bad_step = tf.where(is_bad & (bad_step == 0), index, bad_step)
        return totals, bad_step

    return steps


def _reduced(share: Batch, factor: int) -> Batch:
    size = share["image"].shape[1] // factor
    smaller = {
        "image": resize_image(share["image"], size),
        "mask": resize_mask(share["mask"], size),
    }
    shape = share["image"].shape[0], size, size, 1
    return {**share, **{key: tf.ensure_shape(each, shape) for key, each in smaller.items()}}


def _augment(config: TrainerConfig, part: Batch) -> dict[str, tf.Tensor]:
    image, mask = augment(config, image=part["image"], mask=part["mask"], draws=part)
    kept = {key: part[key] for key in ("weight", "num_slices")}
    return {"image": image, "mask": mask, **kept}


def _parts(share: Batch, count: int) -> Sequence[Batch]:
    """Cuts the share of a replica into equal parts."""
    cut = {key: tf.split(value, count) for key, value in share.items()}
    return [{key: values[index] for key, values in cut.items()} for index in range(count)]


def _weighted_totals(batch: Batch, logits: tf.Tensor, loss: tf.Tensor) -> tf.Tensor:
    """Sums the totals of the real slices: [len(TOTALS)] float64."""
    totals = slice_totals(
        mask=batch["mask"],
        probability=tf.sigmoid(logits),
        loss=loss,
        threshold=PROBABILITY_THRESHOLD,
    )
    return tf.reduce_sum(totals * tf.cast(batch["weight"], tf.float64)[:, tf.newaxis], axis=0)
