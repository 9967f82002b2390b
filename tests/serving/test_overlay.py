import numpy as np
import pytest

from serving.overlay import FILL_COLOR, FILL_OPACITY, OUTLINE_COLOR, draw_overlay


def test_background_stays_gray_and_lung_is_filled_inside_an_outline() -> None:
    image = np.full((512, 512), 50, np.uint8)
    mask = np.zeros((512, 512), np.uint8)
    mask[100:110, 200:210] = 1
    picture = draw_overlay(image, mask)
    assert picture.shape == (512, 512, 3)
    assert picture[0, 0].tolist() == [50, 50, 50]
    assert picture[100, 205].tolist() == list(OUTLINE_COLOR)
    filled = [round(50 + FILL_OPACITY * (color - 50)) for color in FILL_COLOR]
    assert picture[105, 205].tolist() == filled
    # A rim of one pixel around 10x10 is 36 pixels.
    assert (picture == OUTLINE_COLOR).all(axis=2).sum() == 36


def test_small_slice_is_enlarged_by_a_whole_number() -> None:
    picture = draw_overlay(np.zeros((100, 120), np.uint8), np.ones((100, 120), np.uint8))
    assert picture.shape == (400, 480, 3)
    assert picture[0, 200].tolist() == list(OUTLINE_COLOR)


def test_large_slice_keeps_its_size_and_gets_a_thicker_outline() -> None:
    mask = np.zeros((1100, 1024), np.uint8)
    mask[500:520, 500:520] = 1
    picture = draw_overlay(np.zeros((1100, 1024), np.uint8), mask)
    assert picture.shape == (1100, 1024, 3)
    assert (picture == OUTLINE_COLOR).all(axis=2).sum() == 20 * 20 - 16 * 16


@pytest.mark.parametrize("value", [0, 1])
def test_empty_and_full_masks_are_drawn(value: int) -> None:
    image = np.full((600, 3), 9, np.uint8)
    picture = draw_overlay(image, np.full((600, 3), value, np.uint8))
    assert (picture == 9).all() == (value == 0)


def test_sizes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"slice is \[4, 4\] and the mask \[4, 5\]"):
        draw_overlay(np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8))
