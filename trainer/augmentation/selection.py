"""Changes to some slices of a batch: what is drawn for a few is computed for a few."""

from collections.abc import Callable

import tensorflow as tf


def change_some(
    chosen: tf.Tensor,
    change: Callable[..., tf.Tensor],
    pixels: tf.Tensor,
    *draws: tf.Tensor,
) -> tf.Tensor:
    """Changes the slices that are chosen, and leaves the others as they are.

    Args:
        chosen: bool [batch].
        change: from some slices and their draws to slices of the same shape and type.
        pixels: [batch, height, width, channels].
        draws: [batch, …] each.
    """

    def of_chosen() -> tf.Tensor:
        index = tf.where(chosen)
        few = [tf.gather_nd(each, index) for each in (pixels, *draws)]
        return tf.tensor_scatter_nd_update(pixels, index, change(*few))

    # Some kernels know no batch of no slices.
    changed = tf.cond(tf.reduce_any(chosen), of_chosen, lambda: tf.identity(pixels))
    return tf.ensure_shape(changed, pixels.shape)


def column(values: tf.Tensor) -> tf.Tensor:
    """Makes [batch, 1, 1, 1] of [batch]."""
    return values[:, tf.newaxis, tf.newaxis, tf.newaxis]
