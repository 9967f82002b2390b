"""An archive with hundreds of damaged files: each is refused for its reason, none is lost."""

import io
import json
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from preprocessing.config import TfrecordsConfig
from preprocessing.framing import read_records
from preprocessing.images.reading import read_mask, read_slice
from preprocessing.pipeline import run
from preprocessing.records import decode_example

SHAPE = (24, 20)
NUM_GOOD = 40
MAX_MORE_BYTES = 24 * 2**20
GRAY = np.random.default_rng(1).integers(0, 256, SHAPE).astype(np.uint8)
MASK = np.random.default_rng(2).integers(0, 2, SHAPE).astype(np.uint8) * 255
GRAY_PALETTE = [(value, value, value) for value in range(256)]

BMP_FIELDS = (2, 6, 8, 10, 14, 18, 22, 26, 28, 30, 34, 38, 42, 46, 50)
"""Where the fields of a file header and of Microsoft's shortest header begin."""


def encode(pixels, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def bmp_files(encode_bmp):
    """Gives whole BMP files of many kinds; [24, 20] pixels each."""
    runs = b"".join(bytes((0, 20)) + row.tobytes() + b"\0\0" for row in GRAY[::-1]) + b"\0\1"
    wide = GRAY.astype(np.uint32) * 0x010101
    return {
        "8 bits": encode_bmp(GRAY, palette=GRAY_PALETTE),
        "1 bit": encode_bmp(GRAY % 2, bits=1, palette=GRAY_PALETTE[:2]),
        "4 bits": encode_bmp(GRAY % 16, bits=4, palette=GRAY_PALETTE[:16]),
        "16 bits": encode_bmp(np.zeros(SHAPE, int), bits=16),
        "24 bits": encode(np.repeat(GRAY[..., None], 3, axis=2), "BMP"),
        "32 bits": encode_bmp(wide, bits=32),
        "V4": encode_bmp(GRAY, palette=GRAY_PALETTE, num_header_bytes=108),
        "V5": encode_bmp(GRAY, palette=GRAY_PALETTE, num_header_bytes=124),
        "OS/2": encode_bmp(GRAY, palette=GRAY_PALETTE, num_header_bytes=64),
        "RLE8": encode_bmp(GRAY, palette=GRAY_PALETTE, compression=1, runs=runs),
    }


def truncated(encode_bmp):
    """Cuts files at every field of their headers, and inside of their pixels."""
    for name, data in bmp_files(encode_bmp).items():
        (pixels,) = struct.unpack_from("<I", data, 10)
        for length in (*BMP_FIELDS, pixels - 1, pixels, (pixels + len(data)) // 2, len(data) - 6):
            yield f"{name} cut at {length}", data[:length], "truncated BMP"
    png = encode(GRAY, "PNG")
    for length in (8, 12, 16, 20, 24, 25, 26, 27, 28, 29, 33, 37, 41, 200, len(png) - 1):
        yield f"PNG cut at {length}", png[:length], "truncated PNG"
    tiff = encode(GRAY, "TIFF", compression="tiff_lzw")
    for length in (4, 6, 8, *range(10, len(tiff), 50), len(tiff) - 1):
        yield f"TIFF cut at {length}", tiff[:length], "truncated TIFF"
    jpeg = encode(GRAY, "JPEG")
    for length in (3, 4, 6, 11, 20, 40, 89, 158, 180, 200, 400, len(jpeg) - 30):
        yield f"JPEG cut at {length}", jpeg[:length], "truncated JPEG"
    yield "BMP cut at 1", b"B", "is none of BMP, PNG, TIFF or JPEG"
    yield "PNG cut at 4", png[:4], "is none of BMP, PNG, TIFF or JPEG"


def flipped(encode_bmp):
    """Flips single bits where a format lets one see it."""
    data = encode_bmp(GRAY, palette=GRAY_PALETTE)
    for at, bits in ((0, 8), (1, 8), (14, 8), (15, 8), (26, 8), (27, 8), (28, 6), (30, 8), (31, 4)):
        for bit in range(bits):
            flip = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            yield f"BMP with bit {bit} of byte {at} flipped", flip, ""
    png = encode(GRAY, "PNG")
    for at in range(12, len(png), 9):
        flip = png[:at] + bytes([png[at] ^ 16]) + png[at + 1 :]
        yield f"PNG with a bit of byte {at} flipped", flip, ""


def foreign():
    """Gives files of other kinds under the name of a slice."""
    for kind in ("GIF", "WEBP", "PPM", "ICO", "TGA"):
        yield kind, encode(GRAY, kind), "BMP, PNG, TIFF or JPEG"
    yield "empty", b"", "is empty (0 bytes)"
    yield "zero bytes", bytes(4000), "holds 4000 zero bytes and nothing else"
    yield "ones", b"\xff" * 4000, "is none of"
    yield "web page", b"<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"
    yield "XML", b'\n\n<?xml version="1.0"?><error/>', "is a web page or XML"
    yield "PDF", b"%PDF-1.7\n", "is a PDF"
    yield "zip", b"PK\x03\x04rest", "is a zip archive"
    yield "gzip", zlib.compress(b"x" * 99, wbits=31), "is a gzip archive"
    yield "DICOM", bytes(128) + b"DICM" + bytes(99), "is a DICOM file"
    yield "text", b"P1;51;male\n", "is none of"
    yield "noise", np.random.default_rng(3).bytes(999), "is none of"


def bombs(encode_bmp):
    """Gives small files that would fill the memory."""
    bmp = bytearray(encode_bmp(GRAY, palette=GRAY_PALETTE))
    for width, height in ((60000, 60000), (2**31 - 1, 2**31 - 1), (2**24 + 1, 1), (1, -(2**31))):
        struct.pack_into("<ii", bmp, 18, width, height)
        yield f"BMP of {width} x {height}", bytes(bmp), "expected at most 16777216 pixels"
    runs = encode_bmp(np.zeros((4000, 4000)), palette=GRAY_PALETTE, compression=1, runs=b"\xff\0")
    yield "RLE8 of 4000 x 4000", runs, "is a truncated BMP"
    header = struct.pack(">II5B", 40000, 40000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    start = (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )
    yield "PNG of 40000 x 40000", start, "expected at most 16777216 pixels"
    text = PngImagePlugin.PngInfo()
    text.add_text("note", "x" * 2**28, zip=True)
    yield (
        "PNG with a note of 256 MiB",
        encode(GRAY, "PNG", pnginfo=text),
        "damaged or truncated PNG",
    )
    jpeg = bytearray(encode(GRAY, "JPEG"))
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, 65000, 65000)
    yield "JPEG of 65000 x 65000", bytes(jpeg), "expected at most 16777216 pixels"
    tiff = bytearray(encode(GRAY, "TIFF"))
    (directory,) = struct.unpack_from("<I", tiff, 4)
    for entry in (directory + 2, directory + 14):  # width and height come first
        struct.pack_into("<HII", tiff, entry + 2, 4, 1, 60000)
    yield "TIFF of 60000 x 60000", bytes(tiff), "expected at most 16777216 pixels"


def unsuitable():
    """Gives whole images that are no slices."""
    color = np.repeat(GRAY[..., None], 3, axis=2)
    color[3, 4] = (9, 99, 9)
    for kind in ("BMP", "PNG", "TIFF"):
        yield f"color {kind}", encode(color, kind), "is in color (for example [9, 99, 9]"
    wide = GRAY.astype(np.uint16) * 200
    yield "PNG of 16 bits", encode(wide, "PNG"), "is a PNG of 16 bits a channel"
    yield "TIFF of 16 bits", encode(wide, "TIFF"), "is a TIFF of 16 bits a channel"
    pages = [Image.fromarray(GRAY)] * 2
    yield "TIFF of pages", encode(GRAY, "TIFF", save_all=True, append_images=pages), "of 3 images"
    clear = np.dstack([GRAY] * 4)
    yield "transparent PNG", encode(clear, "PNG"), "is transparent in parts"


def unsuitable_masks():
    """Gives whole images that are no masks of [24, 20] pixels."""
    yield "three values", encode(MASK // 2 + MASK % 2 * 7, "BMP"), "has gray values"
    yield "smoothed", encode(GRAY, "BMP"), "has gray values"
    yield "JPEG", encode(MASK, "JPEG"), "is a JPEG, which changes gray values"
    yield "JPEG in TIFF", encode(MASK, "TIFF", compression="jpeg"), "is a TIFF with jpeg"
    for shape in ((24, 21), (23, 20), (20, 24), (1, 1), (48, 40)):
        yield f"mask of {shape}", encode(np.zeros(shape, np.uint8), "PNG"), "expected equal sizes"


@pytest.fixture
def archive(empty_pairs, encode_bmp):
    """Good slices, and more than 300 damaged ones of the same patients."""
    for index in range(NUM_GOOD):
        empty_pairs.add(f"P{index % 8}_z{index:04d}", seed=index, shape=SHAPE)
    slices = [
        *truncated(encode_bmp),
        *flipped(encode_bmp),
        *foreign(),
        *bombs(encode_bmp),
        *unsuitable(),
    ]
    damage = [("images", *each) for each in slices]
    # A JPEG is no mask, however whole it is.
    damage += [("masks", *each) for each in slices[::7] if "JPEG" not in each[0]]
    damage += [("masks", *each) for each in unsuitable_masks()]
    expected = {}
    for index, (role, what, data, cause) in enumerate(damage):
        name = f"P{index % 8}_z{1000 + index}.bmp"
        other = "masks" if role == "images" else "images"
        (getattr(empty_pairs, role) / name).write_bytes(data)
        (getattr(empty_pairs, other) / name).write_bytes(
            encode(MASK if other == "masks" else GRAY, "BMP")
        )
        expected[f"{role}/{name}"] = (what, cause)
    return empty_pairs, expected


def test_every_damaged_file_is_refused_for_its_reason_and_no_good_one_is_lost(archive):
    pairs, expected = archive
    assert len(expected) >= 300
    config = TfrecordsConfig(
        images=pairs.images, masks=pairs.masks, out=pairs.out, max_refused_fraction=1, num_shards=4
    )
    dataset = run(config).dataset
    refused = {entry.file: entry.reason for entry in dataset.refused}
    assert len(refused) == len(dataset.refused)
    for file, (what, cause) in expected.items():
        assert file in refused, f"{what} was taken for good"
        assert cause in refused[file], what
        assert "; " in refused[file], what  # a mend follows the cause
    assert set(refused) == set(expected)
    written = set()
    for split in dataset.splits.values():
        for shard in split.shards:
            for record in read_records(pairs.out / shard.filename):
                example = decode_example(record)
                name = f"{example.slice_id}.bmp"
                np.testing.assert_array_equal(example.image, read_slice(pairs.images / name))
                np.testing.assert_array_equal(example.mask, read_mask(pairs.masks / name))
                written.add(name)
    assert written == {f"P{index % 8}_z{index:04d}.bmp" for index in range(NUM_GOOD)}


PEAK_MEMORY = """
import json, resource, sys
from pathlib import Path
from preprocessing.config import TfrecordsConfig
from preprocessing.pipeline import run

images, masks, out = map(Path, sys.argv[1:])
summary = run(TfrecordsConfig(images=images, masks=masks, out=out, max_refused_fraction=1))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"peak_bytes": peak, "num_refused": len(summary.dataset.refused)}))
"""


@pytest.mark.slow
def test_memory_stays_flat_among_damaged_files(archive):
    pairs, expected = archive

    def measure(name):
        arguments = [str(pairs.images), str(pairs.masks), str(pairs.out.with_name(name))]
        done = subprocess.run(
            [sys.executable, "-c", PEAK_MEMORY, *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)

    with_damage = measure("damaged")
    for file in expected:
        for folder in (pairs.images, pairs.masks):
            (folder / file.partition("/")[2]).unlink()
    without = measure("good")
    assert (with_damage["num_refused"], without["num_refused"]) == (len(expected), 0)
    assert with_damage["peak_bytes"] < without["peak_bytes"] + MAX_MORE_BYTES
