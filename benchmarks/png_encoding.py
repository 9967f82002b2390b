"""Our PNG encoder beside Pillow's, and beside what else it could be, on the same slices in turn."""

import io
import itertools
import statistics
import time
import zlib
from collections import defaultdict
from collections.abc import Callable

import numpy as np
from PIL import Image
from slices import folders

from preprocessing.images.reading import read_slice
from preprocessing.png import encode_png

NUM_SLICES = 60


Pixels = np.ndarray


def pillow(level: int) -> Callable[[Pixels], bytes]:
    """Gives an encoder of Pillow at a compression level of zlib."""

    def encode(pixels: np.ndarray) -> bytes:
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, "PNG", compress_level=level)
        return encoded.getvalue()

    return encode


def filtered(
    number: int, predict: Callable[[Pixels], Pixels], strategy: int = zlib.Z_RLE
) -> Callable[[Pixels], bytes]:
    """Gives an encoder that stores differences from a prediction, with the zlib of Python."""

    def encode(pixels: Pixels) -> bytes:
        rows = np.full((len(pixels), 1 + pixels.shape[1]), number, np.uint8)
        np.subtract(pixels, predict(pixels), out=rows[:, 1:])
        compressor = zlib.compressobj(1, zlib.DEFLATED, 15, 8, strategy)
        body = compressor.compress(rows.data) + compressor.flush()
        header = np.array(pixels.shape[::-1], ">u4").tobytes() + b"\x08\0\0\0\0"
        parts = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)
            for kind, content in parts
        )

    return encode


def shifted(pixels: Pixels, *, rows: int, columns: int) -> Pixels:
    """Gives for each pixel the one so many rows above and columns to the left, or 0."""
    height, width = pixels.shape
    return np.pad(pixels, ((rows, 0), (columns, 0)))[:height, :width]


def left(pixels: Pixels) -> Pixels:
    """Gives the pixel to the left."""
    return shifted(pixels, rows=0, columns=1)


def up(pixels: Pixels) -> Pixels:
    """Gives the pixel above."""
    return shifted(pixels, rows=1, columns=0)


def average(pixels: Pixels) -> Pixels:
    """Gives the mean of left and up, rounded down."""
    one, other = left(pixels), up(pixels)
    return (one >> 1) + (other >> 1) + (one & other & 1)


def paeth(pixels: Pixels) -> Pixels:
    """Gives the neighbor that is nearest to left + up - corner.

    Source: Portable Network Graphics (PNG) Specification, third edition, section 9.4.
    """
    one, other = left(pixels).astype(np.int16), up(pixels).astype(np.int16)
    corner = shifted(pixels, rows=1, columns=1).astype(np.int16)
    to_one, to_other = np.abs(other - corner), np.abs(one - corner)
    to_corner = np.abs(one + other - 2 * corner)
    nearer = np.where(to_other <= to_corner, other, corner)
    is_one = (to_one <= to_other) & (to_one <= to_corner)
    return np.where(is_one, one, nearer).astype(np.uint8)


ENCODERS = {
    "ours: sub, zlib-ng, runs": encode_png,
    "sub, zlib, runs": filtered(1, left),
    "up, zlib, runs": filtered(2, up),
    "average, zlib, runs": filtered(3, average),
    "Paeth, zlib, runs": filtered(4, paeth),
    "sub, zlib, level 1": filtered(1, left, zlib.Z_DEFAULT_STRATEGY),
    "Pillow, level 1": pillow(1),
    "Pillow, default": pillow(6),
}


def main() -> None:
    """Encodes each slice with each encoder in turn and prints medians and ratios."""
    images, _ = folders(__doc__)
    paths = sorted(path for path in images.rglob("*") if path.is_file())
    paths = paths[:: max(len(paths) // NUM_SLICES, 1)]
    milliseconds, sizes = defaultdict(list), defaultdict(list)
    for path, (name, encode) in itertools.product(paths, ENCODERS.items()):
        pixels = read_slice(path)
        start = time.perf_counter()
        content = encode(pixels)
        milliseconds[name].append(1000 * (time.perf_counter() - start))
        sizes[name].append(len(content))
        with Image.open(io.BytesIO(content)) as image:
            if not np.array_equal(np.asarray(image), pixels):
                raise ValueError(f"{name} is not lossless on {path}")
    print("| encoder | time against ours | bytes against Pillow | ms a slice | KiB a slice |")
    print("| --- | ---: | ---: | ---: | ---: |")
    ours = statistics.median(milliseconds["ours: sub, zlib-ng, runs"])
    default_bytes = sum(sizes["Pillow, default"])
    for name in ENCODERS:
        median, num_bytes = statistics.median(milliseconds[name]), sum(sizes[name])
        print(
            f"| {name} | {median / ours:.2f} | {num_bytes / default_bytes:.3f} | {median:.2f} "
            f"| {num_bytes / len(paths) / 1024:.1f} |"
        )


if __name__ == "__main__":
    main()
