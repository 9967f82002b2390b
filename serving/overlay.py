"""A slice with its mask on it, as a picture to look at."""

import numpy as np
import numpy.typing as npt
from PIL import Image

FILL_COLOR = (0, 190, 255)
OUTLINE_COLOR = (255, 214, 64)
FILL_OPACITY = 0.32

_COMFORTABLE_PX = 512
"""Smaller slices are enlarged to about this, so that an outline does not cover them."""

_GRAY = np.arange(256)[:, np.newaxis]
_FILLED = np.rint(_GRAY + FILL_OPACITY * (np.array(FILL_COLOR) - _GRAY)).astype(np.uint8)
"""[256, 3] RGB of each gray value under the fill."""


def draw_overlay(
    image: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """Draws a mask on its slice: a translucent fill inside a thin outline.

    Args:
        image: [height, width] uint8 gray values.
        mask: [height, width]; above 0 is lung.

    Returns:
        [height * n, width * n, 3] uint8 RGB, n a whole number: 1 for slices of 512 pixels and more,
        and what brings smaller ones near to that.

    Raises:
        ValueError: if the two sizes differ.
    """
    if image.shape != mask.shape:
        raise ValueError(
            f"the slice is {list(image.shape)} and the mask {list(mask.shape)}; expected one size"
        )
    factor = max(1, _COMFORTABLE_PX // max(image.shape))
    gray = _enlarged(image, factor)
    inside = np.kron(mask > 0, np.ones((factor, factor), dtype=bool))
    outline = inside & ~_eroded(inside, times=max(1, round(max(gray.shape) / _COMFORTABLE_PX)))
    # [height, width] gray -> [height, width, 3]
    picture = np.where(inside[:, :, np.newaxis], _FILLED[gray], gray[:, :, np.newaxis])
    picture[outline] = OUTLINE_COLOR
    return picture


def _enlarged(image: npt.NDArray[np.uint8], factor: int) -> npt.NDArray[np.uint8]:
    if factor == 1:
        return image
    height, width = image.shape
    larger = Image.fromarray(image).resize(
        (width * factor, height * factor), Image.Resampling.BICUBIC
    )
    return np.asarray(larger)


def _eroded(mask: npt.NDArray[np.bool_], *, times: int) -> npt.NDArray[np.bool_]:
    """Takes ``times`` pixels off the rim; the picture's own border counts as outside."""
    for _ in range(times):
        padded = np.pad(mask, 1)
        mask = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask
