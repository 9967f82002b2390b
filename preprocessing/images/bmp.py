"""BMP -> gray values: every kind that scanners and tools write.

Not left to a library: Pillow guesses from a palette of two colors that there is one bit a pixel and
cannot read it run-length encoded, and TensorFlow gives palette indices for gray values.

Source: Microsoft, BITMAPFILEHEADER, BITMAPCOREHEADER, BITMAPINFOHEADER, BITMAPV4HEADER and
BITMAPV5HEADER (wingdi.h); IBM, OS/2 bitmap file format.
"""

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preprocessing.images.checks import MEND, RefusedError, check_gray, check_size
from preprocessing.images.run_length import decode_runs

MAGIC = b"BM"

_FILE_HEADER_BYTES = 14
_OS2_HEADER_BYTES = 12
_SHORT_OS2_HEADER_BYTES = 16
_INFO_HEADER_BYTES = 40
_LONG_OS2_HEADER_BYTES = 64
_ALPHA_HEADER_BYTES = 56
_HEADER_BYTES = (12, 16, 40, 52, 56, 64, 108, 124)

_UNCOMPRESSED, _RLE8, _RLE4, _BITFIELDS, _ALPHA_BITFIELDS = 0, 1, 2, 3, 6
_COMPRESSIONS_OF_BITS = {
    1: (_UNCOMPRESSED,),
    2: (_UNCOMPRESSED,),
    4: (_UNCOMPRESSED, _RLE4),
    8: (_UNCOMPRESSED, _RLE8),
    16: (_UNCOMPRESSED, _BITFIELDS, _ALPHA_BITFIELDS),
    24: (_UNCOMPRESSED,),
    32: (_UNCOMPRESSED, _BITFIELDS, _ALPHA_BITFIELDS),
}
_MAX_PALETTE_BITS = 8

_SAME = np.arange(256)

# Red, green, blue and alpha where the file does not say which bits they take.
_DEFAULT_CHANNELS = {
    16: (0x7C00, 0x03E0, 0x001F, 0),
    32: (0xFF0000, 0x00FF00, 0x0000FF, 0),
}


def decode_bmp(data: bytes) -> npt.NDArray[np.uint8]:
    """Decodes the gray values of a BMP.

    1, 2, 4 and 8 bits with a palette, 16, 24 and 32 bits with equal channels; run-length encoded or
    not; first row at the top or at the bottom; headers of Windows and OS/2. Bytes after the pixels
    do no harm.

    Args:
        data: a whole file.

    Returns:
        [height, width] uint8.

    Raises:
        RefusedError: if the file is damaged, truncated, in color, transparent in parts, or of a
            kind that is no BMP of 8-bit gray values.
    """
    try:
        header = _read_header(data)
        check_size(header.width, header.height)
        _check_header(header)
        gray_values = _decode_pixels(data, header)
    except struct.error as error:
        raise RefusedError(
            f"is a truncated BMP: it ends inside of its header, after {len(data)} bytes; {MEND}"
        ) from error
    return np.ascontiguousarray(gray_values if header.is_top_down else gray_values[::-1])


@dataclass(frozen=True, kw_only=True)
class _Header:
    pixel_offset: int
    num_header_bytes: int
    width: int
    height: int
    is_top_down: bool
    num_planes: int
    bits: int
    compression: int
    stated_num_colors: int

    @property
    def palette_offset(self) -> int:
        return _FILE_HEADER_BYTES + self.num_header_bytes

    @property
    def palette_entry_bytes(self) -> int:
        return 3 if self.num_header_bytes == _OS2_HEADER_BYTES else 4

    @property
    def is_run_length_encoded(self) -> bool:
        return self.compression in (_RLE8, _RLE4)


def _read_header(data: bytes) -> _Header:
    pixel_offset, num_header_bytes = struct.unpack_from("<II", data, 10)
    layout = "<HHHH" if num_header_bytes == _OS2_HEADER_BYTES else "<iiHH"
    width, height, num_planes, bits = struct.unpack_from(layout, data, 18)
    compression = num_colors = 0
    if num_header_bytes not in (_OS2_HEADER_BYTES, _SHORT_OS2_HEADER_BYTES):
        (compression,) = struct.unpack_from("<I", data, 30)
        (num_colors,) = struct.unpack_from("<I", data, 46)
    return _Header(
        pixel_offset=pixel_offset,
        num_header_bytes=num_header_bytes,
        width=width,
        height=abs(height),
        is_top_down=height < 0,
        num_planes=num_planes,
        bits=bits,
        compression=compression,
        stated_num_colors=num_colors,
    )


