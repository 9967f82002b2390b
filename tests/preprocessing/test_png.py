import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from preprocessing.png import encode_png


@pytest.mark.parametrize("is_flat", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (5, 3), (64, 65)])
def test_pixels_come_back_equal_in_pillow_and_tensorflow(shape, is_flat):
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    encoded = encode_png(pixels, is_flat=is_flat)
    image = Image.open(io.BytesIO(encoded))
    assert (image.format, image.mode) == ("PNG", "L")
    np.testing.assert_array_equal(np.asarray(image), pixels)
    np.testing.assert_array_equal(tf.io.decode_png(encoded)[..., 0], pixels)


def test_every_step_between_two_neighbors_comes_back_equal():
    left, right = np.meshgrid(np.arange(256), np.arange(256))
    pixels = np.stack([left.ravel(), right.ravel()], axis=1).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode_png(pixels)))), pixels)


def test_rows_in_reverse_order_in_memory_come_back_equal():
    pixels = np.arange(12, dtype=np.uint8).reshape(4, 3)[::-1, ::-1]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode_png(pixels)))), pixels)


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 2), np.int64), np.zeros(4, np.uint8), np.zeros((0, 3), np.uint8)]
)
def test_pixels_of_another_type_or_shape_are_refused(pixels):
    with pytest.raises(ValueError, match=r"received pixels of type .*expected uint8 of shape"):
        encode_png(pixels)
