import numpy as np

from preprocessing.resizing import resize_mask, resize_slice

PIXELS = np.array([[0, 4, 10, 10], [8, 4, 10, 10], [0, 0, 255, 1], [0, 0, 1, 255]], np.uint8)


def test_slice_is_the_mean_of_the_areas():
    np.testing.assert_array_equal(resize_slice(PIXELS, size=2), [[4, 10], [0, 128]])


def test_areas_that_cut_pixels_count_them_in_part():
    # Three pixels to two: each new one is a whole one and half of the middle one.
    pixels = np.array([[0, 90, 240]] * 3, np.uint8)
    np.testing.assert_array_equal(resize_slice(pixels, size=2), [[30, 190]] * 2)


def test_enlarged_slice_has_mixed_pixels_at_the_seams():
    np.testing.assert_array_equal(
        resize_slice(np.array([[0, 90]] * 2, np.uint8), size=3)[0], [0, 45, 90]
    )


def test_constant_slice_stays_as_it_is():
    for size in (1, 7, 300):
        image = np.full((257, 131), 255, np.uint8)
        np.testing.assert_array_equal(resize_slice(image, size=size), np.full((size, size), 255))


def test_mask_keeps_its_labels():
    mask = np.zeros((5, 5), np.uint8)
    mask[1:4, 1:4] = 1
    np.testing.assert_array_equal(resize_mask(mask, size=3), [[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    assert set(np.unique(resize_mask(mask, size=64))) == {0, 1}


def test_other_shapes_become_squares():
    assert resize_slice(np.zeros((3, 8), np.uint8), size=5).shape == (5, 5)
    assert resize_mask(np.zeros((3, 8), np.uint8), size=5).shape == (5, 5)