def _check_header(header: _Header) -> None:
    if (
        header.num_header_bytes not in _HEADER_BYTES
        or header.pixel_offset < header.palette_offset
        or header.num_planes != 1
    ):
        raise RefusedError(
            f"is a damaged BMP: it says that its header has {header.num_header_bytes} bytes, that "
            f"its pixels begin at byte {header.pixel_offset} and that it has {header.num_planes} "
            f"planes; copy it again, or {MEND}"
        )
    if header.bits not in _COMPRESSIONS_OF_BITS:
        raise RefusedError(
            f"is a BMP of {header.bits} bits a pixel; expected 1, 2, 4, 8, 16, 24 or 32; {MEND}"
        )
    # In the long header of OS/2 the same numbers mean Huffman and 24-bit runs.
    is_foreign = header.num_header_bytes == _LONG_OS2_HEADER_BYTES and header.compression > _RLE4
    if is_foreign or header.compression not in _COMPRESSIONS_OF_BITS[header.bits]:
        raise RefusedError(
            f"is a BMP of {header.bits} bits with compression {header.compression}; expected none, "
            f"RLE4, RLE8 or bit fields; {MEND}"
        )


def _decode_pixels(data: bytes, header: _Header) -> npt.NDArray[np.uint8]:
    """Gives [height, width]; the first row is the first of the file."""
    if header.is_run_length_encoded:
        indices = decode_runs(
            data[header.pixel_offset :],
            width=header.width,
            height=header.height,
            bits=header.bits,
        )
        return _apply_palette(indices, _read_palette(data, header))
    rows = _read_rows(data, header)
    if header.bits <= _MAX_PALETTE_BITS:
        indices = _unpack(rows, bits=header.bits)[:, : header.width]
        return _apply_palette(indices, _read_palette(data, header))
    if header.bits == 24:
        return _equal_channels(rows[:, : 3 * header.width].reshape(header.height, -1, 3))
    pixels = np.ascontiguousarray(rows).view(f"<u{header.bits // 8}")[:, : header.width]
    return _decode_channels(pixels, _read_channels(data, header))


def _read_rows(data: bytes, header: _Header) -> npt.NDArray[np.uint8]:
    """Gives [height, bytes]; rows are padded to four bytes."""
    row_bytes = (header.width * header.bits + 31) // 32 * 4
    expected_bytes = header.pixel_offset + row_bytes * header.height
    if len(data) < expected_bytes:
        raise RefusedError(
            f"is a truncated BMP: it has {len(data)} bytes; expected {expected_bytes} for "
            f"{header.width} x {header.height} px; copy it again, or {MEND}"
        )
    rows = np.frombuffer(data, np.uint8, row_bytes * header.height, header.pixel_offset)
    return rows.reshape(header.height, row_bytes)


def _unpack(rows: npt.NDArray[np.uint8], *, bits: int) -> npt.NDArray[np.uint8]:
    """Gives one value for each pixel: [height, bytes] -> [height, bytes * 8 / bits]."""
    if bits == 8:
        return rows
    if bits == 1:
        return np.unpackbits(rows, axis=1)
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    return (rows[..., None] >> shifts & 2**bits - 1).reshape(len(rows), -1)


def _read_palette(data: bytes, header: _Header) -> npt.NDArray[np.uint8]:
    """Gives [colors, 3]; blue, green, red."""
    entry_bytes = header.palette_entry_bytes
    room = (header.pixel_offset - header.palette_offset) // entry_bytes
    num_colors = min(header.stated_num_colors, 2**header.bits)
    if num_colors > room:
        raise RefusedError(
            f"is a damaged BMP: it says that its palette has {num_colors} colors, but there is "
            f"room for {room} before its pixels; copy it again, or {MEND}"
        )
    num_colors = num_colors or min(room, 2**header.bits)
    if len(data) < header.palette_offset + num_colors * entry_bytes:
        raise RefusedError(f"is a truncated BMP: it ends inside of its palette; {MEND}")
    entries = np.frombuffer(data, np.uint8, num_colors * entry_bytes, header.palette_offset)
    return entries.reshape(num_colors, entry_bytes)[:, :3]


