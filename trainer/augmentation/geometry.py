"""Changes that move pixels: slice and mask move together, and the mask stays binary."""

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trainer.augmentation.draws import ELASTIC_GRID, Draws
from trainer.augmentation.selection import change_some, column

LARGEST_MAGNIFICATION = 3.0
"""A small piece of lung does not fill the image when the field of view is fitted to the lungs."""


def move_pixels(
    *, image: tf.Tensor, mask: tf.Tensor, transform: tf.Tensor, outside: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Moves the pixels of slices and masks by flips, turns, scales and shifts.

    Args:
        image: [batch, height, width, 1] uint8 gray values.
        mask: same shape, uint8 in {0, 1}.
        transform: [batch, 8] float32, as `affine_transforms` gives them.
        outside: [batch] float32, the gray value of what comes in from outside; it is no lung.

    Returns:
        The slices as float32, interpolated bilinearly, and the masks as uint8 in {0, 1}, by nearest
        neighbor.
    """
    level = column(outside)
    moved = _transform(tf.cast(image, tf.float32) - level, transform, "BILINEAR") + level
    return moved, _transform(mask, transform, "NEAREST")


def gray_value_outside(image: tf.Tensor, draws: Draws) -> tf.Tensor:
    """Gives the gray value of what comes in from outside: [batch] float32.

    It is the mean of the corners, which are air or outside of the gantry circle, or black, as many
    scanners write it.
    """
    corners = tf.reduce_mean(
        tf.cast(image[:, :: image.shape[1] - 1, :: image.shape[2] - 1], tf.float32), [1, 2, 3]
    )
    return tf.where(draws["black_outside"], 0.0, corners)


def affine_transforms(draws: Draws, mask: tf.Tensor) -> tf.Tensor:
    """Makes flips, scales, a rotation about the center, and a shift: float32 [batch, 8].

    They take a pixel of the output to the pixel of the input that it comes from. A slice whose
    field of view is fitted to the body shows the lungs and a margin, in the middle.

    Args:
        draws: as ``trainer.augmentation.draws`` gives them.
        mask: [batch, height, width, 1] in {0, 1}; height and width are equal.

    Source: for the eight numbers, ``tf.raw_ops.ImageProjectiveTransformV3``.
    """
    size = mask.shape[1]
    x_scale = draws["x_sign"] / draws["x_magnify"]
    y_scale = draws["y_sign"] / draws["y_magnify"]
    x_center, y_center, fitted, has_lung = _lung_box(mask, draws["crop_margin"])
    is_cropped = draws["is_cropped"] & has_lung
    middle = (size - 1) / 2  # pixels count from 0, so this point stays where it is
    x_scale = tf.where(is_cropped, draws["x_sign"] * fitted, x_scale)
    y_scale = tf.where(is_cropped, draws["y_sign"] * fitted, y_scale)
    x_from = tf.where(is_cropped, x_center, middle + draws["x_shift"] * size)
    y_from = tf.where(is_cropped, y_center, middle + draws["y_shift"] * size)
    cos, sin = tf.cos(draws["angle"]), tf.sin(draws["angle"])
    a, b = x_scale * cos, -x_scale * sin
    c, d = y_scale * sin, y_scale * cos
    zero = tf.zeros_like(a)
    return tf.stack(
        [
            *(a, b, x_from - middle * (a + b)),
            *(c, d, y_from - middle * (c + d)),
            *(zero, zero),
        ],
        axis=1,
    )


def bend_pixels(image: tf.Tensor, mask: tf.Tensor, draws: Draws) -> tuple[tf.Tensor, tf.Tensor]:
    """Deforms some slices and masks elastically: every pixel comes from a place nearby.

    The shifts are drawn at the nodes of a coarse grid, and are smooth between them.

    Args:
        image: [batch, size, size, 1] float32.
        mask: same shape, uint8 in {0, 1}.
        draws: ``nodes``, [batch, rows, columns, 2], shifts down and to the right, in images.

    Source: Simard, Steinkraus, Platt, "Best practices for convolutional neural networks", ICDAR
    2003; Ronneberger et al., U-Net, 2015, for the coarse grid.
    """
    both = tf.concat([image, tf.cast(mask, tf.float32)], axis=-1)
    bent = change_some(draws["is_elastic"], _bend, both, draws["nodes"])
    return bent[..., :1], tf.cast(bent[..., 1:], tf.uint8)


def _bend(both: tf.Tensor, nodes: tf.Tensor) -> tf.Tensor:
    """Bends slices, bilinearly, and masks, by nearest neighbor: [few, size, size, 2]."""
    size = both.shape[1]
    spline = tf.constant(_spline(size, ELASTIC_GRID))
    axis = tf.range(size, dtype=tf.float32)
    # [few, nodes, nodes] -> [few, size, size], in pixels
    rows, columns = (
        tf.clip_by_value(place + size * _interpolated(shifts, spline), 0.0, size - 1.0)
        for place, shifts in ((axis[:, tf.newaxis], nodes[..., 0]), (axis, nodes[..., 1]))
    )
    first_of_slice = (tf.range(tf.shape(both)[0]) * size * size)[:, tf.newaxis, tf.newaxis]
    image, mask = (tf.reshape(both[..., channel], [-1]) for channel in (0, 1))

    def at(pixels: tf.Tensor, row: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        index = tf.cast(row * size + place, tf.int32) + first_of_slice
        return tf.gather(pixels, index)

    top, left = tf.floor(rows), tf.floor(columns)
    bottom, right = tf.minimum(top + 1, size - 1.0), tf.minimum(left + 1, size - 1.0)
    down, across = rows - top, columns - left
    above = at(image, top, left) * (1 - across) + at(image, top, right) * across
    below = at(image, bottom, left) * (1 - across) + at(image, bottom, right) * across
    bent = above * (1 - down) + below * down
    return tf.stack([bent, at(mask, tf.round(rows), tf.round(columns))], axis=-1)


def _spline(size: int, num_nodes: int) -> npt.NDArray[np.float32]:
    """Gives the weights of the nodes at each pixel, by cubic B-splines: [size, num_nodes].

    Scaled so that independent shifts of deviation 1 at the nodes have about that deviation between
    them too.
    """
    place = np.linspace(0, num_nodes - 1, size)[:, np.newaxis]
    t = np.abs(place - np.arange(num_nodes))
    weights = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6)
    return (weights / np.sqrt((weights**2).sum(axis=1).mean())).astype(np.float32)


def _lung_box(
    mask: tf.Tensor, margin: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Finds the box around the lungs: [batch] each.

    Returns:
        Its center in x and y, in pixels; the share of the image that a square around it with a
        margin takes; and whether there is any lung.
    """
    size = mask.shape[1]
    lung = tf.cast(mask[..., 0], tf.bool)
    columns, rows = tf.reduce_any(lung, axis=1), tf.reduce_any(lung, axis=2)
    ends = []
    for line in (columns, rows):
        place = tf.range(size, dtype=tf.float32)
        first = tf.reduce_min(tf.where(line, place, float(size)), axis=1)
        last = tf.reduce_max(tf.where(line, place, -1.0), axis=1)
        ends.append((first, last))
    (left, right), (top, bottom) = ends
    longest = tf.maximum(right - left, bottom - top) + 1
    fitted = tf.clip_by_value(longest * (1 + 2 * margin) / size, 1 / LARGEST_MAGNIFICATION, 1.0)
    return (left + right) / 2, (top + bottom) / 2, fitted, tf.reduce_any(columns, axis=1)


def _transform(pixels: tf.Tensor, transform: tf.Tensor, interpolation: str) -> tf.Tensor:
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels,
        transforms=transform,
        output_shape=tf.shape(pixels)[1:3],
        fill_value=0.0,
        interpolation=interpolation,
        fill_mode="CONSTANT",
    )
    return tf.ensure_shape(moved, pixels.shape)


def _interpolated(shifts: tf.Tensor, spline: tf.Tensor) -> tf.Tensor:
    """Gives [slices, size, size] from shifts at nodes, [slices, nodes, nodes].

    In plain sums: how a product of matrices is rounded depends on the number of slices in it, and a
    slice must not depend on those beside it.
    """
    along_rows = tf.reduce_sum(shifts[:, :, tf.newaxis] * spline, axis=3)
    return tf.reduce_sum(spline[:, :, tf.newaxis] * along_rows[:, tf.newaxis], axis=2)
