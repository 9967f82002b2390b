import numpy as np
import pytest
import tensorflow as tf
from skimage import exposure

from tests.trainer.augmentation.draws_of import config_of, only
from trainer.augmentation.gray_values import change_gray_values, equalize_tiles

# Half of it 60 (air), half 220 (tissue): the scale of windows is 60 to 220.
HALVES = np.repeat([60.0, 220.0], 32).reshape(1, 8, 8, 1).astype(np.float32)
ALL = config_of(window=1.0, brightness=20.0, contrast=0.5, gamma=1.0, local_contrast=1.0, invert=1)


def change(image=HALVES, config=ALL, **values) -> np.ndarray:
    return change_gray_values(config, tf.constant(image), only(len(image), **values)).numpy()


def test_nothing_changes_where_nothing_is_drawn():
    np.testing.assert_allclose(change(), HALVES, rtol=1e-5)


@pytest.mark.parametrize(
    ("low", "high", "air", "tissue"),
    [
        (0.0, 1.0, 0, 255),  # exactly from air to tissue
        (0.5, 1.5, 0, 127.5),  # all below the middle is black
        (-1.0, 1.0, 127.5, 255),  # far below air is black
        (-0.5, 0.5, 127.5, 255),  # tissue is beyond white
    ],
)
def test_window_shows_what_lies_between_its_ends(low, high, air, tissue):
    shown = change(window_low=low, window_high=high, window_distance=1.0)
    assert shown[0, 0, 0, 0] == pytest.approx(air, abs=0.01)
    assert shown[0, 7, 7, 0] == pytest.approx(tissue, abs=0.01)


def test_window_does_not_depend_on_the_window_of_the_slice():
    values = {"window_low": -0.2, "window_high": 1.3, "window_distance": 1.0}
    darker = 20 + HALVES / 4
    np.testing.assert_allclose(change(darker, **values), change(HALVES, **values), atol=0.05)


def test_half_of_the_way_to_a_window_has_its_ends_half_way():
    shown = change(window_low=0.5, window_high=1.0, window_distance=0.5)
    # 140 and 220 are the ends of the other window; so they are 70 and 237.5.
    assert shown[0, 7, 7, 0] == pytest.approx(255 * (220 - 70) / (237.5 - 70), abs=0.01)


def test_slice_of_one_gray_value_stays_finite_in_any_window():
    flat = np.full([1, 8, 8, 1], 77.0, np.float32)
    assert np.isfinite(change(flat, window_low=0.7, window_high=1.0, window_distance=1.0)).all()


def test_brightness_shifts_and_clips():
    assert change(brightness=20.0)[0, :, 0, 0].tolist() == pytest.approx([80] * 4 + [240] * 4)
    assert change(brightness=50.0).max() == 255


def test_contrast_scales_about_the_mean():
    assert change(contrast=0.5)[0, [0, 7], 0, 0].tolist() == pytest.approx([100, 180])


def test_gamma_bends_the_gray_values_and_keeps_both_ends():
    image = tf.constant([0.0, 127.5, 255.0, 255.0], shape=[1, 2, 2, 1])
    bent = change_gray_values(config_of(gamma=1.0), image, only(exponent=2.0))
    np.testing.assert_allclose(bent[0, :, :, 0], [[0, 63.75], [255, 255]], rtol=1e-5)


def test_inversion_swaps_black_and_white():
    assert change(is_inverted=True)[0, [0, 7], 0, 0].tolist() == pytest.approx([195, 35])


def equalize(image: np.ndarray, *, clip_limit: float, locality: float) -> np.ndarray:
    return equalize_tiles(
        tf.constant(image), tf.constant([clip_limit]), tf.constant([locality])
    ).numpy()


def test_even_histogram_stays_as_it_is():
    ramp = np.tile(np.linspace(0, 255, 64, dtype=np.float32), [64, 1])[np.newaxis, :, :, np.newaxis]
    np.testing.assert_allclose(equalize(ramp, clip_limit=64.0, locality=0.0), ramp, atol=4)


def test_whole_slice_is_equalized_as_by_a_plain_histogram():
    rng = np.random.default_rng(0)
    dark = (100 * rng.random([1, 64, 64, 1]) ** 2).astype(np.float32)
    expected = 255 * exposure.equalize_hist(dark[0, :, :, 0], nbins=64)
    equalized = equalize(dark, clip_limit=64.0, locality=0.0)[0, :, :, 0]
    assert np.abs(equalized - expected).mean() < 6


def test_tiles_are_equalized_as_by_scikit_image():
    rng = np.random.default_rng(0)
    blobs = np.kron(rng.random([8, 8]), np.ones([16, 16])) * 60 + 40 * rng.random([128, 128])
    image = blobs.astype(np.float32)[np.newaxis, :, :, np.newaxis]
    ours = equalize(image, clip_limit=3.0, locality=1.0)[0, :, :, 0]
    theirs = exposure.equalize_adapthist(blobs / 255, kernel_size=16, clip_limit=3 / 64, nbins=64)
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.9


def test_limit_holds_the_contrast_of_a_flat_slice_down():
    rng = np.random.default_rng(0)
    flat = (100 + 3 * rng.standard_normal([1, 64, 64, 1])).astype(np.float32)
    weak = equalize(flat, clip_limit=1.5, locality=1.0).std()
    full = equalize(flat, clip_limit=20.0, locality=1.0).std()
    assert weak < 12 < 40 < full
