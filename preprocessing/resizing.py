"""Slices and masks at another size, for datasets that are smaller than their files."""

import numpy as np
import numpy.typing as npt
from PIL import Image


def resize_slice(image: npt.NDArray[np.uint8], *, size: int) -> npt.NDArray[np.uint8]:
    """Scales a slice so that each new pixel is the mean of the area that it covers.

    Pixels that it covers in part count in part, which Pillow's box filter does not do.

    Args:
        image: [height, width] uint8 gray values.
        size: new height and width, in pixels.

    Returns:
        [size, size] uint8, rounded.
    """
    height, width = image.shape
    # Whole numbers below 2**53 add up without rounding, so every machine gives the same bytes.
    sums = _overlaps(height, size) @ image.astype(np.float64) @ _overlaps(width, size).T
    area = height * width
    return ((2 * sums.astype(np.int64) + area) // (2 * area)).astype(np.uint8)


def resize_mask(mask: npt.NDArray[np.uint8], *, size: int) -> npt.NDArray[np.uint8]:
    """Scales a mask so that each new pixel has the label of the pixel at its center.

    Args:
        mask: [height, width] uint8 labels.
        size: new height and width, in pixels.

    Returns:
        [size, size] uint8; no label that was not there.
    """
    return np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST))


def _overlaps(length: int, size: int) -> npt.NDArray[np.float64]:
    """Gives how much of each old pixel each new one covers, in units of 1 / size.

    Returns:
        [size, length]; every row adds up to `length`.
    """
    old, new = np.arange(length) * size, np.arange(size)[:, None] * length
    overlaps = np.minimum(old + size, new + length) - np.maximum(old, new)
    return np.maximum(overlaps, 0).astype(np.float64)
