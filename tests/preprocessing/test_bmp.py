import io
import os
import struct

import numpy as np
import pytest
from PIL import Image

from preprocessing import bmp
from preprocessing.bmp import UnreadableImageError, decode_mask, decode_slice, read_mask, read_slice

GRAY = np.random.default_rng(0).integers(0, 256, (5, 7)).astype(np.uint8)
GRAY_PALETTE = [(value, value, value) for value in range(256)]


def encode(pixels, *, kind="BMP", mode=None, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode).save(buffer, kind, **options)
    return buffer.getvalue()


def palette_bmp(indices, palette, *, bits=8, top_down=False, os2=False, num_colors=0, extra=b""):
    """Writes a BMP by hand: indices [height, width], palette of (red, green, blue)."""
    height, width = indices.shape
    rows = indices if top_down else indices[::-1]
    row_bytes = (width * bits + 31) // 32 * 4
    packed = np.zeros((height, row_bytes * 8), np.uint8)
    shifts = np.arange(bits - 1, -1, -1)
    packed[:, : width * bits] = (rows[..., None] >> shifts & 1).reshape(height, -1)
    pixels = np.packbits(packed, axis=1).tobytes()
    if os2:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
        entries = b"".join(bytes(color[::-1]) for color in palette)
    else:
        signed_height = -height if top_down else height
        info = struct.pack(
            "<IiiHHIIiiII", 40, width, signed_height, 1, bits, 0, len(pixels), 0, 0, num_colors, 0
        )
        entries = b"".join(bytes((*color[::-1], 0)) for color in palette)
    offset = 14 + len(info) + len(entries)
    header = struct.pack("<2sIHHI", b"BM", offset + len(pixels), 0, 0, offset)
    return header + info + entries + pixels + extra


def reason_of(data, decode=decode_slice):
    with pytest.raises(UnreadableImageError) as caught:
        decode(data, source="images/a.bmp")
    assert caught.value.source == "images/a.bmp"
    assert str(caught.value) == f"images/a.bmp {caught.value.reason}"
    return caught.value.reason


def test_gray_bmp_and_png_give_their_pixels():
    for kind in ("BMP", "PNG"):
        pixels = decode_slice(encode(GRAY, kind=kind), source="a")
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, GRAY)


def test_inverted_palette_gives_the_gray_values_that_a_viewer_shows():
    data = palette_bmp(GRAY, GRAY_PALETTE[::-1])
    np.testing.assert_array_equal(decode_slice(data, source="a"), 255 - GRAY)


def test_eight_bits_with_a_palette_of_two_colors_are_not_taken_for_one_bit():
    indices = GRAY % 2
    data = palette_bmp(indices, [(0, 0, 0), (255, 255, 255)], num_colors=2)
    np.testing.assert_array_equal(decode_slice(data, source="a"), indices * 255)
    np.testing.assert_array_equal(decode_mask(data, source="a"), indices)


def test_palette_of_zero_and_one_is_a_mask():
    data = palette_bmp(GRAY % 2, [(0, 0, 0), (1, 1, 1)], num_colors=2)
    np.testing.assert_array_equal(decode_mask(data, source="a"), GRAY % 2)


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("top_down", [False, True])
def test_every_depth_and_direction_gives_its_pixels(bits, top_down):
    indices = GRAY & (2**bits - 1)
    data = palette_bmp(indices, GRAY_PALETTE[: 2**bits], bits=bits, top_down=top_down)
    np.testing.assert_array_equal(decode_slice(data, source="a"), indices)


def test_os2_header_and_trailing_bytes_are_read():
    data = palette_bmp(GRAY, GRAY_PALETTE, os2=True, extra=b"scanner notes")
    np.testing.assert_array_equal(decode_slice(data, source="a"), GRAY)


@pytest.mark.parametrize("kind", ["BMP", "PNG"])
@pytest.mark.parametrize("num_channels", [3, 4])
def test_color_image_with_equal_channels_is_gray(kind, num_channels):
    pixels = np.repeat(GRAY[..., None], num_channels, axis=2)
    pixels[..., 3:] = 255
    np.testing.assert_array_equal(decode_slice(encode(pixels, kind=kind), source="a"), GRAY)


def test_unused_colors_of_a_palette_do_no_harm():
    data = palette_bmp(GRAY % 2, [(0, 0, 0), (9, 9, 9), (255, 0, 0), (0, 0, 255)], num_colors=4)
    np.testing.assert_array_equal(decode_slice(data, source="a"), GRAY % 2 * 9)


