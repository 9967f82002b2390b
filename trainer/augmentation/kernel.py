"""Changes of what reconstruction does: resolution, smooth and sharp kernels, noise."""

import tensorflow as tf

from trainer.augmentation.config import AugmentationConfig
from trainer.augmentation.draws import Draws
from trainer.augmentation.selection import change_some, column


def change_kernel(config: AugmentationConfig, image: tf.Tensor, draws: Draws) -> tf.Tensor:
    """Changes resolution, sharpness and noise, in this order.

    Args:
        config: what is 0 in it is left out.
        image: [batch, size, size, 1] float32 gray values, 0 to 255.
        draws: as ``trainer.augmentation.draws`` gives them.

    Returns:
        Of the same shape, and 0 to 255 too.
    """
    if config.low_resolution:
        image = change_some(draws["is_coarse"], _coarsen, image, draws["coarseness"])
    if config.blur:
        image = change_some(draws["is_blurred"], _blur, image, draws["blur"])
    if config.sharpen:
        image = change_some(draws["is_sharpened"], _sharpen, image, draws["sharpen"])
    if config.noise:
        image = change_some(
            draws["is_noisy"],
            _add_noise,
            image,
            *(draws["noise"], draws["grain"], draws["noise_seed"]),
        )
    return tf.clip_by_value(image, 0.0, 255.0)


def _coarsen(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Samples slices at a resolution lower by a factor of 1 or more, and enlarges them again.

    Source: nnU-Net's simulation of low resolution, Isensee et al., Nature Methods 18, 2021.
    """
    size = image.shape[1]
    zero, one = tf.zeros_like(factor), tf.ones_like(factor)

    def scaled(pixels: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        # The centers of the outer pixels stay within the picture.
        shift = (scale - 1) / 2
        rows = [scale, zero, shift, zero, scale, shift, zero, zero]
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=pixels,
            transforms=tf.stack(rows, axis=1),
            output_shape=[size, size],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="NEAREST",
        )

    # What a coarse pixel covers is averaged, as a thick ray does it.
    smooth = image + column(tf.minimum(factor - 1, one)) * (_mean_of_neighbors(image) - image)
    return scaled(scaled(smooth, factor), 1 / factor)


def _blur(image: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    return image + column(amount) * (_mean_of_neighbors(_mean_of_neighbors(image)) - image)


def _sharpen(image: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    """Adds what a blur takes away: edges overshoot, as with a sharp kernel."""
    smooth = _mean_of_neighbors(image)
    return tf.clip_by_value(image + column(2 * amount) * (image - smooth), 0.0, 255.0)


def _add_noise(
    image: tf.Tensor, deviation: tf.Tensor, grain: tf.Tensor, seeds: tf.Tensor
) -> tf.Tensor:
    """Adds noise of a given standard deviation: smooth (grain 1), white (0), or sharp (-1).

    Sharp noise lacks the low frequencies, as that of filtered back-projection; smooth noise has
    nothing else, as that of a soft kernel.

    Args:
        image: [few, size, size, 1].
        deviation: [few], in gray values.
        grain: [few], -1 to 1.
        seeds: int32 [few, 2]: no slice's noise depends on who else is on its replica.
    """
    shape = image.shape[1:]
    white = tf.map_fn(
        lambda seed: tf.random.stateless_normal(shape, seed),
        seeds,
        fn_output_signature=tf.TensorSpec(shape, tf.float32),
    )
    share = column(tf.maximum(grain, 0.0))
    smooth = _mean_of_neighbors(white)
    noise = white * (1 - share) + smooth * (share - column(tf.maximum(-grain, 0.0)))
    # Of white noise of deviation 1; a mean of nine has a third of it, and shares what it is of.
    own = 1 - share
    neighbors = share - column(tf.maximum(-grain, 0.0))
    variance = own**2 + 2 * own * neighbors / 9 + neighbors**2 / 9
    return image + column(deviation) * noise * tf.math.rsqrt(variance)


def _mean_of_neighbors(image: tf.Tensor) -> tf.Tensor:
    """Gives each pixel the mean of the 3 x 3 around it, or of those of them that there are."""
    return tf.nn.avg_pool2d(image, 3, 1, "SAME")
