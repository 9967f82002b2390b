"""Decoding of PNG and BMP files inside of the exported graph.

``tf.io.decode_bmp`` gives palette indices for gray values, and a small PNG can inflate to
gigabytes, so the headers are read first. What cannot be decoded rightly is refused; a client sees
the reason with the status INVALID_ARGUMENT. ``preprocessing.images`` reads more kinds of files.

Source: Microsoft, Bitmap Storage (BITMAPFILEHEADER, BITMAPINFOHEADER); W3C, PNG (IHDR).
"""

import tensorflow as tf

from preprocessing.spec import MAX_PIXELS
from trainer.guards import when

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
BMP_MAGIC = b"BM"
SIZE_MESSAGE = f"expected an image of 1 to {MAX_PIXELS} pixels"


def decode_slice(content: tf.Tensor) -> tf.Tensor:
    """Decodes one PNG or BMP file to gray values.

    Args:
        content: scalar string, the whole file.

    Returns:
        [height, width, 1] uint8.

    Raises:
        tf.errors.InvalidArgumentError: when run, if the file is neither, is damaged, has colors,
            16 bits a channel, a compressed BMP, or more than ``MAX_PIXELS`` pixels.
    """
    is_bmp = tf.strings.substr(content, 0, 2) == BMP_MAGIC
    is_png = tf.strings.substr(content, 0, 8) == PNG_MAGIC
    content = when(is_bmp | is_png, content, "expected a PNG or BMP file, received another")
    return tf.cond(is_bmp, lambda: _decode_bmp(content), lambda: _decode_png(content))


def _decode_png(content: tf.Tensor) -> tf.Tensor:
    whole_header = tf.strings.length(content) >= 33
    content = when(whole_header, content, "the PNG file ends inside of its header")
    size = _integers(content, offset=16, count=2, dtype=tf.int32, little_endian=False)
    content = when(_is_sensible(size), content, SIZE_MESSAGE)
    bit_depth = _integers(content, offset=24, count=1, dtype=tf.uint8)[0]
    content = when(
        bit_depth <= 8, content, "expected a PNG of 8 bits, received 16; apply a window first"
    )
    pixels = tf.io.decode_png(content, channels=0)
    opaque = (tf.shape(pixels)[2] % 2 == 1) | tf.reduce_all(pixels[..., -1] == 255)
    pixels = when(opaque, pixels, "expected an opaque PNG, received transparent pixels")
    num_colors = tf.where(tf.shape(pixels)[2] >= 3, 3, 1)
    return _gray(pixels[..., :num_colors])


def _decode_bmp(content: tf.Tensor) -> tf.Tensor:
    whole_header = tf.strings.length(content) >= 54
    content = when(whole_header, content, "the BMP file ends inside of its header")
    header_size, width, height = tf.unstack(
        _integers(content, offset=14, count=3, dtype=tf.int32), num=3
    )
    content = when(header_size >= 40, content, "expected a BMP with a header of 40 bytes or more")
    content = when(_is_sensible(tf.stack([width, tf.abs(height)])), content, SIZE_MESSAGE)
    bits = tf.cast(_integers(content, offset=28, count=1, dtype=tf.uint16)[0], tf.int32)
    compression = _integers(content, offset=30, count=1, dtype=tf.int32)[0]
    content = when(
        (compression == 0) & ((bits == 8) | (bits == 24) | (bits == 32)),
        content,
        "expected an uncompressed BMP of 8, 24 or 32 bits; send the pixels as an array instead",
    )
    pixels = tf.io.decode_bmp(content, channels=0)
    return tf.cond(
        bits == 8,
        lambda: _apply_palette(content, header_size, pixels[..., :1]),
        lambda: _gray(pixels[..., :3]),
    )


def _apply_palette(content: tf.Tensor, header_size: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    """Turns palette indices [height, width, 1] into gray values of the same shape."""
    num_used = _integers(content, offset=46, count=1, dtype=tf.int32)[0]
    num_colors = tf.where(num_used == 0, 256, num_used)
    content = when(
        (num_colors > 0)
        & (num_colors <= 256)
        & (header_size <= tf.strings.length(content) - 14 - 4 * num_colors),
        content,
        "the palette of the BMP has a wrong length",
    )
    colors = tf.io.decode_raw(
        tf.strings.substr(content, 14 + header_size, 4 * num_colors), tf.uint8
    )
    palette = _gray(tf.reshape(colors, [-1, 4])[:, :3])[:, 0]
    indices = tf.cast(indices, tf.int32)
    indices = when(
        tf.reduce_max(indices) < num_colors, indices, "the BMP has pixels beyond its palette"
    )
    return tf.gather(palette, indices)


def _gray(colors: tf.Tensor) -> tf.Tensor:
    """Takes one channel of [..., channels] when all of them agree: [..., 1]."""
    gray = colors[..., :1]
    agree = tf.reduce_all(colors == gray)
    return when(agree, gray, "expected a grayscale image, received one with colors")


def _is_sensible(size: tf.Tensor) -> tf.Tensor:
    width, height = tf.cast(size[0], tf.int64), tf.cast(size[1], tf.int64)
    return (width > 0) & (height > 0) & (width * height <= MAX_PIXELS)


def _integers(
    content: tf.Tensor, *, offset: int, count: int, dtype: tf.DType, little_endian: bool = True
) -> tf.Tensor:
    raw = tf.strings.substr(content, offset, count * dtype.size)
    return tf.ensure_shape(tf.io.decode_raw(raw, dtype, little_endian=little_endian), [count])