def test_used_color_of_a_palette_is_refused():
    data = palette_bmp(GRAY % 2, [(0, 0, 0), (255, 0, 0)], num_colors=2)
    assert "is in color" in reason_of(data)


def test_index_beyond_the_palette_is_refused():
    data = palette_bmp(np.full((2, 2), 5), [(0, 0, 0), (255, 255, 255)], num_colors=2)
    assert "uses color 5 of its palette, which has 2 colors" in reason_of(data)


def test_color_image_is_refused_with_an_example():
    pixels = np.repeat(GRAY[..., None], 3, axis=2)
    pixels[0, 0] = (10, 20, 30)
    assert "is in color (for example [10, 20, 30] of 255)" in reason_of(encode(pixels))


def test_partly_transparent_png_is_refused():
    pixels = np.repeat(GRAY[..., None], 4, axis=2)
    assert "is a PNG that is transparent in parts" in reason_of(encode(pixels, kind="PNG"))


def test_sixteen_bit_png_is_refused():
    data = encode(np.full((4, 4), 40000, np.uint16), kind="PNG")
    assert "is a PNG of 16 bits a channel; expected 8" in reason_of(data)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "is empty (0 bytes)"),
        (encode(GRAY, kind="JPEG"), "is a JPEG, which changes gray values; expected BMP or PNG"),
        (encode(GRAY, kind="GIF"), "is a GIF"),
        (encode(GRAY, kind="TIFF"), "is a TIFF"),
        (b"\n<!DOCTYPE html><html>", "is a web page or XML"),
        (b"PK\x03\x04rest", "is a zip archive"),
        (bytes(128) + b"DICM" + bytes(9), "is a DICOM file"),
        (b"\x01\x02\x03", "it begins with bytes 01 02 03"),
    ],
)
def test_other_files_are_named_for_what_they_are(data, found):
    reason = reason_of(data)
    assert found in reason
    assert "export it again as an 8-bit grayscale BMP or PNG" in reason


def test_png_named_bmp_is_read_for_what_it_is(tmp_path):
    path = tmp_path / "slice.bmp"
    path.write_bytes(encode(GRAY, kind="PNG"))
    np.testing.assert_array_equal(read_slice(path), GRAY)


@pytest.mark.parametrize("kind", ["BMP", "PNG"])
def test_a_file_cut_anywhere_is_refused(kind):
    data = encode(GRAY, kind=kind)
    # A PNG ends with the name of its last chunk and a checksum.
    for length in range(2, len(data) - (8 if kind == "PNG" else 0)):
        assert reason_of(data[:length])
    assert f"truncated {kind}" in reason_of(data[:20])


@pytest.mark.parametrize(("at", "header_bytes"), [(14, 0), (14, 2**32 - 1), (10, 30)])
def test_bmp_whose_header_cannot_be_as_long_as_it_says_is_refused(at, header_bytes):
    data = bytearray(palette_bmp(GRAY, GRAY_PALETTE))
    data[at : at + 4] = struct.pack("<I", header_bytes)
    assert "is a damaged BMP: it says that its header has" in reason_of(bytes(data))


def test_truncated_bmp_says_how_many_bytes_are_missing():
    data = palette_bmp(GRAY, GRAY_PALETTE)
    assert f"it has {len(data) - 3} bytes; expected {len(data)} for 7 x 5 px" in reason_of(
        data[:-3]
    )


def test_truncated_color_bmp_is_refused():
    data = encode(np.repeat(GRAY[..., None], 3, axis=2))
    assert "is a damaged or truncated BMP" in reason_of(data[:-20])


def test_damaged_png_is_refused():
    data = bytearray(encode(GRAY, kind="PNG"))
    data[45:60] = bytes(15)
    assert "is a damaged or truncated PNG" in reason_of(bytes(data))


def test_run_length_encoded_bmp_is_read():
    end_of_row = b"\x00\x00"
    runs = b"".join(
        bytes(v for value in row for v in (1, value)) + end_of_row for row in GRAY[::-1]
    )
    info = struct.pack("<IiiHHIIiiII", 40, 7, 5, 1, 8, 1, len(runs), 0, 0, 0, 0)
    entries = b"".join(bytes((*color, 0)) for color in GRAY_PALETTE[::-1])
    offset = 14 + len(info) + len(entries)
    header = struct.pack("<2sIHHI", b"BM", offset + len(runs), 0, 0, offset)
    data = header + info + entries + runs + b"\x00\x01"
    np.testing.assert_array_equal(decode_slice(data, source="a"), 255 - GRAY)
    assert "is a damaged or truncated BMP" in reason_of(data[: offset + 9])


