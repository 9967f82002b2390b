from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from trainer.augmentation import change_gray_values, draw_augmentation, move_pixels
from trainer.config import TrainerConfig

IMAGE = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
MASK = (IMAGE % 3 == 0).astype(np.uint8)
IDENTITY = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
MIRROR = [-1.0, 0.0, 3.0, 0.0, 1.0, 0.0, 0.0, 0.0]
QUARTER_TURN = [0.0, -1.0, 3.0, 1.0, 0.0, 0.0, 0.0, 0.0]


def make(**settings: object) -> TrainerConfig:
    return TrainerConfig(data=Path("d"), out=Path("o"), image_size=4, depth=2, **settings)


def draw(config: TrainerConfig, *, num_slices: int = 200, seed: int = 0) -> np.ndarray:
    return draws_of(config, num_slices=num_slices, seed=seed)["transform"].numpy()


def draws_of(config: TrainerConfig, *, num_slices: int = 200, seed: int = 0) -> dict:
    return draw_augmentation(config, num_slices=num_slices, seed=tf.constant([seed, 1]))


def draws(**values: float) -> dict[str, tf.Tensor]:
    """Gives draws for one slice: what is not named changes nothing."""
    neutral = {"gain": 1.0, "shift": 0.0, "exponent": 1.0, "blur": 0.0, "noise": 0.0}
    given = {name: tf.constant([value]) for name, value in {**neutral, **values}.items()}
    return {**given, "noise_seed": tf.constant([[1, 2]])}


@pytest.mark.parametrize(
    ("transform", "move"),
    [
        (IDENTITY, lambda pixels: pixels),
        (MIRROR, lambda pixels: pixels[:, :, ::-1]),
        (QUARTER_TURN, lambda pixels: np.rot90(pixels, axes=(1, 2))),
    ],
)
def test_image_and_mask_move_together(transform, move):
    image, mask = move_pixels(image=IMAGE, mask=MASK, transform=tf.constant([transform]))
    np.testing.assert_allclose(image, move(IMAGE), atol=1e-4)
    assert np.array_equal(mask, move(MASK))


