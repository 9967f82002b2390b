import numpy as np
import pytest
import tensorflow as tf

from trainer.resizing import resize_image, resize_mask, restore_probability

SIZES = [(512, 512), (300, 500), (500, 300), (64, 64), (37, 91), (91, 37)]


def batch_of(rows: object) -> tf.Tensor:
    return tf.constant(np.array(rows, np.uint8)[np.newaxis, ..., np.newaxis])


def plane(batch: tf.Tensor) -> list:
    return batch.numpy()[0, :, :, 0].tolist()


def ellipse(height: int, width: int) -> np.ndarray:
    """A shape off the center of a slice."""
    y, x = np.mgrid[:height, :width]
    return np.hypot((y + 0.5) / height - 0.4, ((x + 0.5) / width - 0.62) * 1.3) < 0.25


def there_and_back(resized: tf.Tensor, shape: np.ndarray) -> np.ndarray:
    """Gives what the model would answer if it knew the mask that it is shown."""
    height, width = shape.shape
    probability = tf.cast(resized, tf.float32)
    return restore_probability(probability, height=height, width=width)[0, :, :, 0].numpy() >= 0.5


def center(inside: np.ndarray) -> np.ndarray:
    return np.argwhere(inside).mean(axis=0)


def test_new_pixel_is_the_mean_of_those_it_covers():
    image = batch_of([[0, 10, 100, 100], [20, 30, 100, 103], [7, 7, 7, 7], [7, 7, 7, 7]])
    resized = resize_image(image, 2)
    assert resized.dtype == tf.uint8
    assert plane(resized) == [[15, 101], [7, 7]]


def test_half_of_512_pixels_is_the_mean_of_two_by_two():
    image = np.random.default_rng(0).integers(0, 256, [1, 512, 512, 1]).astype(np.uint8)
    mean = image.reshape(1, 256, 2, 256, 2, 1).mean(axis=(2, 4))
    assert np.array_equal(resize_image(image, 256), np.round(mean).astype(np.uint8))


def test_image_of_the_right_size_is_unchanged():
    image = np.random.default_rng(0).integers(0, 256, [2, 8, 8, 1]).astype(np.uint8)
    assert np.array_equal(resize_image(tf.constant(image), 8), image)


def test_enlarged_pixel_lies_between_its_neighbors():
    enlarged = resize_image(batch_of([[0, 100], [0, 100]]), 4)
    assert plane(enlarged) == [[0, 25, 75, 100]] * 4


def test_wide_slice_keeps_its_proportions_between_black_bars():
    resized = resize_image(batch_of(np.full([2, 4], 9)), 8)
    assert plane(resized) == [[0] * 8] * 2 + [[9] * 8] * 4 + [[0] * 8] * 2


def test_high_slice_keeps_its_proportions_between_black_bars():
    resized = resize_image(batch_of(np.full([4, 2], 9)), 4)
    assert plane(resized) == [[0, 9, 9, 0]] * 4


def test_odd_row_of_padding_goes_below():
    assert plane(resize_image(batch_of(np.full([3, 4], 9)), 4)) == [[9] * 4] * 3 + [[0] * 4]


def test_slice_as_thin_as_a_thread_keeps_a_row():
    image = np.full([1, 1, 2000, 1], 9, np.uint8)
    resized = resize_image(image, 4)
    assert plane(resized) == [[0] * 4, [9] * 4, [0] * 4, [0] * 4]
    probability = tf.cast(resized, tf.float32) / 9
    assert np.all(restore_probability(probability, height=1, width=2000) == 1)


def test_new_pixel_of_a_mask_is_lung_where_lung_covers_most_of_it():
    mask = batch_of([[1, 1, 0, 0], [1, 0, 0, 1], [0, 0, 1, 1], [0, 0, 1, 1]])
    assert plane(resize_mask(mask, 2)) == [[1, 0], [0, 1]]


def test_half_a_pixel_of_lung_is_lung_on_the_black_fields_of_a_chessboard():
    mask = np.zeros([8, 8], np.uint8)
    mask[1:] = 1  # the first row of new pixels is half lung
    assert plane(resize_mask(batch_of(mask), 4)) == [[1, 0, 1, 0]] + [[1] * 4] * 3


def test_resized_mask_holds_labels_only():
    mask = np.random.default_rng(0).integers(0, 2, [1, 9, 7, 1]).astype(np.uint8)
    for size in (4, 32):
        resized = resize_mask(tf.constant(mask), size)
        assert resized.dtype == tf.uint8
        assert resized.shape == (1, size, size, 1)
        assert set(np.unique(resized)) == {0, 1}


def test_probability_of_the_right_size_is_unchanged():
    probability = np.random.default_rng(0).random([1, 8, 8, 1]).astype(np.float32)
    assert np.array_equal(restore_probability(probability, height=8, width=8), probability)


def test_probability_is_restored_to_the_slice_between_its_neighbors():
    probability = tf.constant([[[[0.0], [1.0]], [[0.0], [1.0]]]])
    restored = restore_probability(probability, height=4, width=4)
    np.testing.assert_allclose(restored[0, :, :, 0], [[0, 0.25, 0.75, 1]] * 4)


def test_what_the_model_says_of_the_padding_is_dropped():
    probability = np.ones([1, 4, 4, 1], np.float32)
    probability[:, 1:3] = 0.25
    assert np.all(restore_probability(probability, height=6, width=12) == 0.25)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("size", [128, 256])
def test_shape_comes_back_at_its_place(height, width, size):
    shape = ellipse(height, width)
    image = tf.constant(shape[np.newaxis, ..., np.newaxis].astype(np.uint8) * 255)
    back = there_and_back(resize_image(image, size) / 255, shape)
    np.testing.assert_allclose(center(back), center(shape), atol=0.05)
    assert np.count_nonzero(back) == pytest.approx(np.count_nonzero(shape), rel=0.002)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("size", [128, 256])
def test_mask_comes_back_at_its_place(height, width, size):
    shape = ellipse(height, width)
    mask = tf.constant(shape[np.newaxis, ..., np.newaxis].astype(np.uint8))
    back = there_and_back(resize_mask(mask, size), shape)
    # Labels are whole pixels of the model, so an outline is known to a part of one only.
    pixel = max(1, max(height, width) / size)
    np.testing.assert_allclose(center(back), center(shape), atol=0.15 * pixel)
    assert np.count_nonzero(back) == pytest.approx(np.count_nonzero(shape), rel=0.005)


def test_mask_of_512_pixels_is_not_shifted_by_half_a_pixel():
    shape = ellipse(512, 512)
    mask = tf.constant(shape[np.newaxis, ..., np.newaxis].astype(np.uint8))
    back = there_and_back(resize_mask(mask, 256), shape)
    np.testing.assert_allclose(center(back), center(shape), atol=0.1)


@pytest.mark.parametrize("value", [0, 1])
def test_single_pixel_goes_there_and_back(value):
    for resize in (resize_image, resize_mask):
        resized = resize(batch_of([[value]]), 16)
        assert plane(resized) == [[value] * 16] * 16
        probability = tf.cast(resized, tf.float32)
        assert plane(restore_probability(probability, height=1, width=1)) == [[value]]


def test_slices_of_a_batch_do_not_touch():
    first, second = np.zeros([2, 5, 9, 1], np.uint8)
    second += 200
    together = resize_image(np.stack([first, second]), 8)
    assert np.array_equal(together[:1], resize_image(first[np.newaxis], 8))
    assert np.array_equal(together[1:], resize_image(second[np.newaxis], 8))
