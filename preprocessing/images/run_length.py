"""Run-length encoding in BMP files: RLE8 and RLE4.

Source: Microsoft, Bitmap Compression (Windows GDI).
"""

import numpy as np
import numpy.typing as npt

from preprocessing.images.checks import MEND, RefusedError

_END_OF_ROW = 0
_END_OF_IMAGE = 1
_DELTA = 2


def decode_runs(data: bytes, *, width: int, height: int, bits: int) -> npt.NDArray[np.uint8]:
    """Decodes the pixels of a BMP that is run-length encoded.

    Pixels that the encoder skipped have color 0, as viewers show them. Some encoders fill rows up
    to four bytes, as without compression; what is beyond the width is left out.

    Args:
        data: the file from its first pixel on.
        width: of the image.
        height: of the image.
        bits: 8 or 4 bits a pixel.

    Returns:
        [height, width] uint8 indices into the palette; the first row is the first of the file.

    Raises:
        RefusedError: if runs leave the image, or end before it is complete.
    """
    pixels = bytearray(width * height)
    padded_width = (width * bits + 31) // 32 * 32 // bits
    column = row = position = 0
    while True:
        if position + 2 > len(data):
            if row == height or (row == height - 1 and column >= width):
                break  # complete, though nothing says so
            raise RefusedError(
                f"is a truncated BMP: its runs end in row {row + 1} of {height}; "
                f"copy it again, or {MEND}"
            )
        count, value = data[position], data[position + 1]
        position += 2
        if count:
            run = _repeat(value, count, bits=bits)
        elif value == _END_OF_ROW:
            column, row = 0, row + 1
            _check_place(column, row, width=width, height=height + 1)
            continue
        elif value == _END_OF_IMAGE:
            break
        elif value == _DELTA:
            right, up = _pair(data, position)
            column, row, position = column + right, row + up, position + 2
            _check_place(column, row, width=width, height=height)
            continue
        else:
            num_bytes = (value * bits + 7) // 8
            run = _unpack(data[position : position + num_bytes], bits=bits)[:value]
            position += num_bytes + num_bytes % 2
            if len(run) < value:
                raise RefusedError(
                    f"is a truncated BMP: it ends inside of a run in row {row + 1} of {height}; "
                    f"copy it again, or {MEND}"
                )
        _check_place(column + len(run), row, width=padded_width, height=height)
        start = row * width + column
        shown = run[: max(0, width - column)]
        pixels[start : start + len(shown)] = shown
        column += len(run)
    return np.frombuffer(pixels, np.uint8).reshape(height, width)


def _repeat(value: int, count: int, *, bits: int) -> bytes:
    if bits == 8:
        return bytes((value,)) * count
    return (bytes((value >> 4, value & 0x0F)) * ((count + 1) // 2))[:count]


def _unpack(packed: bytes, *, bits: int) -> bytes:
    if bits == 8:
        return packed
    return bytes(half for value in packed for half in (value >> 4, value & 0x0F))


def _pair(data: bytes, position: int) -> tuple[int, int]:
    if position + 2 > len(data):
        raise RefusedError(f"is a truncated BMP: it ends inside of its runs; {MEND}")
    return data[position], data[position + 1]


def _check_place(column: int, row: int, *, width: int, height: int) -> None:
    if column > width or row >= height:
        raise RefusedError(
            f"is a damaged BMP: one of its runs ends outside of the image, at column {column + 1} "
            f"of {width} in row {row + 1}; copy it again, or {MEND}"
        )
