"""Image files -> uint8 arrays, and every reason for which a file is refused.

BMP, PNG, TIFF and JPEG, told apart by their content and never by their name. This is a contract:
``serving`` reads slices with it too. NumPy, Pillow and the standard library only.
"""

import stat
from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocessing.images import bmp
from preprocessing.images.bmp import decode_bmp
from preprocessing.images.checks import MEND, RefusedError
from preprocessing.images.library_formats import (
    JPEG_MAGIC,
    PNG_MAGIC,
    TIFF_MAGICS,
    decode_jpeg,
    decode_png,
    decode_tiff,
)
from preprocessing.spec import (
    DICOM_MAGIC,
    DICOM_MAGIC_OFFSET,
    IMAGE_SPEC,
    MASK_FILE_FOREGROUND,
    MAX_PIXELS,
)

IMAGE_SUFFIXES = (".bmp", ".dib", ".rle", ".png", ".tif", ".tiff", ".jpg", ".jpeg", ".jpe")
"""Names that are taken for slices or masks, whatever their case; content decides the format."""

MAX_FILE_BYTES = 4 * MAX_PIXELS + 2**20
"""The largest slice that passes the limit on pixels, at 32 bits a pixel, and room for a header."""

NOT_BINARY = "has gray values"
"""How the reason begins for which a file is no mask, though it is a slice."""

MAGIC_BYTES = 8
"""As many bytes from the beginning of a file tell its format."""

_KINDS = "BMP, PNG, TIFF or JPEG"

