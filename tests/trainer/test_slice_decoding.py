"""Files made by Pillow, and by hand where Pillow cannot write them."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from preprocessing.spec import MAX_PIXELS
from trainer.slice_decoding import decode_slice

GRAY = np.array([[0, 50, 100], [150, 200, 255]], np.uint8)
decode = tf.function(decode_slice, input_signature=[tf.TensorSpec([], tf.string)])


def encoded(pixels: np.ndarray, kind: str, mode: str | None = None) -> bytes:
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind)
    return buffer.getvalue()


def bmp(
    indices: np.ndarray, palette: list[int], *, bits: int = 8, compression: int = 0, used: int = 0
) -> bytes:
    """An 8-bit BMP with a gray palette, rows from top to bottom."""
    height, width = indices.shape
    rows = b"".join(row.tobytes() + bytes(-width % 4) for row in indices)
    colors = b"".join(bytes([gray, gray, gray, 0]) for gray in palette)
    offset = 54 + len(colors)
    return (
        struct.pack("<2sIHHI", b"BM", offset + len(rows), 0, 0, offset)
        + struct.pack("<IiiHHI", 40, width, -height, 1, bits, compression)
        + struct.pack("<IiiII", len(rows), 0, 0, used, 0)
        + colors
        + rows
    )


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + header
        + struct.pack(">I", zlib.crc32(header))
    )


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
@pytest.mark.parametrize("mode", [None, "RGB", "RGBA"])
def test_gray_file_gives_its_gray_values(kind, mode):
    assert np.array_equal(decode(encoded(GRAY, kind, mode))[:, :, 0], GRAY)


def test_gray_png_with_opaque_alpha_gives_its_gray_values():
    assert np.array_equal(decode(encoded(GRAY, "PNG", "LA"))[:, :, 0], GRAY)


def test_one_bit_png_gives_black_and_white():
    assert np.array_equal(decode(encoded(GRAY > 120, "PNG"))[:, :, 0], (GRAY > 120) * 255)


def test_inverted_palette_gives_right_gray_values():
    content = bmp(255 - GRAY, list(range(255, -1, -1)))
    with Image.open(io.BytesIO(content)) as image:
        assert np.array_equal(np.asarray(image.convert("L")), GRAY)
    assert np.array_equal(decode(content)[:, :, 0], GRAY)


def test_short_palette_gives_right_gray_values():
    indices = np.array([[0, 1], [1, 0]], np.uint8)
    assert decode(bmp(indices, [10, 200], used=2)).numpy()[:, :, 0].tolist() == [
        [10, 200],
        [200, 10],
    ]


COLORED = np.array([[[10, 20, 30], [1, 1, 1]]], np.uint8)
TRANSPARENT = np.array([[[9, 9, 9, 0]]], np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>not found</html>", "expected a PNG or BMP file"),
        (b"", "expected a PNG or BMP file"),
        (b"BM", "the BMP file ends inside of its header"),
        (b"\x89PNG\r\n\x1a\n", "the PNG file ends inside of its header"),
        (encoded(GRAY, "PNG")[:-30], "Invalid PNG"),
        (encoded(GRAY, "BMP")[:-3], "Input size should match"),
        (encoded(GRAY.astype(np.uint16) * 9, "PNG"), "expected a PNG of 8 bits, received 16"),
        (encoded(COLORED, "PNG"), "expected a grayscale image"),
        (encoded(COLORED, "BMP"), "expected a grayscale image"),
        (encoded(TRANSPARENT, "PNG"), "expected an opaque PNG"),
        (png_header(60_000, 60_000), f"expected an image of 1 to {MAX_PIXELS} pixels"),
        (png_header(0, 5), f"expected an image of 1 to {MAX_PIXELS} pixels"),
        (bmp(GRAY, list(range(256)), compression=1), "expected an uncompressed BMP"),
        (bmp(GRAY, list(range(256)), bits=4), "expected an uncompressed BMP of 8, 24 or 32 bits"),
        (bmp(GRAY, [0, 1], used=2), "the BMP has pixels beyond its palette"),
        (bmp(GRAY, [0, 1], used=999), "the palette of the BMP has a wrong length"),
        (encoded(GRAY, "JPEG"), "expected a PNG or BMP file"),
    ],
)
def test_file_that_cannot_be_decoded_rightly_is_refused(content, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decode(content)
