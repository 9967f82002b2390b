from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from trainer.augmentation import IDENTITY, apply_transforms, random_transforms
from trainer.config import TrainerConfig

IMAGE = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
MASK = (IMAGE % 3 == 0).astype(np.uint8)
MIRROR = [-1.0, 0.0, 3.0, 0.0, 1.0, 0.0, 0.0, 0.0]
QUARTER_TURN = [0.0, -1.0, 3.0, 1.0, 0.0, 0.0, 0.0, 0.0]


def make(**settings: object) -> TrainerConfig:
    return TrainerConfig(data=Path("d"), out=Path("o"), image_size=4, depth=2, **settings)


def draw(config: TrainerConfig, *, num_slices: int = 200, seed: int = 0) -> np.ndarray:
    return random_transforms(config, num_slices=num_slices, seed=tf.constant([seed, 1])).numpy()


@pytest.mark.parametrize(
    ("transform", "move"),
    [
        (IDENTITY, lambda pixels: pixels),
        (MIRROR, lambda pixels: pixels[:, :, ::-1]),
        (QUARTER_TURN, lambda pixels: np.rot90(pixels, axes=(1, 2))),
    ],
)
def test_image_and_mask_move_together(transform, move):
    image, mask = apply_transforms(image=IMAGE, mask=MASK, transforms=tf.constant([transform]))
    np.testing.assert_allclose(image, move(IMAGE), atol=1e-4)
    assert np.array_equal(mask, move(MASK))


def test_what_comes_in_from_outside_is_air_and_background():
    to_the_right = [1.0, 0.0, -2.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    image, mask = apply_transforms(
        image=IMAGE, mask=np.ones_like(MASK), transforms=tf.constant([to_the_right])
    )
    assert image.numpy()[0, 1, :, 0].tolist() == [0, 0, 4, 5]
    assert mask.numpy()[0, 1, :, 0].tolist() == [0, 0, 1, 1]


def test_mask_stays_binary():
    transforms = draw(make(rotation_degrees=45), num_slices=1)
    _, mask = apply_transforms(image=IMAGE, mask=MASK, transforms=transforms)
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
