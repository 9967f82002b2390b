import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.augmentation.draws_of import only
from trainer.augmentation.geometry import (
    affine_transforms,
    bend_pixels,
    gray_value_outside,
    move_pixels,
)

IMAGE = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
MASK = (IMAGE % 3 == 0).astype(np.uint8)


def move(image=IMAGE, mask=MASK, *, outside: float = 0.0, **values):
    transform = affine_transforms(only(len(image), **values), tf.constant(mask))
    moved, moved_mask = move_pixels(
        image=image, mask=mask, transform=transform, outside=tf.fill([len(image)], outside)
    )
    return moved.numpy(), moved_mask.numpy()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, lambda pixels: pixels),
        ({"x_sign": -1.0}, lambda pixels: pixels[:, :, ::-1]),
        ({"y_sign": -1.0}, lambda pixels: pixels[:, ::-1]),
        ({"angle": np.pi / 2}, lambda pixels: np.rot90(pixels, axes=(1, 2))),
        ({"angle": np.pi}, lambda pixels: pixels[:, ::-1, ::-1]),
    ],
    ids=["nothing", "mirrored", "upended", "quarter turn", "half turn"],
)
def test_image_and_mask_move_together(values, expected):
    image, mask = move(**values)
    np.testing.assert_allclose(image, expected(IMAGE), atol=1e-4)
    assert np.array_equal(mask, expected(MASK))


def test_shift_brings_in_what_is_outside_and_no_lung():
    image, mask = move(mask=np.ones_like(MASK), outside=9.0, x_shift=-0.5)
    assert image[0, 1, :, 0].tolist() == [9, 9, 4, 5]
    assert mask[0, 1, :, 0].tolist() == [0, 0, 1, 1]


def test_magnified_slice_shows_its_middle():
    square = np.zeros([1, 8, 8, 1], np.uint8)
    square[:, 2:6, 2:6] = 1
    image, mask = move(100 * square, square, x_magnify=2.0, y_magnify=2.0)
    assert mask.all()
    np.testing.assert_allclose(image[0, 1:-1, 1:-1], 100, atol=1e-3)
    _, smaller = move(100 * square, square, x_magnify=0.5, y_magnify=0.5)
    assert smaller.sum() == 4


def test_stretch_widens_and_flattens():
    square = np.zeros([1, 16, 16, 1], np.uint8)
    square[:, 4:12, 4:12] = 1
    _, mask = move(square, square, x_magnify=1.5, y_magnify=1 / 1.5)
    assert mask.any(axis=(0, 1, 3)).sum() == 12
    assert mask.any(axis=(0, 2, 3)).sum() == pytest.approx(5, abs=1)


def test_crop_puts_the_lungs_and_a_margin_into_the_middle():
    mask = np.zeros([1, 64, 64, 1], np.uint8)
    mask[:, 8:28, 4:36] = 1  # 20 high, 32 wide, in a corner
    _, cropped = move(mask, mask, is_cropped=True, crop_margin=0.25)
    rows, columns = np.nonzero(cropped[0, :, :, 0])
    # 32 pixels and twice a quarter of them make 48, which fill 64: magnified by 4/3.
    assert columns.max() - columns.min() + 1 == pytest.approx(32 * 4 / 3, abs=1)
    assert rows.max() - rows.min() + 1 == pytest.approx(20 * 4 / 3, abs=1)
    assert (rows.mean(), columns.mean()) == pytest.approx((31.5, 31.5), abs=0.7)


def test_crop_leaves_a_slice_without_lung_as_it_is():
    image, mask = move(mask=np.zeros_like(MASK), is_cropped=True, crop_margin=0.1)
    np.testing.assert_allclose(image, IMAGE, atol=1e-4)
    assert not mask.any()


def test_crop_does_not_blow_a_speck_of_lung_up_to_the_whole_image():
    mask = np.zeros([1, 60, 60, 1], np.uint8)
    mask[:, 30:32, 30:32] = 1
    _, cropped = move(mask, mask, is_cropped=True, crop_margin=0.03)
    assert cropped.sum() == 36  # three times as long and as wide


def test_outside_is_black_or_as_the_corners():
    image = np.full([2, 4, 4, 1], 200, np.uint8)
    image[:, 0, 0], image[:, 0, 3], image[:, 3, 0], image[:, 3, 3] = 10, 20, 30, 40
    levels = gray_value_outside(tf.constant(image), only(2, black_outside=[True, False]))
    assert levels.numpy().tolist() == [0, 25]


def bend(image, mask, **values):
    drawn = only(len(image), **values)
    bent, bent_mask = bend_pixels(tf.constant(image, tf.float32), tf.constant(mask), drawn)
    return bent.numpy(), bent_mask.numpy()


def test_elastic_shift_of_all_nodes_moves_image_and_mask_together():
    ramp = np.tile(np.arange(32, dtype=np.float32), [32, 1])[np.newaxis, :, :, np.newaxis]
    mask = (ramp >= 16).astype(np.uint8)
    bent, bent_mask = bend(ramp, mask, is_elastic=True, nodes=[0.0, 0.1])
    middle = bent[0, 16, 8:20, 0] - ramp[0, 16, 8:20, 0]
    assert (
        3 < middle.min() < middle.max() < 7
    )  # a tenth of 32 pixels, times what splines make of it
    # The outline of the mask is where the ramp is half way between 15 and 16, to half a pixel.
    assert np.array_equal(bent_mask, (np.floor(bent + 0.5) >= 16).astype(np.uint8))


def test_elastic_deformation_is_smooth_and_keeps_the_mask_binary():
    rng = np.random.default_rng(0)
    ramp = np.tile(np.arange(64, dtype=np.float32), [64, 1])[np.newaxis, :, :, np.newaxis]
    mask = rng.integers(0, 2, ramp.shape).astype(np.uint8)
    nodes = 0.02 * rng.standard_normal([5, 5, 2])
    bent, bent_mask = bend(ramp, mask, is_elastic=True, nodes=nodes)
    steps = np.diff(bent[0, :, 4:-4, 0], axis=1)
    assert np.abs(bent - ramp).max() > 1
    assert (steps.min(), steps.max()) == pytest.approx((1, 1), abs=0.5)  # no fold, no tear
    assert set(np.unique(bent_mask)) == {0, 1}


def test_slice_that_is_not_chosen_is_not_bent():
    image = np.concatenate([IMAGE, IMAGE])
    mask = np.concatenate([MASK, MASK])
    bent, bent_mask = bend(image, mask, is_elastic=[True, False], nodes=0.2)
    assert not np.array_equal(bent[0], IMAGE[0])
    assert np.array_equal(bent[1], IMAGE[0])
    assert np.array_equal(bent_mask[1], MASK[0])
