"""A mask as a file: PNG to look at, NPY to compute with, run lengths to store and send."""

import io
import json
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image

from preprocessing.spec import MASK_FILE_FOREGROUND
from serving.config import MASK_FORMATS

_PNG_COMPRESSION = 1
"""Pictures to look at: zlib's fastest level."""


def png_of(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Gives a PNG file of gray values [height, width] or colors [height, width, 3]."""
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG", compress_level=_PNG_COMPRESSION)
    return encoded.getvalue()


def png_of_mask(mask: npt.NDArray[np.uint8]) -> bytes:
    """Gives a PNG file of a mask, in which 255 is lung.

    Args:
        mask: [height, width]; 1 is lung, 0 is background.
    """
    return png_of(mask * np.uint8(MASK_FILE_FOREGROUND))


def npy_of_mask(mask: npt.NDArray[np.uint8]) -> bytes:
    """Gives an NPY file of a mask [height, width] uint8; 1 is lung, 0 is background."""
    encoded = io.BytesIO()
    np.save(encoded, mask, allow_pickle=False)
    return encoded.getvalue()


def rle_of_mask(mask: npt.NDArray[np.uint8]) -> bytes:
    """Gives the run lengths of a mask as JSON: ``{"size", "counts", "area_px"}``.

    ``counts`` are the lengths of the runs of background and lung in turn, down the columns, from
    the left; the first is background, and 0 where the first pixel is lung. It is the uncompressed
    form of COCO, which ``pycocotools.mask.frPyObjects`` takes.

    Args:
        mask: [height, width]; 1 is lung, 0 is background.

    Source: https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.h
    """
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(pixels)) + 1
    starts = [0] if pixels[0] == 0 else [0, 0]
    counts = np.diff([*starts, *changes.tolist(), pixels.size])
    document = {
        "size": list(mask.shape),
        "counts": counts.tolist(),
        "area_px": int(np.count_nonzero(mask)),
    }
    return json.dumps(document).encode() + b"\n"


WRITERS: Mapping[str, tuple[str, Callable[[npt.NDArray[np.uint8]], bytes]]] = dict(
    zip(
        MASK_FORMATS,
        ((".png", png_of_mask), (".npy", npy_of_mask), (".json", rle_of_mask)),
        strict=True,
    )
)
"""By format: the suffix of its files, and what makes their content."""
