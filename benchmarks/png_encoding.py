"""Our PNG encoder beside Pillow's: milliseconds and bytes a slice, on the same slices in turn."""

import io
import itertools
import statistics
import time
from collections import defaultdict

import numpy as np
from PIL import Image
from slices import folders

from preprocessing.images.reading import read_slice
from preprocessing.png import encode_png

NUM_SLICES = 60


def pillow(level: int):  # noqa: ANN201
    """Gives an encoder of Pillow at a compression level of zlib."""

    def encode(pixels: np.ndarray) -> bytes:
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, "PNG", compress_level=level)
        return encoded.getvalue()

    return encode


def main() -> None:
    """Encodes each slice with each encoder in turn and prints medians and ratios."""
    images, _ = folders(__doc__)
    paths = sorted(path for path in images.rglob("*") if path.is_file())
    paths = paths[:: max(len(paths) // NUM_SLICES, 1)]
    encoders = {"ours": encode_png, "Pillow, default": pillow(6), "Pillow, level 1": pillow(1)}
    milliseconds, sizes = defaultdict(list), defaultdict(list)
    for path, (name, encode) in itertools.product(paths, encoders.items()):
        pixels = read_slice(path)
        start = time.perf_counter()
        content = encode(pixels)
        milliseconds[name].append(1000 * (time.perf_counter() - start))
        sizes[name].append(len(content))
        with Image.open(io.BytesIO(content)) as image:
            if not np.array_equal(np.asarray(image), pixels):
                raise ValueError(f"{name} is not lossless on {path}")
    print("| encoder | time against ours | bytes against ours | ms a slice | KiB a slice |")
    print("| --- | ---: | ---: | ---: | ---: |")
    ours = statistics.median(milliseconds["ours"]), sum(sizes["ours"])
    for name in encoders:
        median, num_bytes = statistics.median(milliseconds[name]), sum(sizes[name])
        print(
            f"| {name} | {median / ours[0]:.2f} | {num_bytes / ours[1]:.2f} | {median:.2f} "
            f"| {num_bytes / len(paths) / 1024:.1f} |"
        )


if __name__ == "__main__":
    main()
