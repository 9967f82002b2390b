import io
import os

import numpy as np
import pytest
from PIL import Image

from preprocessing.images import reading
from preprocessing.images.reading import (
    MAGIC_BYTES,
    UnreadableImageError,
    decode_mask,
    decode_slice,
    is_image,
    read_labels,
    read_mask,
    read_slice,
)

GRAY = np.random.default_rng(0).integers(0, 256, (5, 7)).astype(np.uint8)


def encode(pixels, *, kind="BMP", mode=None, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode).save(buffer, kind, **options)
    return buffer.getvalue()


def reason_of(data, decode=decode_slice):
    with pytest.raises(UnreadableImageError) as caught:
        decode(data, source="images/a.bmp")
    assert caught.value.source == "images/a.bmp"
    assert str(caught.value) == f"images/a.bmp {caught.value.reason}"
    return caught.value.reason


def test_lossless_formats_give_their_pixels():
    for kind in ("BMP", "PNG", "TIFF"):
        pixels = decode_slice(encode(GRAY, kind=kind), source="a")
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, GRAY)


def test_palette_of_zero_and_one_is_a_mask(encode_bmp):
    data = encode_bmp(GRAY % 2, palette=[(0, 0, 0), (1, 1, 1)], num_colors=2)
    np.testing.assert_array_equal(decode_mask(data, source="a"), GRAY % 2)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "is empty (0 bytes)"),
        (encode(GRAY, kind="GIF"), "is a GIF"),
        (bytes(20), "holds 20 zero bytes and nothing else"),
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
    monkeypatch.setattr(reading, "MAX_FILE_BYTES", 100)
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


def test_jpeg_is_a_slice_but_no_mask():
    data = encode(np.full((8, 8), 255, np.uint8), kind="JPEG")
    np.testing.assert_array_equal(decode_slice(data, source="a"), np.full((8, 8), 255))
    reason = reason_of(data, decode_mask)
    assert "is a JPEG, which changes gray values; expected a lossless format for a mask" in reason


def test_labels_are_read_as_they_are(tmp_path):
    pixels = np.array([[0, 1, 3, 4]], np.uint8)
    (tmp_path / "a.png").write_bytes(encode(pixels, kind="PNG"))
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), pixels)
    (tmp_path / "a.jpg").write_bytes(encode(GRAY, kind="JPEG"))
    with pytest.raises(UnreadableImageError, match="is a JPEG, which changes gray values"):
        read_labels(tmp_path / "a.jpg")


@pytest.mark.parametrize("kind", ["BMP", "PNG", "TIFF", "JPEG"])
def test_an_image_is_known_by_its_first_bytes(kind):
    assert is_image(encode(GRAY, kind=kind)[:MAGIC_BYTES])


@pytest.mark.parametrize("beginning", [b"", b"BM", b"BMW 320d", b"GIF89a..", b"PK\x03\x04abcd"])
def test_other_files_are_known_not_to_be_images(beginning):
    assert not is_image(beginning)
