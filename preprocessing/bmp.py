"""Image bytes -> uint8 array, and every reason for which a file is refused.

BMP and PNG, told apart by their content and never by their name. This is a contract: ``serving``
reads slices with it too. NumPy, Pillow and the standard library only.
"""

import io
import stat
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import BmpImagePlugin, Image, PngImagePlugin

from preprocessing import png
from preprocessing.spec import IMAGE_SPEC, MASK_FILE_FOREGROUND, MAX_PIXELS

IMAGE_SUFFIXES = (".bmp", ".dib", ".png")
"""Names that are taken for slices or masks, whatever their case; content decides the format."""

MAX_FILE_BYTES = 4 * MAX_PIXELS + 2**20
"""The largest slice that passes the limit on pixels, at 32 bits a pixel, and room for a header."""

NOT_BINARY = "has gray values"
"""How the reason begins for which a file is no mask, though it is a slice."""

_PALETTE_BITS = (1, 4, 8)
_UNCOMPRESSED = 0
_BMP_MAGIC = b"BM"
_OS2_HEADER_BYTES = 12
_HEADER_BYTES = (_OS2_HEADER_BYTES, 40, 52, 56, 64, 108, 124)
_PNG_END = b"IEND"
_DICOM_MAGIC_OFFSET = 128
_MEND = "export it again as an 8-bit grayscale BMP or PNG"

