"""PNG, TIFF and JPEG -> gray values, decoded by Pillow and held to the same rules as BMP."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from preprocessing.images.checks import MEND, RefusedError, check_gray, check_size

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
TIFF_MAGICS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
"""Little-endian and big-endian, and the same as BigTIFF."""

_PNG_END = b"IEND"
_PNG_CHUNK_BYTES = 12
"""Length, name and checksum of a chunk."""

_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By color type: gray, color, palette, gray with alpha, color with alpha."""

_PNG_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""First column, first row and steps of each pass of an interlaced PNG (section 8.2)."""

_MAX_BITS = 8
_UNSIGNED = 1
_STRIP_TAGS = (
    (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.STRIPBYTECOUNTS),
    (TiffImagePlugin.TILEOFFSETS, TiffImagePlugin.TILEBYTECOUNTS),
)
_MAX_8_BIT_COLOR = 255
_LOSSY_TIFF_COMPRESSIONS = ("tiff_jpeg", "jpeg", "webp", "jpeg2000")

# Pillow remarks on odd metadata, which is of no use to anybody; what matters, it raises.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")

# All that Pillow raises on damaged files of these formats.
_PILLOW_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def decode_png(data: bytes) -> npt.NDArray[np.uint8]:
    """Decodes the gray values of a PNG.

    Args:
        data: a whole file.

    Returns:
        [height, width] uint8.

    Raises:
        RefusedError: if the file is damaged, truncated, in color, transparent in parts, or has more
            than 8 bits a channel.
    """
    try:
        width, height, bit_depth, color_type, _, _, is_interlaced = struct.unpack_from(
            ">IIBBBBB", data, 16
        )
    except struct.error as error:
        raise RefusedError(
            f"is a truncated PNG: it ends inside of its header, after {len(data)} bytes; {MEND}"
        ) from error
    check_size(width, height)
    _check_bits(bit_depth, kind="PNG")
    packed = _read_pixel_chunks(data)
    row_bits = bit_depth * _PNG_CHANNELS.get(color_type, 1)
    _check_pixel_bytes(
        packed, width=width, height=height, row_bits=row_bits, is_interlaced=bool(is_interlaced)
    )
    with _damage_told("PNG"):
        image = PngImagePlugin.PngImageFile(io.BytesIO(data))
        _check_single(image, kind="PNG")
        image.load()
        return _gray_values(image, kind="PNG")


def decode_tiff(data: bytes, *, must_be_lossless: bool) -> npt.NDArray[np.uint8]:
    """Decodes the gray values of a TIFF that holds one image.

    Args:
        data: a whole file.
        must_be_lossless: whether JPEG and WebP inside of it are refused.

    Returns:
        [height, width] uint8, turned as its orientation tag says.

    Raises:
        RefusedError: if the file is damaged, truncated, in color, transparent in parts, lossy where
            it must not be, or holds several images, signed numbers, or more than 8 bits a channel.
    """
    with _damage_told("TIFF"):
        image = TiffImagePlugin.TiffImageFile(io.BytesIO(data))
        check_size(*image.size)
        _check_bits(max(_numbers(image, TiffImagePlugin.BITSPERSAMPLE)), kind="TIFF")
        if set(_numbers(image, TiffImagePlugin.SAMPLEFORMAT)) != {_UNSIGNED}:
            raise RefusedError(
                f"is a TIFF of signed or fractional numbers; expected 0 to 255; {MEND}"
            )
        compression = image.info.get("compression")
        if must_be_lossless and compression in _LOSSY_TIFF_COMPRESSIONS:
            raise RefusedError(
                f"is a TIFF with {compression} compression, which changes gray values; expected a "
                f"lossless one for a mask; {MEND}"
            )
        _check_single(image, kind="TIFF")
        _check_length(image, data)
        _check_colormap(image)
        image.load()  # turns it, too
        return _gray_values(image, kind="TIFF")


def decode_jpeg(data: bytes) -> npt.NDArray[np.uint8]:
    """Decodes the gray values of a JPEG.

    Args:
        data: a whole file.

    Returns:
        [height, width] uint8, turned as its orientation tag says.

    Raises:
        RefusedError: if the file is damaged, truncated or in color.
    """
    with _damage_told("JPEG"):
        image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
        check_size(*image.size)
        if image.mode not in ("L", "RGB"):
            raise RefusedError(
                f"is a JPEG of colors for print ({image.mode}); expected grays; {MEND}"
            )
        image.load()
        return _gray_values(ImageOps.exif_transpose(image), kind="JPEG")


def _read_pixel_chunks(data: bytes) -> bytes:
    """Gives the compressed pixels; compares checksums, which Pillow does not do for pixels."""
    position, kind = len(PNG_MAGIC), b""
    packed = []
    while kind != _PNG_END:
        if position + _PNG_CHUNK_BYTES > len(data):
            raise RefusedError(f"is a truncated PNG: its end is missing; copy it again, or {MEND}")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        stored = data[end : end + 4]
        if len(stored) < 4:
            raise RefusedError(
                f"is a truncated PNG: it ends inside of a chunk of {length} bytes; copy it again, "
                f"or {MEND}"
            )
        if zlib.crc32(data[position + 4 : end]) != int.from_bytes(stored):
            raise RefusedError(
                f"is a damaged PNG: a checksum does not match after byte {position}; copy it "
                f"again, or {MEND}"
            )
        if kind == b"IDAT":
            packed.append(data[position + 8 : end])
        position = end + 4
    return b"".join(packed)


def _check_pixel_bytes(
    packed: bytes, *, width: int, height: int, row_bits: int, is_interlaced: bool
) -> None:
    """Looks whether all rows are there; Pillow takes missing ones for black."""
    passes = _PNG_PASSES if is_interlaced else ((0, 0, 1, 1),)
    expected_bytes = 0
    for left, top, step_x, step_y in passes:
        columns, rows = -(-(width - left) // step_x), -(-(height - top) // step_y)
        if columns > 0:
            expected_bytes += max(0, rows) * (1 + (columns * row_bits + 7) // 8)
    try:
        # No more than that is unpacked, however much there is.
        found = len(zlib.decompressobj().decompress(packed, expected_bytes))
    except zlib.error as error:
        raise RefusedError(
            f"is a damaged or truncated PNG ({error}); copy it again, or {MEND}"
        ) from error
    if found < expected_bytes:
        raise RefusedError(
            f"is a damaged or truncated PNG: its pixels take {found} bytes unpacked; expected "
            f"{expected_bytes}; copy it again, or {MEND}"
        )


@contextmanager
def _damage_told(kind: str) -> Iterator[None]:
    """Turns what Pillow raises into one reason."""
    try:
        yield
    except RefusedError:
        raise
    except _PILLOW_ERRORS as error:
        found = str(error) or type(error).__name__
        raise RefusedError(
            f"is a damaged or truncated {kind} ({found}); copy it again, or {MEND}"
        ) from error


def _gray_values(image: Image.Image, *, kind: str) -> npt.NDArray[np.uint8]:
    if image.mode in ("1", "L") and "transparency" not in image.info:
        return np.asarray(image.convert("L"))
    if image.mode == "P":
        _check_palette(image, kind=kind)
    if image.mode == "RGB" and "transparency" not in image.info:
        colors = np.asarray(image)
        check_gray(colors)
        return np.ascontiguousarray(colors[..., 0])
    rgba = np.asarray(image.convert("RGBA"))
    alpha = rgba[..., 3]
    if alpha.min() != alpha.max():
        raise RefusedError(f"is a {kind} that is transparent in parts; {MEND}")
    check_gray(rgba[..., :3])
    return np.ascontiguousarray(rgba[..., 0])


def _check_palette(image: Image.Image, *, kind: str) -> None:
    """Refuses what Pillow takes for black: colors that the palette does not have."""
    num_colors = len(image.getpalette() or ()) // 3
    highest = int(np.asarray(image).max())
    if highest >= num_colors:
        raise RefusedError(
            f"is a {kind} that uses color {highest} of its palette, which has {num_colors} colors; "
            f"{MEND}"
        )


def _check_colormap(image: TiffImagePlugin.TiffImageFile) -> None:
    """Refuses a palette of 8-bit colors in fields of 16 bits, which would be read as black."""
    colors = image.tag_v2.get(TiffImagePlugin.COLORMAP, ())
    if colors and 0 < max(colors) <= _MAX_8_BIT_COLOR:
        raise RefusedError(
            f"is a TIFF whose palette goes to {max(colors)}; expected colors from 0 to 65535; "
            f"{MEND}"
        )


def _numbers(image: TiffImagePlugin.TiffImageFile, tag: int) -> Sequence[int]:
    """Gives the values of a tag, one for each channel; the tags asked for are 1 if left out."""
    found = image.tag_v2.get(tag, 1)
    return found if isinstance(found, tuple) else (found,)


def _check_length(image: TiffImagePlugin.TiffImageFile, data: bytes) -> None:
    """Looks whether the file is as long as its list of tags and its pixels.

    Decoders do not always miss the last bytes.
    """
    order = "<" if data.startswith(b"II") else ">"
    if data[2:4] in (b"+\0", b"\0+"):  # BigTIFF
        (directory,) = struct.unpack_from(f"{order}Q", data, 8)
        (num_tags,) = struct.unpack_from(f"{order}Q", data, directory)
        ends = [directory + 8 + 20 * num_tags + 8]
    else:
        (directory,) = struct.unpack_from(f"{order}I", data, 4)
        (num_tags,) = struct.unpack_from(f"{order}H", data, directory)
        ends = [directory + 2 + 12 * num_tags + 4]
    for start_tag, length_tag in _STRIP_TAGS:
        starts = image.tag_v2.get(start_tag, ())
        lengths = image.tag_v2.get(length_tag, ())
        ends += [start + length for start, length in zip(starts, lengths, strict=False)]
    if max(ends) > len(data):
        raise RefusedError(
            f"is a truncated TIFF: it has {len(data)} bytes; expected {max(ends)}; copy it again, "
            f"or {MEND}"
        )


def _check_bits(bits: int, *, kind: str) -> None:
    if bits > _MAX_BITS:
        raise RefusedError(
            f"is a {kind} of {bits} bits a channel; expected 8, after the display window was "
            f"applied; {MEND}"
        )


def _check_single(
    image: PngImagePlugin.PngImageFile | TiffImagePlugin.TiffImageFile, *, kind: str
) -> None:
    num_images = getattr(image, "n_frames", 1)
    if num_images > 1:
        raise RefusedError(
            f"is a {kind} of {num_images} images; expected one slice in a file; "
            "export each of them to a file of its own"
        )