def _apply_palette(
    indices: npt.NDArray[np.uint8], palette: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """Gives the gray value of each index; only entries that pixels use must be gray."""
    highest = int(indices.max())
    if highest >= len(palette):
        raise RefusedError(
            f"uses color {highest} of its palette, which has {len(palette)} colors; {MEND}"
        )
    if (palette != palette[:, :1]).any():
        check_gray(palette[np.unique(indices)][:, ::-1])
    if np.array_equal(palette[:, 0], _SAME[: len(palette)]):
        return indices  # the palette of most slices, and looking up takes most of the time
    return np.take(palette[:, 0], indices)


def _equal_channels(colors: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Gives the one gray value of [height, width, 3] blue, green, red."""
    blue, green, red = (colors[..., channel] for channel in range(3))
    if not (np.array_equal(blue, green) and np.array_equal(green, red)):
        check_gray(colors[..., ::-1])
    return green


def _read_channels(data: bytes, header: _Header) -> tuple[int, int, int, int]:
    """Gives the bits that red, green, blue and alpha take in a pixel; 0 for none."""
    if header.compression == _UNCOMPRESSED:
        return _DEFAULT_CHANNELS[header.bits]
    # The masks follow the fields of the shortest header, in it or behind it.
    offset = _FILE_HEADER_BYTES + _INFO_HEADER_BYTES
    red, green, blue = struct.unpack_from("<III", data, offset)
    has_alpha = (
        header.num_header_bytes >= _ALPHA_HEADER_BYTES or header.compression == _ALPHA_BITFIELDS
    )
    alpha = struct.unpack_from("<I", data, offset + 12)[0] if has_alpha else 0
    are_blocks = all(
        1 <= mask.bit_count() <= 8 and _is_one_block(mask) for mask in (red, green, blue)
    )
    if not are_blocks or (red | green | blue | alpha) >> header.bits:
        raise RefusedError(
            f"is a BMP of {header.bits} bits whose channels take the bits {red:#x}, {green:#x}, "
            f"{blue:#x} and {alpha:#x} for transparency; expected 1 to 8 neighboring bits for each "
            f"color, all within a pixel; {MEND}"
        )
    return red, green, blue, alpha


def _is_one_block(mask: int) -> bool:
    filled = mask >> _shift(mask)
    return filled & (filled + 1) == 0


def _shift(mask: int) -> int:
    """Gives the number of the lowest bit."""
    return (mask & -mask).bit_length() - 1


def _decode_channels(
    pixels: npt.NDArray[np.unsignedinteger], masks: tuple[int, int, int, int]
) -> npt.NDArray[np.uint8]:
    """Gives gray values of [height, width] pixels of 16 or 32 bits.

    Where green has more bits than red and blue (5, 6, 5), a gray is one as far as rounding to so
    few bits goes, and the channel with the most bits gives its value.
    """
    alpha = masks[3]
    if alpha and (pixels & alpha != pixels[0, 0] & alpha).any():
        raise RefusedError(f"is a BMP that is transparent in parts; {MEND}")
    bits = [mask.bit_count() for mask in masks[:3]]
    colors = np.stack(
        [
            _to_8_bits(((pixels & mask) >> _shift(mask)).astype(np.uint8), depth)
            for mask, depth in zip(masks[:3], bits, strict=True)
        ],
        axis=-1,
    )
    finest, coarsest = max(bits), min(bits)
    # Half a step of each, if they are not of one size; cut off instead of rounded, a whole one.
    tolerance = 0 if finest == coarsest else _step(finest) + _step(coarsest)
    spread = colors.max(axis=-1).astype(int) - colors.min(axis=-1)
    check_gray(colors[spread > tolerance])
    return colors[..., bits.index(finest)]


def _step(bits: int) -> int:
    """Gives the difference of two neighboring values, in gray values, rounded up."""
    return -(-255 // (2**bits - 1))


def _to_8_bits(values: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Gives 0 to 255 for 0 to all bits set, rounded."""
    highest = 2**bits - 1
    return np.array([(2 * 255 * value + highest) // (2 * highest) for value in range(highest + 1)])[
        values
    ].astype(np.uint8)