# What a file is that is none of them, by how it begins.
_OTHER_KINDS = (
    (b"GIF8", "a GIF"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a zip archive"),
    (b"%PDF", "a PDF"),
    (b"<", "a web page or XML"),
)


class UnreadableImageError(ValueError):
    """A file is refused.

    Attributes:
        source: the file, as the caller named it.
        reason: what was found, what was expected, and the mend; reads on after the file's name.
    """

    def __init__(self, *, source: str, reason: str) -> None:
        """Joins both into one line."""
        super().__init__(f"{source} {reason}")
        self.source = source
        self.reason = reason


def read_slice(path: Path) -> npt.NDArray[np.uint8]:
    """Reads the gray values of a slice from a file.

    Args:
        path: a BMP, PNG, TIFF or JPEG file.

    Returns:
        [height, width] uint8.

    Raises:
        UnreadableImageError: if the file cannot be read or used.
    """
    return decode_slice(_read_bytes(path), source=str(path))


def read_mask(path: Path) -> npt.NDArray[np.uint8]:
    """Reads a mask from a file.

    Args:
        path: a BMP, PNG or TIFF file.

    Returns:
        [height, width] uint8 in {0, 1}; 1 is lung.

    Raises:
        UnreadableImageError: if the file cannot be read or used.
    """
    return decode_mask(_read_bytes(path), source=str(path))


def read_labels(path: Path) -> npt.NDArray[np.uint8]:
    """Reads a mask of several labels from a file.

    Args:
        path: a BMP, PNG or TIFF file.

    Returns:
        [height, width] uint8, the gray values as they are.

    Raises:
        UnreadableImageError: if the file cannot be read or used, or is lossy.
    """
    return _decode(_read_bytes(path), source=str(path), must_be_lossless=True)


def is_image(beginning: bytes) -> bool:
    """Tells from the first `MAGIC_BYTES` bytes whether a file means to be one of the formats.

    Two letters are little to go by, so a BMP must also have its reserved fields at 0.
    """
    is_bmp = beginning.startswith(bmp.MAGIC) and beginning[6:MAGIC_BYTES] == bytes(2)
    return is_bmp or beginning.startswith((PNG_MAGIC, JPEG_MAGIC, *TIFF_MAGICS))


def decode_slice(data: bytes, *, source: str) -> npt.NDArray[np.uint8]:
    """Decodes the gray values of a slice.

    Palettes are applied, so an inverted palette gives the gray values that a viewer shows. Color
    images are gray where red, green and blue are equal everywhere.

    Args:
        data: a whole BMP, PNG, TIFF or JPEG file.
        source: its name, for messages.

    Returns:
        [height, width] uint8.

    Raises:
        UnreadableImageError: if `data` is not a whole file of 8-bit gray values with at most
            `MAX_PIXELS` pixels.
    """
    return _decode(data, source=source, must_be_lossless=False)


def decode_mask(data: bytes, *, source: str) -> npt.NDArray[np.uint8]:
    """Decodes a mask.

    Args:
        data: a whole BMP, PNG or TIFF file whose gray values are 0 and 255, or 0 and 1.
        source: its name, for messages.

    Returns:
        [height, width] uint8 in {0, 1}; 1 is lung.

    Raises:
        UnreadableImageError: as `decode_slice`, or if there are other gray values, or if the file
            is a JPEG.
    """
    gray_values = _decode(data, source=source, must_be_lossless=True)
    brightest = gray_values.max()
    is_lung = gray_values == brightest if brightest else np.zeros(gray_values.shape, np.bool_)
    is_binary = np.count_nonzero(is_lung) == np.count_nonzero(gray_values)
    if not is_binary or brightest not in (0, IMAGE_SPEC.lung_label, MASK_FILE_FOREGROUND):
        raise UnreadableImageError(
            source=source,
            reason=f"{NOT_BINARY} {_list_used(gray_values)}; expected only "
            f"[0, {MASK_FILE_FOREGROUND}] or [0, {IMAGE_SPEC.lung_label}]; export it again as a "
            "binary mask, without smoothing, or say with --mask-foreground which values are lung",
        )
    return is_lung.view(np.uint8)


def _decode(data: bytes, *, source: str, must_be_lossless: bool) -> npt.NDArray[np.uint8]:
    try:
        if data.startswith(bmp.MAGIC):
            return decode_bmp(data)
        if data.startswith(PNG_MAGIC):
            return decode_png(data)
        if data.startswith(TIFF_MAGICS):
            return decode_tiff(data, must_be_lossless=must_be_lossless)
        if data.startswith(JPEG_MAGIC):
            if must_be_lossless:
                raise RefusedError(
                    "is a JPEG, which changes gray values; expected a lossless format for a mask; "
                    f"{MEND}"
                )
            return decode_jpeg(data)
        raise RefusedError(f"{_what_it_is(data)}; {MEND}")
    except RefusedError as error:
        raise UnreadableImageError(source=source, reason=str(error)) from error


def _read_bytes(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise UnreadableImageError(
                source=str(path),
                reason="is a pipe or a device; expected a file; remove it or copy its content",
            )
        num_bytes = status.st_size
        if num_bytes > MAX_FILE_BYTES:
            raise UnreadableImageError(
                source=str(path),
                reason=f"has {num_bytes} bytes; expected at most {MAX_FILE_BYTES}; {MEND}",
            )
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(
            source=str(path),
            reason=f"cannot be read ({error.strerror}); check that it is a file and its rights",
        ) from error


def _what_it_is(data: bytes) -> str:
    if not data:
        return f"is empty (0 bytes); expected {_KINDS}"
    if data[DICOM_MAGIC_OFFSET:].startswith(DICOM_MAGIC):
        return f"is a DICOM file; expected {_KINDS}"
    if not any(data):
        return f"holds {len(data)} zero bytes and nothing else; expected {_KINDS}"
    for magic, kind in _OTHER_KINDS:
        if data.lstrip().startswith(magic):
            return f"is {kind}; expected {_KINDS}"
    return f"is none of {_KINDS} (it begins with bytes {data[:MAGIC_BYTES].hex(' ')})"


def _list_used(gray_values: npt.NDArray[np.uint8]) -> str:
    used = np.unique(gray_values).tolist()
    shown = ", ".join(str(value) for value in used[:8])
    return f"[{shown}, … {len(used)} in all]" if len(used) > 8 else f"[{shown}]"
