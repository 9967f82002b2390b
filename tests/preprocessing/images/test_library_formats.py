import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from preprocessing.images.checks import RefusedError
from preprocessing.images.library_formats import decode_jpeg, decode_png, decode_tiff

GRAY = np.random.default_rng(0).integers(0, 256, (5, 7)).astype(np.uint8)
SMOOTH = np.add.outer(np.arange(40), np.arange(48)).astype(np.uint8)


def encode(pixels, kind, *, mode=None, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels, mode)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def lossless_tiff(data):
    return decode_tiff(data, must_be_lossless=True)


LOSSLESS = pytest.mark.parametrize(
    ("decode", "kind"), [(decode_png, "PNG"), (lossless_tiff, "TIFF")]
)


def reason_of(decode, data):
    with pytest.raises(RefusedError) as caught:
        decode(data)
    return str(caught.value)


@LOSSLESS
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_grays_are_read_whatever_holds_them(decode, kind, mode):
    image = Image.fromarray(GRAY).convert(mode)
    gray_values = decode(encode(image, kind))
    assert gray_values.dtype == np.uint8
    np.testing.assert_array_equal(gray_values, np.asarray(image.convert("L")))


@LOSSLESS
def test_inverted_palette_gives_the_gray_values_that_a_viewer_shows(decode, kind):
    image = Image.fromarray(GRAY)
    image.putpalette([value for gray in range(255, -1, -1) for value in (gray,) * 3])
    np.testing.assert_array_equal(decode(encode(image, kind)), 255 - GRAY)


@pytest.mark.parametrize("compression", [None, "packbits", "tiff_lzw", "tiff_deflate"])
def test_lossless_compressions_of_tiff_are_read(compression):
    np.testing.assert_array_equal(
        lossless_tiff(encode(GRAY, "TIFF", compression=compression)), GRAY
    )


def test_tiff_in_which_white_is_zero_is_read_as_shown():
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 0
    data = encode(GRAY, "TIFF", tiffinfo=tags)
    np.testing.assert_array_equal(lossless_tiff(data), np.asarray(Image.open(io.BytesIO(data))))


def test_bigtiff_is_read():
    np.testing.assert_array_equal(lossless_tiff(encode(GRAY, "TIFF", big_tiff=True)), GRAY)