def test_what_comes_in_from_outside_is_air_and_background():
    to_the_right = [1.0, 0.0, -2.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    image, mask = move_pixels(
        image=IMAGE, mask=np.ones_like(MASK), transform=tf.constant([to_the_right])
    )
    assert image.numpy()[0, 1, :, 0].tolist() == [0, 0, 4, 5]
    assert mask.numpy()[0, 1, :, 0].tolist() == [0, 0, 1, 1]


def test_mask_stays_binary():
    transforms = draw(make(rotation_degrees=45), num_slices=1)
    _, mask = move_pixels(image=IMAGE, mask=MASK, transform=transforms)
    assert set(np.unique(mask)) <= {0, 1}


def test_flip_is_drawn_for_about_half_of_the_slices():
    transforms = draw(make(flip="horizontal", rotation_degrees=0))
    mirrored = transforms[:, 0] < 0
    assert 0.35 < mirrored.mean() < 0.65
    np.testing.assert_allclose(transforms[mirrored][0], MIRROR, atol=1e-6)
    np.testing.assert_allclose(transforms[~mirrored][0], IDENTITY, atol=1e-6)


def test_second_flip_is_drawn_only_when_asked_for():
    assert (draw(make(flip="horizontal", rotation_degrees=0))[:, 4] == 1).all()
    both = draw(make(flip="horizontal_and_vertical", rotation_degrees=0))
    assert 0.35 < (both[:, 4] < 0).mean() < 0.65


def test_without_flip_and_rotation_nothing_moves():
    transforms = draw(make(flip="none", rotation_degrees=0))
    np.testing.assert_allclose(transforms, np.tile(IDENTITY, [200, 1]))


def test_angles_fill_the_range_to_both_sides():
    transforms = draw(make(flip="none", rotation_degrees=30), num_slices=1000)
    degrees = np.degrees(np.arctan2(-transforms[:, 1], transforms[:, 0]))
    assert degrees.min() == pytest.approx(-30, abs=0.5)
    assert degrees.max() == pytest.approx(30, abs=0.5)
    assert abs(degrees.mean()) < 2


def test_rotation_keeps_the_center_of_the_slice():
    for row in draw(make(rotation_degrees=90), num_slices=5):
        a, b, c, d, e, f = row[:6]
        assert (a * 1.5 + b * 1.5 + c, d * 1.5 + e * 1.5 + f) == pytest.approx((1.5, 1.5))


def test_same_seed_gives_same_transforms():
    assert np.array_equal(draw(make(), seed=3), draw(make(), seed=3))
    assert not np.array_equal(draw(make(), seed=3), draw(make(), seed=4))


def test_zoom_scales_each_axis_for_itself_within_its_range():
    transforms = draw(make(flip="none", rotation_degrees=0, zoom=0.25), num_slices=1000)
    x_scale, y_scale = transforms[:, 0], transforms[:, 4]
    for scale in (x_scale, y_scale):
        assert scale.min() == pytest.approx(1 / 1.25, abs=0.01)
        assert scale.max() == pytest.approx(1.25, abs=0.01)
    assert abs(np.corrcoef(x_scale, y_scale)[0, 1]) < 0.1


def test_translation_moves_by_a_share_of_the_image():
    transforms = draw(make(flip="none", rotation_degrees=0, translation=0.5), num_slices=1000)
    assert transforms[:, 2].max() == pytest.approx(2.0, abs=0.05)  # half of 4 pixels
    assert transforms[:, 5].min() == pytest.approx(-2.0, abs=0.05)


def test_settings_of_zero_change_no_gray_value():
    image = tf.cast(IMAGE, tf.float32)
    changed = change_gray_values(make(), image, draws(gain=2.0, shift=9.0, noise=9.0, blur=1.0))
    assert np.array_equal(changed, image)


def test_window_scales_about_the_middle_and_clips():
    image = tf.constant([0.0, 127.5, 137.5, 255.0], shape=[1, 4, 1, 1])
    changed = change_gray_values(make(contrast=0.5), image, draws(gain=2.0, shift=10.0))
    np.testing.assert_allclose(changed[0, :, 0, 0], [0, 137.5, 157.5, 255])


def test_gain_and_shift_are_those_of_windows_in_the_range():
    drawn = draws_of(make(contrast=0.2), num_slices=1000)
    gain, shift = drawn["gain"].numpy(), drawn["shift"].numpy()
    assert gain.min() == pytest.approx(1 / 1.2, abs=0.01)
    assert gain.max() == pytest.approx(1 / 0.8, abs=0.01)
    assert np.abs(shift / gain).max() == pytest.approx(25.5, abs=0.3)


def test_gamma_bends_the_gray_values_and_keeps_both_ends():
    image = tf.constant([0.0, 127.5, 255.0], shape=[1, 3, 1, 1])
    changed = change_gray_values(make(gamma=1.0), image, draws(exponent=2.0))
    np.testing.assert_allclose(changed[0, :, 0, 0], [0, 63.75, 255], rtol=1e-5)
    exponents = draws_of(make(gamma=1.0), num_slices=1000)["exponent"].numpy()
    assert (exponents.min(), exponents.max()) == pytest.approx((0.5, 2.0), abs=0.02)


def test_blur_takes_the_detail_of_a_checkerboard():
    board = 100.0 * (np.indices([4, 4]).sum(axis=0) % 2).reshape(1, 4, 4, 1).astype(np.float32)
    changed = change_gray_values(make(blur=1.0), tf.constant(board), draws(blur=1.0))
    np.testing.assert_allclose(changed, np.full_like(board, 50.0), atol=1e-4)
    half = change_gray_values(make(blur=1.0), tf.constant(board), draws(blur=0.5))
    np.testing.assert_allclose(half, (board + 50) / 2, atol=1e-4)


def test_blur_is_drawn_for_its_share_of_the_slices():
    drawn = draws_of(make(blur=0.25), num_slices=2000)["blur"].numpy()
    assert (drawn > 0).mean() == pytest.approx(0.25, abs=0.04)


def test_noise_has_the_deviation_that_was_drawn():
    image = tf.fill([1, 64, 64, 1], 100.0)
    changed = change_gray_values(make(noise=5.0), image, draws(noise=5.0)).numpy()
    assert changed.mean() == pytest.approx(100, abs=0.4)
    assert changed.std() == pytest.approx(5, abs=0.3)


def test_noise_of_a_slice_does_not_depend_on_its_neighbors():
    config = make(noise=5.0)
    drawn = draws_of(config, num_slices=3, seed=2)
    image = tf.fill([3, 8, 8, 1], 100.0)
    together = change_gray_values(config, image, drawn)
    alone = change_gray_values(config, image[1:2], {k: v[1:2] for k, v in drawn.items()})
    assert np.array_equal(together[1:2], alone)
