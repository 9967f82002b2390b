"""Random changes of slices on training, in the order in which a scanner makes its pictures.

What happens to a slice is drawn in the input pipeline, from the seed, the epoch and the position in
the epoch: it does not depend on the number of replicas. The pixels are changed on the device, a
whole batch at a time: first where they lie, then what is around the body, then sharpness and noise,
and last how bright they are shown.
"""

import tensorflow as tf

from trainer.augmentation.config import AugmentationConfig
from trainer.augmentation.draws import Draws
from trainer.augmentation.geometry import (
    affine_transforms,
    bend_pixels,
    gray_value_outside,
    move_pixels,
)
from trainer.augmentation.gray_values import change_gray_values
from trainer.augmentation.kernel import change_kernel
from trainer.augmentation.scene import change_scene


def augment(
    config: AugmentationConfig, *, image: tf.Tensor, mask: tf.Tensor, draws: Draws
) -> tuple[tf.Tensor, tf.Tensor]:
    """Changes slices and masks as it was drawn.

    Args:
        config: what is 0 in it is left out.
        image: [batch, size, size, 1] uint8 gray values; the batch is of known size.
        mask: same shape, uint8 in {0, 1}.
        draws: as ``trainer.augmentation.draws.draw_augmentation`` gives them.

    Returns:
        The slices as float32, 0 to 255, and the masks as uint8 in {0, 1}.
    """
    moved, mask = move_pixels(
        image=image,
        mask=mask,
        transform=affine_transforms(draws, mask),
        outside=gray_value_outside(image, draws),
    )
    if config.elastic:
        moved, mask = bend_pixels(moved, mask, draws)
    moved, mask = change_scene(config, moved, mask, draws)
    moved = change_kernel(config, moved, draws)
    return change_gray_values(config, moved, draws), mask
