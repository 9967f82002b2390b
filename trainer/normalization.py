"""Instance normalization, by TensorFlow's fused kernels."""

from typing import Any

import keras
import tensorflow as tf

EPSILON = 1e-5
"""Added to the variance, so that an even channel is not divided by zero."""


class InstanceNormalization(keras.layers.Layer):
    """Brings each channel of each slice to mean 0 and deviation 1, then scales and shifts it.

    The statistics are those of the slice alone: they are the same on one replica and on many, in
    training and in serving, and padding has no part in them. See
    docs/decisions/0009-instance-normalization.md.

    Source: Ulyanov et al., Instance Normalization, arXiv 1607.08022.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes scale and offset, float32 [channels]; they stay float32 at any precision."""
        channels = (input_shape[-1],)
        self.scale = self.add_weight(
            shape=channels, initializer="ones", dtype="float32", autocast=False, name="scale"
        )
        self.offset = self.add_weight(
            shape=channels, initializer="zeros", dtype="float32", autocast=False, name="offset"
        )

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Normalizes [batch, height, width, channels]; the batch is of a fixed size on training."""
        scale, offset = (tf.convert_to_tensor(each) for each in (self.scale, self.offset))
        if training:
            # Of batch normalization on one slice: the same formula, in one pass over the memory.
            slices = [_normalize_fused(each, scale, offset) for each in tf.split(x, x.shape[0])]
            return tf.concat(slices, axis=0)
        # The fused kernel knows no batch of unknown size.
        mean, variance = tf.nn.moments(tf.cast(x, tf.float32), axes=[1, 2], keepdims=True)
        factor = scale * tf.math.rsqrt(variance + EPSILON)
        return tf.cast(tf.cast(x, tf.float32) * factor + (offset - mean * factor), x.dtype)


def _normalize_fused(x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    empty: Any = tf.zeros([0])
    return tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=scale,
        offset=offset,
        mean=empty,
        variance=empty,
        epsilon=EPSILON,
        is_training=True,
    ).y
