import io
import itertools
import struct

import numpy as np
import pytest
from PIL import Image

from preprocessing.images.bmp import decode_bmp
from preprocessing.images.checks import RefusedError

GRAY = np.random.default_rng(0).integers(0, 256, (5, 7)).astype(np.uint8)
GRAY_PALETTE = [(value, value, value) for value in range(256)]
RGB_565, RGB_555, RGB_888 = (0xF800, 0x07E0, 0x1F), (0x7C00, 0x03E0, 0x1F), (0xFF0000, 0xFF00, 0xFF)


def by_pillow(pixels, mode=None):
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode).save(buffer, "BMP")
    return buffer.getvalue()


def reason_of(data):
    with pytest.raises(RefusedError) as caught:
        decode_bmp(data)
    return str(caught.value)


def test_inverted_palette_gives_the_gray_values_that_a_viewer_shows(encode_bmp):
    data = encode_bmp(GRAY, palette=GRAY_PALETTE[::-1])
    np.testing.assert_array_equal(decode_bmp(data), 255 - GRAY)


def test_eight_bits_with_a_palette_of_two_colors_are_not_taken_for_one_bit(encode_bmp):
    data = encode_bmp(GRAY % 2, palette=[(0, 0, 0), (255, 255, 255)], num_colors=2)
    np.testing.assert_array_equal(decode_bmp(data), GRAY % 2 * 255)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize(
    ("num_header_bytes", "top_down"),
    # The short headers of OS/2 cannot say that the first row is at the top.
    [(12, False), (16, False), *itertools.product((40, 52, 56, 64, 108, 124), (False, True))],
)
def test_every_depth_direction_and_header_gives_its_pixels(
    encode_bmp, bits, top_down, num_header_bytes
):
    indices = GRAY & (2**bits - 1)
    palette = [(3 * index, 3 * index, 3 * index) for index in range(min(2**bits, 86))] + [
        (255, 255, 255)
    ] * (2**bits - 86)
    data = encode_bmp(
        indices, bits=bits, palette=palette, top_down=top_down, num_header_bytes=num_header_bytes
    )
    expected = np.where(indices < 86, indices.astype(int) * 3, 255)
    np.testing.assert_array_equal(decode_bmp(data), expected)


@pytest.mark.parametrize("palette", [GRAY_PALETTE, GRAY_PALETTE[::-1]])
def test_bytes_after_the_pixels_do_no_harm(encode_bmp, palette):
    plain = encode_bmp(GRAY, palette=palette)
    more = encode_bmp(GRAY, palette=palette, extra=b"scanner notes")
    np.testing.assert_array_equal(decode_bmp(plain), decode_bmp(more))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_what_pillow_writes_is_read_as_pillow_reads_it(mode):
    image = Image.fromarray(GRAY).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "BMP")
    np.testing.assert_array_equal(decode_bmp(buffer.getvalue()), np.asarray(image.convert("L")))


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("num_header_bytes", [40, 52, 56, 64, 108, 124])
def test_24_bits_with_equal_channels_are_gray(encode_bmp, top_down, num_header_bytes):
    pixels = GRAY.astype(np.uint32) * 0x010101
    data = bytearray(
        encode_bmp(pixels, bits=32, top_down=top_down, num_header_bytes=num_header_bytes)
    )
    np.testing.assert_array_equal(decode_bmp(bytes(data)), GRAY)


def test_24_bits_are_padded_to_four_bytes_a_row():
    for width in range(1, 8):
        pixels = np.repeat(GRAY[:, :width, None], 3, axis=2)
        np.testing.assert_array_equal(decode_bmp(by_pillow(pixels)), GRAY[:, :width])


def test_fourth_byte_of_32_bits_means_nothing_without_a_mask(encode_bmp):
    noise = np.random.default_rng(1).integers(0, 256, GRAY.shape, np.uint32) << 24
    data = encode_bmp(GRAY.astype(np.uint32) * 0x010101 | noise, bits=32)
    np.testing.assert_array_equal(decode_bmp(data), GRAY)


