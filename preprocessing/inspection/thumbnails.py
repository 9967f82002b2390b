"""A slice and its mask as two small pictures, one to lie over the other.

Apart, so that a page can hide the mask to show what is under it, and so that the outline stays
sharp while the slice is compressed well.
"""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from preprocessing.records import Example

THUMBNAIL_PX = 256
"""The longer side; about 200 are seen on a page, the rest is for fine screens."""

JPEG_QUALITY = 80

MASK_COLOR = (255, 214, 64)
"""Yellow: gray has no hue, and people who confuse red and green see it as well as others do."""

CASING_COLOR = (16, 16, 16)
"""Around the outline, since yellow on white tissue is hard to see."""

FILL_ALPHA = 40
"""Of 255; it tells which side of the outline is lung."""

_OUTSIDE, _FILL, _OUTLINE, _CASING = range(4)
_PALETTE = (0, 0, 0, *MASK_COLOR, *MASK_COLOR, *CASING_COLOR)
_ALPHAS = bytes((0, FILL_ALPHA, 255, 255))


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """Two pictures of equal size."""

    slice_jpeg: bytes
    """The slice as a JPEG file."""

    mask_png: bytes
    """Outline and fill of the mask as a PNG file, transparent elsewhere."""

    height: int
    """Rows of both."""

    width: int
    """Columns of both."""


def draw_thumbnail(example: Example) -> Thumbnail:
    """Draws a slice, scaled to `THUMBNAIL_PX`, and its mask."""
    factor = THUMBNAIL_PX / max(example.image.shape)
    height, width = (max(1, round(side * factor)) for side in example.image.shape)
    return Thumbnail(
        slice_jpeg=_encode_slice(example.image, height=height, width=width),
        mask_png=_encode_mask(_scale_mask(example.mask, height=height, width=width)),
        height=height,
        width=width,
    )


def _encode_slice(image: NDArray[np.uint8], *, height: int, width: int) -> bytes:
    # An enlarged pixel stays a square, so that a tiny mask can be judged pixel by pixel.
    is_enlarged = height > image.shape[0]
    resample = Image.Resampling.NEAREST if is_enlarged else Image.Resampling.BOX
    file = io.BytesIO()
    scaled = Image.fromarray(image).resize((width, height), resample)
    scaled.save(file, format="JPEG", quality=JPEG_QUALITY, optimize=True)
    return file.getvalue()


def _scale_mask(mask: NDArray[np.uint8], *, height: int, width: int) -> NDArray[np.bool_]:
    """Scales a mask so that no speck is lost: a pixel with any lung in it is lung."""
    if height > mask.shape[0]:
        enlarged = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
        return np.asarray(enlarged) > 0
    rows, columns = np.nonzero(mask)
    inside = np.zeros((height, width), dtype=bool)
    inside[rows * height // mask.shape[0], columns * width // mask.shape[1]] = True
    return inside


def _encode_mask(inside: NDArray[np.bool_]) -> bytes:
    picture = np.full(inside.shape, _OUTSIDE, dtype=np.uint8)
    picture[inside] = _FILL
    picture[inside & _grown(~inside)] = _OUTLINE
    picture[_grown(inside) & ~inside] = _CASING
    drawn = Image.fromarray(picture)
    drawn.putpalette(_PALETTE)
    file = io.BytesIO()
    drawn.save(file, format="PNG", transparency=_ALPHAS, bits=2, optimize=True)
    return file.getvalue()


def _grown(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Adds the pixels above, below, left and right; what is beyond the picture adds none."""
    padded = np.pad(region, 1)
    return region | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
