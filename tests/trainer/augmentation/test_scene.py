import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.augmentation.draws_of import config_of, only
from trainer.augmentation.scene import change_scene, find_body

ALL = config_of(background_removal=1.0, couch=1.0, gantry_circle=1.0)


def body_on_a_couch(size: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Draws a bright ellipse with two dark lungs, air of 60 around it, and a thin bright line."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    image = np.full([size, size], 60.0, np.float32)
    image[(x / 0.35) ** 2 + (y / 0.25) ** 2 < 1] = 230
    lung = ((np.abs(x) - 0.16) / 0.1) ** 2 + (y / 0.15) ** 2 < 1
    image[lung] = 80
    image[round(0.82 * size) : round(0.82 * size) + 2] = 250
    return image[np.newaxis, :, :, np.newaxis], lung.astype(np.uint8)[np.newaxis, :, :, np.newaxis]


IMAGE, MASK = body_on_a_couch()


def change(config=ALL, **values) -> tuple[np.ndarray, np.ndarray]:
    image, mask = change_scene(config, tf.constant(IMAGE), tf.constant(MASK), only(**values))
    return image.numpy(), mask.numpy()


def test_nothing_changes_where_nothing_is_drawn():
    image, mask = change()
    assert np.array_equal(image, IMAGE)
    assert np.array_equal(mask, MASK)


def test_body_is_found_with_its_lungs_and_without_the_couch():
    body = find_body(tf.constant(IMAGE)).numpy()[0, :, :, 0]
    assert body[MASK[0, :, :, 0] == 1].min() == pytest.approx(1)
    assert body[64, 64] == pytest.approx(1)
    assert body[105].max() == 0  # the couch
    assert body[0].max() == 0


def test_body_is_found_in_a_dark_window_too():
    body = find_body(tf.constant(IMAGE / 8)).numpy()[0, :, :, 0]
    assert body[MASK[0, :, :, 0] == 1].min() == pytest.approx(1)
    assert body[105].max() == 0


def test_removed_background_is_black_and_the_body_is_as_before():
    image, mask = change(is_background_removed=True)
    assert image[0, 105].max() == 0  # the couch is gone
    assert image[0, 2, 2] == 0
    inside = IMAGE == 230
    np.testing.assert_allclose(image[inside], IMAGE[inside])
    np.testing.assert_allclose(image[MASK == 1], IMAGE[MASK == 1])
    assert np.array_equal(mask, MASK)


def test_lung_is_never_removed_with_the_background():
    flat = np.full_like(IMAGE, 60.0)
    image, _ = change_scene(
        ALL, tf.constant(flat), tf.constant(MASK), only(is_background_removed=True)
    )
    assert (image.numpy()[MASK == 1] == 60).all()


@pytest.mark.parametrize("curve", [-0.1, 0.0, 0.5])
def test_couch_is_drawn_below_the_body_and_not_over_it(curve):
    image, mask = change(has_couch=True, couch_curve=curve, couch_gray=200.0)
    drawn = image != IMAGE
    assert drawn.any()
    rows = np.nonzero(drawn)[1]
    assert rows.min() > 64
    assert image[drawn].max() <= 200
    assert not drawn[0, 20:90, 50:78].any()  # the body
    assert np.array_equal(mask, MASK)


def test_circle_cuts_image_and_mask():
    image, mask = change(has_circle=True, circle_radius=0.2, circle_gray=7.0)
    y, x = (np.mgrid[:128, :128] + 0.5) / 128 - 0.5
    outside = x**2 + y**2 > 0.2**2
    assert (image[0, outside] == 7).all()
    assert (mask[0, outside] == 0).all()
    assert np.array_equal(mask[0, ~outside], MASK[0, ~outside])
    assert MASK[0, outside].any()


def test_circle_may_lie_off_center():
    image, _ = change(has_circle=True, circle_radius=0.2, circle_center=[0.25, 0.0])
    assert image[0, 64, 96] != 0
    assert image[0, 64, 32] == 0