@pytest.mark.parametrize("channels", [RGB_888, RGB_888[::-1], (0xFF000000, 0xFF0000, 0xFF00)])
@pytest.mark.parametrize("num_header_bytes", [40, 108, 124])
def test_32_bits_are_read_where_the_file_says_that_the_channels_are(
    encode_bmp, channels, num_header_bytes
):
    pixels = sum(GRAY.astype(np.uint32) * (mask // 255) for mask in channels)
    data = encode_bmp(
        pixels, bits=32, compression=3, channels=channels, num_header_bytes=num_header_bytes
    )
    np.testing.assert_array_equal(decode_bmp(data), GRAY)


@pytest.mark.parametrize(
    ("pixel", "channels", "gray_value"),
    [
        (0x0000, None, 0),
        (0x7FFF, None, 255),
        (0x4210, None, 132),  # 16 of 31
        (0x4210, RGB_555, 132),
        (0xFFFF, RGB_565, 255),
        (0x8410, RGB_565, 130),  # green 32 of 63; red and blue 16 of 31
        (0x8430, RGB_565, 134),  # green 33 of 63 differs from them in its last bit only
        (0xCE99, RGB_565, 210),  # green 52 of 63; 25 of 31 is what 206 was rounded to
    ],
)
def test_16_bits_are_scaled_and_gray_in_the_bits_that_all_channels_have(
    encode_bmp, pixel, channels, gray_value
):
    data = encode_bmp(
        np.full((2, 3), pixel),
        bits=16,
        compression=3 if channels else 0,
        channels=channels or (),
    )
    np.testing.assert_array_equal(decode_bmp(data), np.full((2, 3), gray_value))


def test_16_bits_in_color_are_refused(encode_bmp):
    data = encode_bmp(np.array([[0x7C00]]), bits=16)
    assert "is in color (for example [255, 0, 0] of 255)" in reason_of(data)


@pytest.mark.parametrize("channels", [(0, 0xFF00, 0xFF), (0xF0F0, 0xFF00, 0xFF), (0x3FF, 255, 255)])
def test_channels_that_make_no_sense_are_refused(encode_bmp, channels):
    data = encode_bmp(GRAY.astype(np.uint32), bits=32, compression=3, channels=channels)
    assert f"whose channels take the bits {channels[0]:#x}" in reason_of(data)


def test_transparency_beyond_the_pixel_is_refused(encode_bmp):
    data = encode_bmp(
        np.zeros((2, 3)), bits=16, compression=6, channels=(*RGB_555, 0x370000), num_header_bytes=40
    )
    assert "and 0x370000 for transparency; expected" in reason_of(data)


@pytest.mark.parametrize(("num_header_bytes", "compression"), [(40, 6), (108, 3)])
def test_transparency_is_refused_if_it_varies(encode_bmp, num_header_bytes, compression):
    pixels = GRAY.astype(np.uint32) * 0x010101 | 0x80000000
    options = {
        "bits": 32,
        "compression": compression,
        "channels": (*RGB_888, 0xFF000000),
        "num_header_bytes": num_header_bytes,
    }
    np.testing.assert_array_equal(decode_bmp(encode_bmp(pixels, **options)), GRAY)
    pixels[2, 3] |= 0xFF000000
    assert "is a BMP that is transparent in parts" in reason_of(encode_bmp(pixels, **options))


def test_unused_colors_of_a_palette_do_no_harm(encode_bmp):
    palette = [(0, 0, 0), (9, 9, 9), (255, 0, 0), (0, 0, 255)]
    data = encode_bmp(GRAY % 2, palette=palette, num_colors=4)
    np.testing.assert_array_equal(decode_bmp(data), GRAY % 2 * 9)


def test_used_color_of_a_palette_is_refused(encode_bmp):
    data = encode_bmp(GRAY % 2, palette=[(0, 0, 0), (255, 0, 8)], num_colors=2)
    assert "is in color (for example [255, 0, 8] of 255)" in reason_of(data)


def test_color_is_refused_with_an_example():
    pixels = np.repeat(GRAY[..., None], 3, axis=2)
    pixels[0, 0] = (10, 20, 30)
    assert "is in color (for example [10, 20, 30] of 255)" in reason_of(by_pillow(pixels))


def test_index_beyond_the_palette_is_refused(encode_bmp):
    data = encode_bmp(np.full((2, 2), 5), palette=[(0, 0, 0), (255, 255, 255)], num_colors=2)
    assert "uses color 5 of its palette, which has 2 colors" in reason_of(data)


def test_palette_that_reaches_into_the_pixels_is_refused(encode_bmp):
    data = encode_bmp(GRAY % 2, palette=GRAY_PALETTE[:2], num_colors=9)
    assert "its palette has 9 colors, but there is room for 2 before its pixels" in reason_of(data)


@pytest.mark.parametrize(
    ("at", "layout", "value"),
    [(14, "<I", 0), (14, "<I", 2**32 - 1), (10, "<I", 30), (26, "<H", 0), (26, "<H", 257)],
)
def test_header_that_cannot_be_true_is_refused(encode_bmp, at, layout, value):
    data = bytearray(encode_bmp(GRAY, palette=GRAY_PALETTE))
    struct.pack_into(layout, data, at, value)
    assert "is a damaged BMP: it says that its header has" in reason_of(bytes(data))


@pytest.mark.parametrize("bits", [0, 3, 7, 64])
def test_unknown_depth_is_refused(encode_bmp, bits):
    data = bytearray(encode_bmp(GRAY, palette=GRAY_PALETTE))
    struct.pack_into("<H", data, 28, bits)
    assert f"is a BMP of {bits} bits a pixel; expected 1, 2, 4, 8" in reason_of(bytes(data))


@pytest.mark.parametrize(
    ("num_header_bytes", "bits", "compression"),
    [(40, 8, 2), (40, 4, 1), (40, 1, 3), (40, 24, 4), (40, 8, 99), (64, 1, 3), (64, 32, 3)],
)
def test_unknown_compression_is_refused(encode_bmp, num_header_bytes, bits, compression):
    data = encode_bmp(
        GRAY % 2, bits=bits, compression=compression, num_header_bytes=num_header_bytes, runs=b""
    )
    assert f"is a BMP of {bits} bits with compression {compression}; expected" in reason_of(data)


@pytest.mark.parametrize("bits", [1, 4, 8, 16, 24, 32])
def test_a_file_cut_anywhere_is_refused(encode_bmp, bits):
    palette = GRAY_PALETTE[: 2**bits] if bits <= 8 else ()
    pixels = np.zeros((5, 7), np.uint32)
    data = by_pillow(np.zeros((5, 7, 3), np.uint8)) if bits == 24 else None
    data = data or encode_bmp(pixels, bits=bits, palette=palette)
    for length in range(2, len(data)):
        assert "truncated BMP" in reason_of(data[:length])


def test_truncated_file_says_how_many_bytes_are_missing(encode_bmp):
    data = encode_bmp(GRAY, palette=GRAY_PALETTE)
    assert f"it has {len(data) - 3} bytes; expected {len(data)} for 7 x 5 px" in reason_of(
        data[:-3]
    )


@pytest.mark.parametrize("size", [(60000, 60000), (2**31 - 1, -(2**31))])
def test_huge_size_is_refused_before_pixels_are_decoded(encode_bmp, size):
    data = bytearray(encode_bmp(GRAY, palette=GRAY_PALETTE))
    struct.pack_into("<ii", data, 18, *size)
    assert f"says that it is {size[0]} x {abs(size[1])} px; expected at most" in reason_of(
        bytes(data)
    )


@pytest.mark.parametrize("size", [(0, 5), (-3, 5), (5, 0)])
def test_size_without_pixels_is_refused(encode_bmp, size):
    data = bytearray(encode_bmp(GRAY, palette=GRAY_PALETTE))
    struct.pack_into("<ii", data, 18, *size)
    assert "expected at least 1 x 1" in reason_of(bytes(data))


def rle8(pixels, *, is_absolute):
    """Encodes [height, width] from the last row to the first."""
    encoded = bytearray()
    for row in pixels[::-1]:
        if is_absolute:
            encoded += bytes((0, len(row))) + row.tobytes() + bytes(len(row) % 2)
        else:
            encoded += b"".join(bytes((1, value)) for value in row)
        encoded += b"\x00\x00"
    return bytes(encoded) + b"\x00\x01"


@pytest.mark.parametrize("is_absolute", [False, True])
def test_rle8_is_read(encode_bmp, is_absolute):
    data = encode_bmp(
        GRAY, palette=GRAY_PALETTE[::-1], compression=1, runs=rle8(GRAY, is_absolute=is_absolute)
    )
    np.testing.assert_array_equal(decode_bmp(data), 255 - GRAY)


def test_rle8_with_two_colors_is_read(encode_bmp):
    options = {"palette": [(0, 0, 0), (255, 255, 255)], "num_colors": 2, "compression": 1}
    data = encode_bmp(np.zeros((1, 3)), runs=b"\x02\x01\x01\x00\x00\x01", **options)
    np.testing.assert_array_equal(decode_bmp(data), [[255, 255, 0]])


def test_rle4_is_read(encode_bmp):
    # Three of 1 and 2 in turn, then 3, 4, 5 as they are; second row: five of 7; one is skipped.
    runs = b"\x03\x12\x00\x03\x34\x50\x00\x00\x05\x77\x00\x01"
    data = encode_bmp(np.zeros((2, 6)), bits=4, compression=2, palette=GRAY_PALETTE[:16], runs=runs)
    np.testing.assert_array_equal(decode_bmp(data), [[7, 7, 7, 7, 7, 0], [1, 2, 1, 3, 4, 5]])


@pytest.mark.parametrize(
    ("bits", "compression", "runs"),
    [
        (8, 1, b"\x05\x07\x03\x00\x00\x00\x08\x06\x00\x00\x00\x01"),
        (4, 2, b"\x05\x77\x03\x00\x00\x00\x08\x66\x00\x00\x00\x01"),
    ],
)
def test_runs_of_rows_that_are_padded_are_read(encode_bmp, bits, compression, runs):
    palette = GRAY_PALETTE[: 2**bits]
    data = encode_bmp(
        np.zeros((2, 5)), bits=bits, compression=compression, palette=palette, runs=runs
    )
    np.testing.assert_array_equal(decode_bmp(data), [[6] * 5, [7] * 5])


def test_skipped_pixels_of_runs_have_the_first_color(encode_bmp):
    # One pixel, two to the right and one up, one pixel.
    runs = b"\x01\x09\x00\x02\x02\x01\x01\x08\x00\x01"
    data = encode_bmp(np.zeros((3, 5)), compression=1, palette=GRAY_PALETTE, runs=runs)
    expected = np.zeros((3, 5))
    expected[2, 0], expected[1, 3] = 9, 8
    np.testing.assert_array_equal(decode_bmp(data), expected)


def test_runs_without_an_end_are_read_if_all_pixels_are_there(encode_bmp):
    whole = encode_bmp(np.zeros((1, 4)), compression=1, palette=GRAY_PALETTE, runs=b"\x04\x07")
    np.testing.assert_array_equal(decode_bmp(whole), [[7, 7, 7, 7]])


@pytest.mark.parametrize(
    ("runs", "found"),
    [
        (b"\x03\x07", "its runs end in row 1 of 2"),
        (b"\x04\x07\x00\x00\x03", "its runs end in row 2 of 2"),
        (b"\x00\x04\x01\x02", "it ends inside of a run in row 1 of 2"),
        (b"\x00\x02\x01", "it ends inside of its runs"),
        (b"\x05\x07\x00\x01", "ends outside of the image, at column 6 of 4 in row 1"),
        (b"\x00\x00\x00\x00\x01\x01\x00\x01", "at column 2 of 4 in row 3"),
        (b"\x00\x00\x00\x00\x00\x00", "at column 1 of 4 in row 4"),
        (b"\x00\x02\x00\x09\x00\x01", "at column 1 of 4 in row 10"),
    ],
)
def test_runs_that_do_not_fit_are_refused(encode_bmp, runs, found):
    data = encode_bmp(np.zeros((2, 4)), compression=1, palette=GRAY_PALETTE, runs=runs)
    assert found in reason_of(data)


def test_runs_cut_anywhere_are_refused(encode_bmp):
    data = encode_bmp(GRAY, palette=GRAY_PALETTE, compression=1, runs=rle8(GRAY, is_absolute=True))
    for length in range(2, len(data) - 5):  # the padding and end of its last row, and its own end
        assert "truncated BMP" in reason_of(data[:length])