def test_run_length_encoded_bmp_with_two_colors_is_refused():
    info = struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 8, 1, 4, 0, 0, 2, 0)
    entries = bytes((0, 0, 0, 0, 255, 255, 255, 0))
    offset = 14 + len(info) + len(entries)
    header = struct.pack("<2sIHHI", b"BM", offset + 4, 0, 0, offset)
    data = header + info + entries + b"\x02\x01\x00\x01"
    assert "is a damaged or truncated BMP (unknown raw mode" in reason_of(data)


def test_huge_size_is_refused_before_pixels_are_decoded():
    data = bytearray(palette_bmp(GRAY, GRAY_PALETTE))
    struct.pack_into("<ii", data, 18, 60000, 60000)
    assert "says that it is 60000 x 60000 px; expected at most 16777216 pixels" in reason_of(data)
    png = bytearray(encode(GRAY, kind="PNG"))
    struct.pack_into(">II", png, 16, 60000, 60000)
    assert "says that it is 60000 x 60000 px" in reason_of(bytes(png))


@pytest.mark.parametrize("size", [(0, 5), (-3, 5), (5, 0)])
def test_size_without_pixels_is_refused(size):
    data = bytearray(palette_bmp(GRAY, GRAY_PALETTE))
    struct.pack_into("<ii", data, 18, *size)
    assert "expected at least 1 x 1" in reason_of(bytes(data))


def test_mask_of_zero_and_255_gives_labels():
    pixels = np.array([[0, 255], [255, 0]], np.uint8)
    mask = decode_mask(encode(pixels), source="a")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, [[0, 1], [1, 0]])


@pytest.mark.parametrize(("gray_value", "label"), [(0, 0), (1, 1), (255, 1)])
def test_empty_and_full_masks_are_masks(gray_value, label):
    mask = decode_mask(encode(np.full((3, 3), gray_value, np.uint8)), source="a")
    np.testing.assert_array_equal(mask, np.full((3, 3), label))


def test_mask_with_third_gray_value_is_refused():
    reason = reason_of(encode(np.array([[0, 128, 255]], np.uint8)), decode_mask)
    assert "has gray values [0, 128, 255]; expected only [0, 255] or [0, 1]" in reason


@pytest.mark.parametrize("found", [[0, 2], [128], [0, 1, 255], [1, 255], [254]])
def test_mask_with_other_gray_values_is_refused(found):
    reason = reason_of(encode(np.array([found], np.uint8)), decode_mask)
    assert f"has gray values {found}; expected" in reason


def test_long_list_of_gray_values_is_cut():
    reason = reason_of(encode(np.arange(20, dtype=np.uint8)[None]), decode_mask)
    assert "has gray values [0, 1, 2, 3, 4, 5, 6, 7, … 20 in all]; expected" in reason


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UnreadableImageError, match=r"none.bmp cannot be read \(No such file"):
        read_mask(tmp_path / "none.bmp")


def test_folder_named_bmp_is_refused(tmp_path):
    (tmp_path / "a.bmp").mkdir()
    with pytest.raises(UnreadableImageError, match=r"a.bmp cannot be read \(Is a directory\)"):
        read_slice(tmp_path / "a.bmp")


def test_file_too_large_for_any_slice_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(bmp, "MAX_FILE_BYTES", 100)
    (tmp_path / "a.bmp").write_bytes(bytes(101))
    with pytest.raises(UnreadableImageError, match="has 101 bytes; expected at most 100"):
        read_slice(tmp_path / "a.bmp")


def test_real_slices_equal_what_pillow_reads(lctsc):
    for path in sorted((lctsc / "images").iterdir())[::40]:
        np.testing.assert_array_equal(read_slice(path), np.asarray(Image.open(path).convert("L")))
        mask = np.asarray(Image.open(lctsc / "masks" / path.name).convert("L"))
        np.testing.assert_array_equal(read_mask(lctsc / "masks" / path.name), mask // 255)


def test_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.bmp")
    with pytest.raises(UnreadableImageError, match=r"a.bmp is a pipe or a device; expected a file"):
        read_slice(tmp_path / "a.bmp")
