"""Changes of what is around the body: couch, gantry circle, background."""

import tensorflow as tf

from trainer.augmentation.config import AugmentationConfig
from trainer.augmentation.draws import Draws
from trainer.augmentation.selection import change_some, column

COARSE = 64
"""Height and width at which the body is looked for, in pixels."""

LEVELS = 32
"""Gray values between which air and body are told apart."""


def change_scene(
    config: AugmentationConfig, image: tf.Tensor, mask: tf.Tensor, draws: Draws
) -> tuple[tf.Tensor, tf.Tensor]:
    """Removes the background, draws a couch, and cuts out the gantry circle, in this order.

    Args:
        config: what is 0 in it is left out.
        image: [batch, size, size, 1] float32 gray values, 0 to 255.
        mask: same shape, uint8 in {0, 1}.
        draws: as ``trainer.augmentation.draws`` gives them.

    Returns:
        Both; what is outside of the gantry circle is no lung any more.
    """
    if config.background_removal:
        image = change_some(
            draws["is_background_removed"], _remove_background, image, tf.cast(mask, tf.float32)
        )
    if config.couch:
        names = ("couch_gap", "couch_curve", "couch_thickness", "couch_depth", "couch_gray")
        image = change_some(
            draws["has_couch"], _draw_couch, image, *(draws[name] for name in names)
        )
    if config.gantry_circle:
        inside = _is_in_circle(draws, image.shape[1]) | ~column(draws["has_circle"])
        image = tf.where(inside, image, column(draws["circle_gray"]))
        mask = tf.where(inside, mask, tf.zeros_like(mask))
    return image, mask


def find_body(image: tf.Tensor) -> tf.Tensor:
    """Tells the body from the air, the couch and thin things around it.

    What is brighter than air is opened, so that shells of couches and sheets vanish; then whatever
    lies between body above, below, left and right of it is body too, such as the lungs.

    Args:
        image: [few, size, size, 1] float32.

    Returns:
        Of the same shape, float32 in [0, 1], with soft edges; found on a coarse grid.
    """
    size = image.shape[1]
    coarse = tf.image.resize(image, [COARSE, COARSE], method="area")
    bright = tf.cast(coarse > _otsu(coarse), tf.float32)
    # Opening by 3 pixels of 64: about 20 mm.
    opened = _dilate(1 - _dilate(1 - bright))
    hull = tf.ones_like(opened)
    for axis in (1, 2):
        hull *= _running_max(opened, axis) * tf.reverse(
            _running_max(tf.reverse(opened, [axis]), axis), [axis]
        )
    # The skin is not lost to the coarse grid.
    return tf.image.resize(_dilate(hull), [size, size], method="bilinear")


def _remove_background(image: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Makes black what is outside of the body; never lung."""
    return image * tf.maximum(find_body(image), mask)


def _draw_couch(
    image: tf.Tensor,
    gap: tf.Tensor,
    curve: tf.Tensor,
    thickness: tf.Tensor,
    depth: tf.Tensor,
    gray: tf.Tensor,
) -> tf.Tensor:
    """Draws two lines below the body, straight or bent; all lengths are shares of the image."""
    size = image.shape[1]
    # Without the channel, as broadcasting over a last dimension of 1 is slow.
    body = find_body(image)[..., 0]
    axis = (tf.range(size, dtype=tf.float32) + 0.5) / size
    gap, curve, thickness, depth, gray = (
        values[:, tf.newaxis, tf.newaxis] for values in (gap, curve, thickness, depth, gray)
    )
    is_body_row = tf.reduce_any(body > 0.5, axis=2)  # [few, size]
    bottom = tf.reduce_max(tf.where(is_body_row, axis, 0.0), axis=1)[:, tf.newaxis, tf.newaxis]
    upper = bottom + gap - curve * (axis - 0.5) ** 2  # [few, 1, size]
    nearest = tf.minimum(
        tf.abs(axis[:, tf.newaxis] - upper), tf.abs(axis[:, tf.newaxis] - (upper + depth))
    )
    line = tf.clip_by_value((thickness - nearest) * size + 0.5, 0.0, 1.0) * (1 - body)
    shown = image[..., 0]
    return (shown + line * tf.maximum(gray - shown, 0.0))[..., tf.newaxis]


def _is_in_circle(draws: Draws, size: int) -> tf.Tensor:
    """Tells which pixels a scanner reconstructs: bool [batch, size, size, 1]."""
    axis = (tf.range(size, dtype=tf.float32) + 0.5) / size - 0.5
    x = axis - draws["circle_center"][:, :1]  # [batch, size]
    y = axis - draws["circle_center"][:, 1:]
    squared = x[:, tf.newaxis, :] ** 2 + y[:, :, tf.newaxis] ** 2
    return (squared <= draws["circle_radius"][:, tf.newaxis, tf.newaxis] ** 2)[..., tf.newaxis]


def _otsu(image: tf.Tensor) -> tf.Tensor:
    """Gives the gray value that parts dark from bright with the largest variance between the two.

    Returns:
        [few, 1, 1, 1].

    Source: Otsu, "A threshold selection method from gray-level histograms", IEEE Transactions on
    Systems, Man, and Cybernetics 9(1), 1979.
    """
    levels = tf.linspace(0.0, 255.0, LEVELS + 1)[1:-1]
    pixels = tf.reshape(image, [tf.shape(image)[0], -1, 1])
    is_bright = tf.cast(pixels > levels, tf.float32)  # [few, pixels, levels]
    share = tf.reduce_mean(is_bright, axis=1)
    bright_sum = tf.reduce_mean(is_bright * pixels, axis=1)
    mean = tf.reduce_mean(pixels, axis=1)
    between = (bright_sum - share * mean) ** 2 / tf.maximum(share * (1 - share), 1e-6)
    return column(tf.gather(levels, tf.argmax(between, axis=1)))


def _dilate(pixels: tf.Tensor) -> tf.Tensor:
    return tf.nn.max_pool2d(pixels, 3, 1, "SAME")


def _running_max(pixels: tf.Tensor, axis: int) -> tf.Tensor:
    """Gives 1 from the first pixel of 1 on, along an axis."""
    return tf.minimum(tf.cumsum(pixels, axis=axis), 1.0)
