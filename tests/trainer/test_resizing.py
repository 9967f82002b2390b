import numpy as np
import tensorflow as tf

from trainer.resizing import resize_image, resize_mask, restore_probability


def test_new_pixel_is_the_mean_of_those_it_covers():
    image = np.array([[0, 10, 100, 100], [20, 30, 100, 103]], np.uint8)
    image = np.vstack([image, np.full([2, 4], 7, np.uint8)])
    resized = resize_image(tf.constant(image[np.newaxis, ..., np.newaxis]), 2)
    assert resized.dtype == tf.uint8
    assert resized.numpy()[0, :, :, 0].tolist() == [[15, 101], [7, 7]]


def test_image_of_the_right_size_is_unchanged():
    image = np.random.default_rng(0).integers(0, 256, [2, 8, 8, 1]).astype(np.uint8)
    assert np.array_equal(resize_image(tf.constant(image), 8), image)


def test_resized_mask_holds_labels_only():
    mask = np.random.default_rng(0).integers(0, 2, [1, 9, 7, 1]).astype(np.uint8)
    resized = resize_mask(tf.constant(mask), 4)
    assert resized.dtype == tf.uint8
    assert set(np.unique(resized)) <= {0, 1}


def test_probability_of_the_right_size_is_unchanged():
    probability = np.random.default_rng(0).random([1, 8, 8, 1]).astype(np.float32)
    assert np.array_equal(restore_probability(probability, height=8, width=8), probability)


def test_probability_is_restored_to_the_slice_between_its_neighbors():
    probability = tf.constant([[[[0.0], [1.0]]]])  # one row of two pixels
    restored = restore_probability(probability, height=1, width=4)
    np.testing.assert_allclose(restored[0, 0, :, 0], [0, 0.25, 0.75, 1])
