"""Adam, its learning rate, and the moving average of the weights, on each replica alike.

Keras' optimizers sum gradients over the replicas when they apply them, so they clip each replica's
gradient rather than their sum, and cannot skip a step inside of a graph. Here the caller hands in
gradients that are summed already, and every replica updates its own copy with the same numbers:
see docs/decisions/0010-own-optimizer.md.
"""

import math
from collections.abc import Sequence

import tensorflow as tf

from trainer.config import TrainerConfig
from trainer.distribution import local_handle

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7
"""Of Adam; what Keras takes by default."""

EMA_WARMUP_STEPS = 10
"""The average of the first steps forgets faster, so that the random start does not stay in it."""

FIRST_LOSS_SCALE = 2.0**15
LARGEST_LOSS_SCALE = 2.0**24
STEPS_TO_DOUBLE = 2000
"""Of loss scaling, float16 only: the scale is doubled after this many steps that went well."""


class Optimizer(tf.Module):
    """Adam with clipping, a schedule, a moving average, and loss scaling for float16.

    Source: Kingma and Ba, Adam, arXiv 1412.6980; Micikevicius et al., Mixed Precision Training,
    arXiv 1710.03740.
    """

    def __init__(
        self,
        config: TrainerConfig,
        variables: Sequence[tf.Variable],
        averages: Sequence[tf.Variable],
        *,
        steps_per_epoch: int,
    ) -> None:
        """Makes the state; to be called in the scope of the strategy.

        Args:
            config: gives learning rate, schedule, clipping, decay and precision.
            variables: float32, to be trained.
            averages: of the same shapes, which follow them if ``config.ema_decay`` is not 0; empty
                if it is.
            steps_per_epoch: turns the epochs of the schedule into steps.
        """
        super().__init__(name="optimizer")
        self._config = config
        self._variables = list(variables)
        self._averages = list(averages)
        self._steps_per_epoch = steps_per_epoch
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self.first_moments = [_zeros_like(variable) for variable in variables]
        self.second_moments = [_zeros_like(variable) for variable in variables]
        self.scales_loss = config.precision == "float16"
        self.loss_scale = tf.Variable(FIRST_LOSS_SCALE, trainable=False, name="loss_scale")
        self.good_steps = tf.Variable(0, dtype=tf.int64, trainable=False, name="good_steps")

    @property
    def state(self) -> dict[str, tf.Variable]:
        """All that has to be kept for a run to go on, by name."""
        state = {"optimizer/step": self.step}
        if self.scales_loss:
            state["optimizer/loss_scale"] = self.loss_scale
            state["optimizer/good_steps"] = self.good_steps
        for index in range(len(self._variables)):
            state[f"optimizer/first_moment/{index:03}"] = self.first_moments[index]
            state[f"optimizer/second_moment/{index:03}"] = self.second_moments[index]
        return state

    def learning_rate(self, step: tf.Tensor) -> tf.Tensor:
        """Gives the learning rate of a step: a float32 scalar.

        Args:
            step: steps that were made before it, a scalar of integers.
        """
        config = self._config
        epoch = tf.cast(step, tf.float32) / self._steps_per_epoch
        factor = tf.constant(1.0)
        if config.schedule != "constant":
            left = self._weight_left(epoch) / self._weight_left(tf.constant(config.warmup_epochs))
            factor = 0.5 - 0.5 * tf.cos(math.pi * tf.clip_by_value(left, 0.0, 1.0))
        if config.warmup_epochs:
            # The first step has a rate already, or it would be lost.
            first = (tf.cast(step, tf.float32) + 1) / self._steps_per_epoch
            factor = tf.where(
                epoch < config.warmup_epochs,
                tf.minimum(first / config.warmup_epochs, 1.0),
                factor,
            )
        return config.learning_rate * factor

    def _weight_left(self, epoch: tf.Tensor) -> tf.Tensor:
        """Sums the weights of the epochs that are left after a number of them; one may be begun.

        The few full-sized epochs at the end would come too late for a rate that fell by epochs:
        what was learned on small slices has to be learned again on large ones.
        """
        epochs = range(1, self._config.epochs + 1)
        by_size = self._config.schedule == "cosine_by_size"
        weights = [1 / self._config.reduction(each) if by_size else 1.0 for each in epochs]
        done = tf.clip_by_value(epoch - tf.range(len(weights), dtype=tf.float32), 0.0, 1.0)
        return tf.maximum(tf.reduce_sum(weights * (1 - done)), 1e-6)

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Updates the weights once; to be called inside of a replica, on all of them alike.

        Args:
            gradients: of the variables, summed over the replicas, and times ``loss_scale`` if
                ``scales_loss``. A gradient that is not finite is then left out, and the scale is
                halved.
        """
        if not self.scales_loss:
            self._update(gradients)
            return
        unscaled = [gradient / self.loss_scale for gradient in gradients]
        is_finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(each)) for each in unscaled])
        tf.cond(is_finite, lambda: self._update(unscaled), lambda: None)
        self._adapt_scale(is_finite)

    def _update(self, gradients: Sequence[tf.Tensor]) -> None:
        if self._config.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self._config.clip_norm)
        step = tf.identity(self.step)
        count = tf.cast(step + 1, tf.float32)
        # Made once and not for each of the variables: a graph of fewer operations is built sooner.
        settings = {
            "beta1_power": BETA_1**count,
            "beta2_power": BETA_2**count,
            "lr": self.learning_rate(step),
            "beta1": tf.constant(BETA_1),
            "beta2": tf.constant(BETA_2),
            "epsilon": tf.constant(EPSILON),
        }
        for variable, first, second, gradient in zip(
            self._variables, self.first_moments, self.second_moments, gradients, strict=True
        ):
            tf.raw_ops.ResourceApplyAdam(
                var=local_handle(variable),
                m=local_handle(first),
                v=local_handle(second),
                grad=gradient,
                **settings,
            )
        _assign(self.step, step + 1)
        if self._averages:
            decay = tf.minimum(self._config.ema_decay, count / (count + EMA_WARMUP_STEPS))
            rest = 1 - decay
            for average, variable in zip(self._averages, self._variables, strict=True):
                value = tf.raw_ops.ReadVariableOp(resource=local_handle(variable), dtype=tf.float32)
                mean = tf.raw_ops.ReadVariableOp(resource=local_handle(average), dtype=tf.float32)
                _assign(average, decay * mean + rest * value)

    def _adapt_scale(self, is_finite: tf.Tensor) -> None:
        good_steps = tf.where(is_finite, self.good_steps + 1, tf.constant(0, tf.int64))
        doubles = good_steps >= STEPS_TO_DOUBLE
        grown = tf.where(
            doubles, tf.minimum(self.loss_scale * 2, LARGEST_LOSS_SCALE), self.loss_scale
        )
        scale = tf.where(is_finite, grown, tf.maximum(self.loss_scale / 2, 1.0))
        _assign(self.loss_scale, scale)
        _assign(self.good_steps, tf.where(doubles, tf.constant(0, tf.int64), good_steps))


def _zeros_like(variable: tf.Variable) -> tf.Variable:
    return tf.Variable(tf.zeros(variable.shape, variable.dtype), trainable=False)


def _assign(variable: tf.Variable, value: tf.Tensor) -> None:
    """Sets the copy of this replica; all replicas set the same value."""
    tf.raw_ops.AssignVariableOp(resource=local_handle(variable), value=value)