def test_jpeg_is_read_close_to_what_was_written():
    for pixels in (SMOOTH, np.repeat(SMOOTH[..., None], 3, axis=2)):
        gray_values = decode_jpeg(encode(pixels, "JPEG", quality=95))
        assert np.abs(gray_values.astype(int) - SMOOTH).max() <= 6


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_orientation_is_applied(kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # the first column of the file is the last row turned up
    data = encode(SMOOTH, kind, exif=exif)
    gray_values = decode_jpeg(data) if kind == "JPEG" else lossless_tiff(data)
    assert gray_values.shape == (48, 40)
    assert np.abs(gray_values.astype(int) - np.rot90(SMOOTH, -1)).max() <= 8


def test_lossy_tiff_is_a_slice_but_no_mask():
    data = encode(SMOOTH, "TIFF", compression="jpeg", quality=95)
    assert np.abs(decode_tiff(data, must_be_lossless=False).astype(int) - SMOOTH).max() <= 6
    assert "is a TIFF with jpeg compression, which changes gray values" in reason_of(
        lossless_tiff, data
    )


@LOSSLESS
def test_color_is_refused_with_an_example(decode, kind):
    pixels = np.repeat(GRAY[..., None], 3, axis=2)
    pixels[0, 0] = (10, 20, 30)
    assert "is in color (for example [10, 20, 30] of 255)" in reason_of(
        decode, encode(pixels, kind)
    )


def test_color_jpeg_is_refused():
    pixels = np.zeros((40, 48, 3), np.uint8)
    pixels[:20, :, 0] = 200
    assert "is in color" in reason_of(decode_jpeg, encode(pixels, "JPEG"))
    for_print = Image.fromarray(pixels).convert("CMYK")
    assert "is a JPEG of colors for print (CMYK)" in reason_of(
        decode_jpeg, encode(for_print, "JPEG")
    )


@LOSSLESS
def test_partly_transparent_is_refused(decode, kind):
    pixels = np.repeat(GRAY[..., None], 4, axis=2)
    assert f"is a {kind} that is transparent in parts" in reason_of(decode, encode(pixels, kind))


@LOSSLESS
def test_sixteen_bits_are_refused(decode, kind):
    data = encode(np.full((4, 4), 40000, np.uint16), kind)
    assert f"is a {kind} of 16 bits a channel; expected 8" in reason_of(decode, data)


@pytest.mark.parametrize(
    ("mode", "found"), [("F", "32 bits a channel"), ("I", "32 bits a channel")]
)
def test_tiff_of_wide_numbers_is_refused(mode, found):
    image = Image.fromarray(GRAY).convert(mode)
    assert found in reason_of(lossless_tiff, encode(image, "TIFF"))


def test_tiff_of_signed_numbers_is_refused():
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[TiffImagePlugin.SAMPLEFORMAT] = 2
    data = encode(GRAY, "TIFF", tiffinfo=tags)
    assert "is a TIFF of signed or fractional numbers" in reason_of(lossless_tiff, data)


@LOSSLESS
def test_several_images_in_a_file_are_refused(decode, kind):
    others = [Image.fromarray(255 - GRAY), Image.fromarray(GRAY // 2)]
    data = encode(GRAY, kind, save_all=True, append_images=others)
    assert f"is a {kind} of 3 images; expected one slice in a file" in reason_of(decode, data)


@pytest.mark.parametrize(
    ("decode", "kind", "num_spare"),
    [
        (decode_png, "PNG", 0),
        (lossless_tiff, "TIFF", 0),
        (decode_jpeg, "JPEG", 2),  # its end marker
    ],
)
def test_a_file_cut_anywhere_is_refused(decode, kind, num_spare):
    data = encode(GRAY, kind)
    for length in range(4, len(data) - num_spare):
        assert f"truncated {kind}" in reason_of(decode, data[:length]), length


def test_every_flipped_bit_of_a_png_is_refused():
    data = encode(GRAY, "PNG")
    for at in range(8, len(data)):
        for bit in range(8):
            damaged = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            assert reason_of(decode_png, damaged)
    damaged = data[:45] + bytes([data[45] ^ 1]) + data[46:]
    assert "is a damaged PNG: a checksum does not match after byte 33" in reason_of(
        decode_png, damaged
    )


def test_png_with_right_checksums_of_wrong_pixels_is_refused():
    data = encode(GRAY, "PNG")
    length = int.from_bytes(data[33:37])
    chunk = b"IDAT" + bytes(length)
    damaged = data[:37] + chunk + zlib.crc32(chunk).to_bytes(4) + data[37 + 4 + length + 4 :]
    assert "is a damaged or truncated PNG" in reason_of(decode_png, damaged)


def rewrite_png(data, **chunks):
    """Gives a PNG with other chunks of some names, or without them, and right checksums."""
    position, parts = 8, [data[:8]]
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        content = chunks.get(kind.decode(), data[position + 8 : position + 8 + length])
        if content is not None:
            crc = zlib.crc32(kind + content).to_bytes(4)
            parts.append(len(content).to_bytes(4) + kind + content + crc)
        position += 12 + length
    return b"".join(parts)


def test_png_whose_last_rows_are_missing_is_refused():
    rows = b"".join(b"\0" + row.tobytes() for row in GRAY[:-1])
    data = rewrite_png(encode(GRAY, "PNG"), IDAT=zlib.compress(rows))
    assert "its pixels take 32 bytes unpacked; expected 40" in reason_of(decode_png, data)


def test_interlaced_png_is_read_whole_or_not_at_all():
    # The passes of 3x3 pixels, those without pixels left out; each row begins with its filter.
    rows = b"".join(b"\0" + bytes(pixels) for pixels in ([0], [2], [6, 8], [1], [7], [3, 4, 5]))
    header = struct.pack(">IIBBBBB", 3, 3, 8, 0, 0, 0, 1)
    whole = rewrite_png(encode(GRAY, "PNG"), IHDR=header, IDAT=zlib.compress(rows))
    np.testing.assert_array_equal(decode_png(whole), np.arange(9).reshape(3, 3))
    short = rewrite_png(encode(GRAY, "PNG"), IHDR=header, IDAT=zlib.compress(rows[:-1]))
    assert "its pixels take 14 bytes unpacked; expected 15" in reason_of(decode_png, short)


@pytest.mark.parametrize(("palette", "num_colors"), [(None, 0), (bytes(6), 2)])
def test_png_with_colors_that_its_palette_does_not_have_is_refused(palette, num_colors):
    image = Image.fromarray(np.array([[0, 7]], np.uint8))
    image.putpalette([value for gray in range(8) for value in (gray,) * 3])
    data = rewrite_png(encode(image, "PNG", bits=8), PLTE=palette)
    assert f"uses color 7 of its palette, which has {num_colors} colors" in reason_of(
        decode_png, data
    )


def test_tiff_with_a_palette_of_8_bit_colors_is_refused():
    image = Image.fromarray(GRAY % 4)
    image.putpalette([value for gray in range(256) for value in (gray,) * 3])
    data = bytearray(encode(image, "TIFF"))
    (offset,) = struct.unpack_from("<I", data, data.index(struct.pack("<HHI", 320, 3, 768)) + 8)
    struct.pack_into("<768H", data, offset, *(list(range(256)) * 3))
    assert "is a TIFF whose palette goes to 255; expected" in reason_of(lossless_tiff, bytes(data))


def test_png_without_pixels_is_refused():
    data = encode(GRAY, "PNG")
    length = int.from_bytes(data[33:37])
    assert "is a damaged or truncated PNG" in reason_of(
        decode_png, data[:33] + data[33 + 12 + length :]
    )


@LOSSLESS
def test_huge_size_is_refused_before_pixels_are_decoded(decode, kind):
    data = bytearray(encode(GRAY, kind))
    if kind == "PNG":
        struct.pack_into(">II", data, 16, 60000, 60000)
    else:
        (offset,) = struct.unpack_from("<I", data, 4)
        for entry in range(offset + 2, offset + 2 + 12 * 2, 12):  # width and height come first
            struct.pack_into("<HII", data, entry + 2, 4, 1, 60000)
    assert "says that it is 60000 x 60000 px; expected at most" in reason_of(decode, bytes(data))


def test_huge_jpeg_is_refused_before_pixels_are_decoded():
    data = encode(GRAY, "JPEG")
    at = data.index(b"\xff\xc0") + 5
    data = data[:at] + struct.pack(">HH", 60000, 60000) + data[at + 4 :]
    assert "says that it is 60000 x 60000 px" in reason_of(decode_jpeg, data)
