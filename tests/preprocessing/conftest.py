import logging
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


class SlicePairs:
    """Writes tiny slices and masks: [12, 10] pixels, four slices for each of five patients."""

    def __init__(self, folder: Path) -> None:
        self.images = folder / "images"
        self.masks = folder / "masks"
        self.out = folder / "dataset"
        self.images.mkdir(parents=True)
        self.masks.mkdir()

    def add(self, slice_id: str, *, seed: int = 0, shape: tuple[int, int] = (12, 10)) -> None:
        rng = np.random.default_rng(seed)
        image = rng.integers(0, 256, shape).astype(np.uint8)
        mask = (rng.integers(0, 2, shape) * 255).astype(np.uint8)
        for folder, pixels in ((self.images, image), (self.masks, mask)):
            path = folder / f"{slice_id}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)

    def add_patients(self, *, num_patients: int = 5, slices_per_patient: int = 4) -> None:
        for patient in range(num_patients):
            for index in range(slices_per_patient):
                self.add(f"P{patient}_z{index:03d}", seed=100 * patient + index)


@pytest.fixture(autouse=True)
def _restore_loggers():
    """Leaves the levels as they were: the command sets them."""
    ours, root = logging.getLogger("preprocessing"), logging.getLogger()
    levels = ours.level, root.level
    yield
    ours.setLevel(levels[0])
    root.setLevel(levels[1])


@pytest.fixture
def empty_pairs(tmp_path: Path) -> SlicePairs:
    return SlicePairs(tmp_path)


@pytest.fixture
def pairs(empty_pairs: SlicePairs) -> SlicePairs:
    empty_pairs.add_patients()
    return empty_pairs


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
