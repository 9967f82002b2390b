"""Pixels -> PNG, fast: encoding is what takes the time of a conversion.

Every pixel of a slice is stored as its difference from the one to its left (filter "sub"), and zlib
looks for runs only. That takes a small part of the time of Pillow's default and gives files of the
same size. Masks are runs as they are.
"""

import struct

import numpy as np
import numpy.typing as npt
from zlib_ng import zlib_ng

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NO_FILTER = 0
_SUB_FILTER = 1
_BIT_DEPTH = 8
_GRAYSCALE = 0
_COMPRESSION_LEVEL = 1
_WINDOW_BITS = 15
_MEMORY_LEVEL = 8


def encode_png(pixels: npt.NDArray[np.uint8], *, is_flat: bool = False) -> bytes:
    """Encodes gray values without loss.

    The same pixels and the same zlib-ng give the same bytes.

    Args:
        pixels: [height, width] uint8.
        is_flat: whether neighbors are mostly equal, as in a mask; it makes the file smaller.

    Returns:
        A whole PNG file: 8 bits, grayscale.

    Raises:
        ValueError: if `pixels` is of another type or rank, or holds nothing.

    Source: Portable Network Graphics (PNG) Specification, third edition, sections 5, 9 and 11.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.size == 0:
        raise ValueError(
            f"received pixels of type {pixels.dtype} and shape {list(pixels.shape)}; "
            "expected uint8 of shape [height, width], both at least 1"
        )
    height, width = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, _BIT_DEPTH, _GRAYSCALE, 0, 0, 0)
    return b"".join(
        (
            SIGNATURE,
            _chunk(b"IHDR", header),
            _chunk(b"IDAT", _compress(_rows(pixels) if is_flat else _filter_sub(pixels))),
            _chunk(b"IEND", b""),
        )
    )


def _rows(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Gives [height, 1 + width]: the number of the filter, here none, before each row."""
    return np.pad(pixels, ((0, 0), (1, 0)), constant_values=_NO_FILTER)


def _filter_sub(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Gives [height, 1 + width]: the number of the filter, then differences from the left."""
    height, width = pixels.shape
    rows = np.empty((height, 1 + width), np.uint8)
    rows[:, 0] = _SUB_FILTER
    rows[:, 1] = pixels[:, 0]
    np.subtract(pixels[:, 1:], pixels[:, :-1], out=rows[:, 2:])  # modulo 256, as PNG wants it
    return rows


def _compress(rows: npt.NDArray[np.uint8]) -> bytes:
    compressor = zlib_ng.compressobj(
        _COMPRESSION_LEVEL, zlib_ng.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL, zlib_ng.Z_RLE
    )
    return compressor.compress(rows.data) + compressor.flush()


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib_ng.crc32(content, zlib_ng.crc32(kind))
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