# What a file is that is neither BMP nor PNG, by how it begins.
_OTHER_KINDS = (
    (b"\xff\xd8\xff", "a JPEG, which changes gray values"),
    (b"GIF8", "a GIF"),
    (b"II*\x00", "a TIFF"),
    (b"MM\x00*", "a TIFF"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a zip archive"),
    (b"%PDF", "a PDF"),
    (b"<", "a web page or XML"),
)

# All that Pillow raises on damaged files of these two formats.
_PILLOW_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
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
        path: a BMP or PNG file.

    Returns:
        [height, width] uint8.

    Raises:
        UnreadableImageError: if the file cannot be read or used.
    """
    return decode_slice(_read_bytes(path), source=str(path))


def read_mask(path: Path) -> npt.NDArray[np.uint8]:
    """Reads a mask from a file.

    Args:
        path: a BMP or PNG file.

    Returns:
        [height, width] uint8 in {0, 1}; 1 is lung.

    Raises:
        UnreadableImageError: if the file cannot be read or used.
    """
    return decode_mask(_read_bytes(path), source=str(path))


def decode_slice(data: bytes, *, source: str) -> npt.NDArray[np.uint8]:
    """Decodes the gray values of a slice.

    Palettes are applied, so an inverted palette gives the gray values that a viewer shows. Color
    images are gray where red, green and blue are equal everywhere.

    Args:
        data: a whole BMP or PNG file.
        source: its name, for messages.

    Returns:
        [height, width] uint8.

    Raises:
        UnreadableImageError: if `data` is not a whole BMP or PNG of 8-bit gray values with at most
            `MAX_PIXELS` pixels.
    """
    try:
        if data.startswith(_BMP_MAGIC):
            return _decode_bmp(data)
        if data.startswith(png.SIGNATURE):
            return _decode_png(data)
        raise _RefusedError(f"{_what_it_is(data)}; {_MEND}")
    except _RefusedError as error:
        raise UnreadableImageError(source=source, reason=str(error)) from error


def decode_mask(data: bytes, *, source: str) -> npt.NDArray[np.uint8]:
    """Decodes a mask.

    Args:
        data: a whole BMP or PNG file whose gray values are 0 and 255, or 0 and 1.
        source: its name, for messages.

    Returns:
        [height, width] uint8 in {0, 1}; 1 is lung.

    Raises:
        UnreadableImageError: as `decode_slice`, or if there are other gray values.
    """
    gray_values = decode_slice(data, source=source)
    is_lung = gray_values != IMAGE_SPEC.background_label
    brightest = gray_values.max()
    is_binary = np.array_equal(is_lung, gray_values == brightest) or not is_lung.any()
    if not is_binary or brightest not in (0, IMAGE_SPEC.lung_label, MASK_FILE_FOREGROUND):
        raise UnreadableImageError(
            source=source,
            reason=f"{NOT_BINARY} {_list_used(gray_values)}; expected only "
            f"[0, {MASK_FILE_FOREGROUND}] or [0, {IMAGE_SPEC.lung_label}]; "
            "export it again as a binary mask, without smoothing",
        )
    return is_lung.view(np.uint8)


class _RefusedError(Exception):
    """A reason, before the name of the file is added to it."""


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
                reason=f"has {num_bytes} bytes; expected at most {MAX_FILE_BYTES}; {_MEND}",
            )
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(
            source=str(path),
            reason=f"cannot be read ({error.strerror}); check that it is a file and its rights",
        ) from error


def _what_it_is(data: bytes) -> str:
    if not data:
        return "is empty (0 bytes); expected BMP or PNG"
    if data[_DICOM_MAGIC_OFFSET:].startswith(b"DICM"):
        return "is a DICOM file; expected BMP or PNG"
    for magic, kind in _OTHER_KINDS:
        if data.lstrip().startswith(magic):
            return f"is {kind}; expected BMP or PNG"
    return f"is neither BMP nor PNG (it begins with bytes {data[:8].hex(' ')})"


def _decode_bmp(data: bytes) -> npt.NDArray[np.uint8]:
    try:
        header = _BmpHeader(data)
    except struct.error as error:
        raise _RefusedError(
            f"is a truncated BMP: it ends inside of its header, after {len(data)} bytes; {_MEND}"
        ) from error
    _check_size(header.width, header.height)
    if header.bits in _PALETTE_BITS and header.compression == _UNCOMPRESSED:
        return _decode_palette_bmp(data, header)
    image = _open_with_pillow(BmpImagePlugin.BmpImageFile, data, kind="BMP")
    return _gray_values(image, kind="BMP")


class _BmpHeader:
    """The fields of a BMP header that say how big it is and where palette and pixels stand.

    Source: Microsoft, BITMAPFILEHEADER, BITMAPCOREHEADER and BITMAPINFOHEADER (wingdi.h).
    """

    def __init__(self, data: bytes) -> None:
        """Reads them; raises struct.error if `data` ends too early."""
        self.pixel_offset, self.header_bytes = struct.unpack_from("<II", data, 10)
        self.palette_offset = 14 + self.header_bytes
        if self.header_bytes == _OS2_HEADER_BYTES:
            self.width, height, _, self.bits = struct.unpack_from("<HHHH", data, 18)
            self.compression, num_colors, self.palette_entry_bytes = _UNCOMPRESSED, 0, 3
        else:
            self.width, height, _, self.bits = struct.unpack_from("<iiHH", data, 18)
            (self.compression,) = struct.unpack_from("<I", data, 30)
            (num_colors,) = struct.unpack_from("<I", data, 46)
            self.palette_entry_bytes = 4
        self.height = abs(height)
        self.is_top_down = height < 0
        self.num_colors = num_colors or 2 ** min(self.bits, 8)


def _decode_palette_bmp(data: bytes, header: _BmpHeader) -> npt.NDArray[np.uint8]:
    """Decodes 1, 4 or 8 bits a pixel, uncompressed: what CT slices usually come as.

    Not left to Pillow, which guesses from a palette of two colors that there is one bit a pixel.
    """
    if header.header_bytes not in _HEADER_BYTES or header.pixel_offset < header.palette_offset:
        raise _RefusedError(
            f"is a damaged BMP: it says that its header has {header.header_bytes} bytes and that "
            f"its pixels begin at byte {header.pixel_offset}; copy it again, or {_MEND}"
        )
    row_bytes = (header.width * header.bits + 31) // 32 * 4
    expected_bytes = header.pixel_offset + row_bytes * header.height
    if len(data) < expected_bytes:
        raise _RefusedError(
            f"is a truncated BMP: it has {len(data)} bytes; expected {expected_bytes} for "
            f"{header.width} x {header.height} px; copy it again, or {_MEND}"
        )
    packed = np.frombuffer(data, np.uint8, row_bytes * header.height, header.pixel_offset)
    packed = packed.reshape(header.height, row_bytes)
    if not header.is_top_down:
        packed = packed[::-1]
    indices = _unpack(packed, bits=header.bits)[:, : header.width]
    return _apply_palette(indices, _bmp_palette(data, header))


def _unpack(packed: npt.NDArray[np.uint8], *, bits: int) -> npt.NDArray[np.uint8]:
    """Gives one value for each pixel: [height, bytes] -> [height, bytes * 8 / bits]."""
    if bits == 8:
        return packed
    if bits == 4:
        return np.stack([packed >> 4, packed & 0x0F], axis=-1).reshape(len(packed), -1)
    return np.unpackbits(packed, axis=1)


def _bmp_palette(data: bytes, header: _BmpHeader) -> npt.NDArray[np.uint8]:
    """Gives [colors, 3]; blue, green, red."""
    room = (header.pixel_offset - header.palette_offset) // header.palette_entry_bytes
    num_colors = min(header.num_colors, room, 2**header.bits)
    entries = np.frombuffer(
        data, np.uint8, num_colors * header.palette_entry_bytes, header.palette_offset
    )
    return entries.reshape(num_colors, header.palette_entry_bytes)[:, :3]


def _apply_palette(
    indices: npt.NDArray[np.uint8], palette: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """Gives the gray value of each index; only entries that pixels use must be gray."""
    highest = int(indices.max())
    if highest >= len(palette):
        raise _RefusedError(
            f"uses color {highest} of its palette, which has {len(palette)} colors; {_MEND}"
        )
    if (palette != palette[:, :1]).any():
        _check_gray(palette[np.unique(indices)])
    return np.take(palette[:, 0], indices)


def _decode_png(data: bytes) -> npt.NDArray[np.uint8]:
    try:
        width, height, bit_depth = struct.unpack_from(">IIB", data, 16)
    except struct.error as error:
        raise _RefusedError(
            f"is a truncated PNG: it ends inside of its header, after {len(data)} bytes; {_MEND}"
        ) from error
    _check_size(width, height)
    if _PNG_END not in data:
        raise _RefusedError(f"is a truncated PNG: its end is missing; copy it again, or {_MEND}")
    if bit_depth > 8:
        raise _RefusedError(
            f"is a PNG of {bit_depth} bits a channel; expected 8, after the display window was "
            f"applied; {_MEND}"
        )
    return _gray_values(
        _open_with_pillow(PngImagePlugin.PngImageFile, data, kind="PNG"), kind="PNG"
    )


def _check_size(width: int, height: int) -> None:
    """Looks at the header before any pixel is decoded."""
    if width < 1 or height < 1:
        raise _RefusedError(
            f"says that it is {width} x {height} px; expected at least 1 x 1; {_MEND}"
        )
    if width * height > MAX_PIXELS:
        raise _RefusedError(
            f"says that it is {width} x {height} px; expected at most {MAX_PIXELS} pixels; {_MEND}"
        )


def _open_with_pillow(
    opener: type[BmpImagePlugin.BmpImageFile | PngImagePlugin.PngImageFile],
    data: bytes,
    *,
    kind: str,
) -> Image.Image:
    """Decodes all pixels; the plugin is named, so no other format can be taken for this one."""
    try:
        image = opener(io.BytesIO(data))
        image.load()
    except _PILLOW_ERRORS as error:
        found = str(error) or type(error).__name__
        raise _RefusedError(
            f"is a damaged or truncated {kind} ({found}); copy it again, or {_MEND}"
        ) from error
    return image


def _gray_values(image: Image.Image, *, kind: str) -> npt.NDArray[np.uint8]:
    if image.mode in ("1", "L") and "transparency" not in image.info:
        return np.asarray(image.convert("L"))
    rgba = np.asarray(image.convert("RGBA"))
    alpha = rgba[..., 3]
    if alpha.min() != alpha.max():
        raise _RefusedError(f"is a {kind} that is transparent in parts; {_MEND}")
    _check_gray(rgba[..., :3].reshape(-1, 3))
    return np.ascontiguousarray(rgba[..., 0])


def _check_gray(colors: npt.NDArray[np.uint8]) -> None:
    """Refuses [..., 3] colors whose channels differ."""
    is_color = (colors != colors[:, :1]).any(axis=1)
    if is_color.any():
        raise _RefusedError(
            f"is in color (for example {colors[is_color][0].tolist()} of 255); expected grays, "
            f"where red, green and blue are equal; {_MEND}"
        )


def _list_used(gray_values: npt.NDArray[np.uint8]) -> str:
    used = np.unique(gray_values).tolist()
    shown = ", ".join(str(value) for value in used[:8])
    return f"[{shown}, … {len(used)} in all]" if len(used) > 8 else f"[{shown}]"
