import struct

import numpy as np
import pytest


def encode_bmp(
    pixels,
    *,
    bits=8,
    palette=(),
    num_header_bytes=40,
    top_down=False,
    compression=0,
    channels=(),
    runs=None,
    num_colors=0,
    extra=b"",
):
    """Writes a BMP by hand: pixels [height, width] as stored, palette of (red, green, blue)."""
    height, width = pixels.shape
    rows = pixels if top_down else pixels[::-1]
    body = pack_rows(rows, bits=bits) if runs is None else runs
    masks = struct.pack(f"<{len(channels)}I", *channels)
    if num_header_bytes == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
        entries = b"".join(bytes(color[::-1]) for color in palette)
    elif num_header_bytes == 16:
        info = struct.pack("<IiiHH", 16, width, height, 1, bits)
        entries = b"".join(bytes((*color[::-1], 0)) for color in palette)
    else:
        signed_height = -height if top_down else height
        info = struct.pack(
            "<IiiHHII", num_header_bytes, width, signed_height, 1, bits, compression, 0
        )
        info += struct.pack("<iiII", 0, 0, num_colors, 0) + masks
        info += bytes(max(0, num_header_bytes - len(info)))
        entries = b"".join(bytes((*color[::-1], 0)) for color in palette)
    offset = 14 + len(info) + len(entries)
    header = struct.pack("<2sIHHI", b"BM", offset + len(body), 0, 0, offset)
    return header + info + entries + body + extra


def pack_rows(rows, *, bits):
    """Gives the bytes of [height, width] pixels; each row is padded to four bytes."""
    height, width = rows.shape
    row_bytes = (width * bits + 31) // 32 * 4
    if bits >= 16:
        as_bytes = rows.astype("<u4")[..., None].view(np.uint8)[..., : bits // 8]
        padded = np.zeros((height, row_bytes), np.uint8)
        padded[:, : width * bits // 8] = as_bytes.reshape(height, -1)
        return padded.tobytes()
    packed = np.zeros((height, row_bytes * 8), np.uint8)
    shifts = np.arange(bits - 1, -1, -1)
    packed[:, : width * bits] = (rows[..., None] >> shifts & 1).reshape(height, -1)
    return np.packbits(packed, axis=1).tobytes()


@pytest.fixture(name="encode_bmp")
def _encode_bmp():
    return encode_bmp
