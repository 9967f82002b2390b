import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.augmentation.draws_of import config_of, draws_of, only
from trainer.augmentation.kernel import change_kernel

STRIPES = np.tile([0.0, 0.0, 0.0, 200.0, 200.0, 200.0], 4).astype(np.float32)
IMAGE = np.tile(STRIPES, [24, 1])[np.newaxis, :, :, np.newaxis]
ALL = config_of(low_resolution=2.0, blur=1.0, sharpen=1.0, noise=20.0)


def change(image=IMAGE, config=ALL, **values) -> np.ndarray:
    return change_kernel(config, tf.constant(image), only(len(image), **values)).numpy()


def test_nothing_changes_where_nothing_is_drawn():
    assert np.array_equal(change(), IMAGE)


def test_what_is_0_in_the_configuration_is_left_out():
    values = {"is_coarse": True, "coarseness": 3.0, "is_blurred": True, "blur": 1.0}
    assert np.array_equal(change(config=config_of(), **values), IMAGE)


def test_blur_moves_each_pixel_to_the_mean_of_its_neighbors():
    one = np.zeros([1, 9, 9, 1], np.float32)
    one[0, 4, 4] = 81.0
    blurred = change(one, is_blurred=True, blur=1.0)[0, :, :, 0]
    # A mean of 3 x 3 of means of 3 x 3: 1, 2, 3, 2, 1 in each axis, over 81.
    assert blurred[4, 2:7].tolist() == pytest.approx([3, 6, 9, 6, 3])
    half = change(one, is_blurred=True, blur=0.5)[0, 4, 4, 0]
    assert half == pytest.approx((81 + 9) / 2)


def test_sharpened_edges_overshoot_and_stay_gray_values():
    image = 50 + IMAGE / 2  # 50 and 150
    sharpened = change(image, is_sharpened=True, sharpen=0.5)[0, 10, :, 0]
    # The pixel beside an edge is 100 / 3 away from the mean of its neighbors.
    assert sharpened[2] == pytest.approx(50 - 100 / 3, abs=0.01)
    assert sharpened[1] == pytest.approx(50, abs=0.01)
    assert change(IMAGE, is_sharpened=True, sharpen=1.0).min() >= 0


def test_low_resolution_takes_detail_and_keeps_what_is_coarse():
    rng = np.random.default_rng(0)
    fine = (100 + 50 * rng.standard_normal([1, 64, 64, 1])).clip(0, 255).astype(np.float32)
    coarse = change(fine, is_coarse=True, coarseness=3.0)
    assert coarse.std() < fine.std() / 2
    assert coarse.mean() == pytest.approx(fine.mean(), abs=2)
    ramp = np.tile(np.arange(64, dtype=np.float32), [64, 1])[np.newaxis, :, :, np.newaxis]
    same = change(ramp, is_coarse=True, coarseness=3.0)
    np.testing.assert_allclose(same[:, 4:-4, 4:-4], ramp[:, 4:-4, 4:-4], atol=0.5)


@pytest.mark.parametrize("grain", [-1.0, -0.5, 0.0, 0.5, 1.0])
def test_noise_of_any_grain_has_the_deviation_that_was_drawn(grain):
    flat = np.full([1, 96, 96, 1], 100.0, np.float32)
    noise = change(flat, is_noisy=True, noise=5.0, grain=grain, noise_seed=[3, 4]) - 100
    assert noise[:, 1:-1, 1:-1].std() == pytest.approx(5, rel=0.08)
    assert abs(noise.mean()) < 0.7


def test_grain_makes_neighbors_alike_or_opposed():
    flat = np.full([1, 96, 96, 1], 100.0, np.float32)

    def likeness(grain: float) -> float:
        noise = change(flat, is_noisy=True, noise=5.0, grain=grain, noise_seed=[3, 4])[0, :, :, 0]
        return float(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1])

    assert likeness(1.0) > 0.5
    assert abs(likeness(0.0)) < 0.05
    assert likeness(-1.0) < -0.05


def test_noise_of_a_slice_does_not_depend_on_its_neighbors():
    drawn = draws_of(num_slices=3, noise=5.0)
    drawn["is_noisy"] = np.array([True, True, False])
    image = tf.fill([3, 8, 8, 1], 100.0)
    config = config_of(noise=5.0)
    together = change_kernel(config, image, {k: tf.constant(v) for k, v in drawn.items()})
    alone = change_kernel(config, image[1:2], {k: tf.constant(v[1:2]) for k, v in drawn.items()})
    np.testing.assert_allclose(together[1:2], alone, atol=1e-4)
    assert np.array_equal(together[2], image[2])
