import numpy as np
import pytest

from trainer.evaluation.surface import surface_distances


def pixels(*places: tuple[int, int], size: int = 8) -> np.ndarray:
    mask = np.zeros([size, size], np.uint8)
    for row, column in places:
        mask[row, column] = 1
    return mask


def square(*, top: int, left: int, side: int = 3, size: int = 8) -> np.ndarray:
    mask = np.zeros([size, size], np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def measure(mask: np.ndarray, predicted_mask: np.ndarray, **settings: float) -> tuple[float, float]:
    found = surface_distances(mask=mask, predicted_mask=predicted_mask, **settings)
    return found.hausdorff_95, found.average


def test_two_pixels_are_as_far_as_a_ruler_says():
    assert measure(pixels((1, 1)), pixels((4, 5))) == (5, 5)


def test_distances_are_in_the_unit_of_the_spacing():
    assert measure(pixels((1, 1)), pixels((4, 5)), pixel_spacing=0.5) == (2.5, 2.5)


def test_hausdorff_is_the_larger_of_the_two_percentiles():
    # From the mask: 0. From the prediction: 0 and 4, whose 95th percentile is 3.8. Over all three
    # together, which is another definition, it would be 3.6.
    assert measure(pixels((0, 0)), pixels((0, 0), (0, 4))) == pytest.approx((3.8, 4 / 3))
    assert measure(pixels((0, 0), (0, 4)), pixels((0, 0))) == pytest.approx((3.8, 4 / 3))


def test_square_that_is_shifted_by_a_pixel():
    # Of the 8 pixels of an outline, 4 lie on the other one and 4 are a pixel away from it: three
    # at the side that sticks out, and the one in the middle of the other side.
    assert measure(square(top=1, left=1), square(top=1, left=2)) == (1, 0.5)


@pytest.mark.parametrize("mask", [square(top=2, left=3), np.ones([5, 7], np.uint8), pixels((0, 7))])
def test_equal_masks_have_no_distance(mask):
    assert measure(mask, mask) == (0, 0)


def test_outline_of_a_full_mask_is_the_border_of_the_slice():
    # From the border of 3x3, the middle is 1 away from 4 pixels, and the square root of 2 from 4.
    hausdorff, average = measure(np.ones([3, 3], np.uint8), pixels((1, 1), size=3))
    assert hausdorff == pytest.approx(2**0.5)
    assert average == pytest.approx((4 + 4 * 2**0.5 + 1) / 9)


def test_hole_has_an_outline_too():
    ring = square(top=1, left=1, side=5)
    with_hole = ring.copy()
    with_hole[3, 3] = 0
    # The four pixels around the hole are 2 away from the 16 of the outer outline, which they share.
    assert measure(ring, with_hole)[1] == pytest.approx((4 * 1) / (16 + 20))


def test_without_lung_in_one_of_the_masks_there_is_no_distance():
    empty = np.zeros([8, 8], np.uint8)
    for mask, predicted_mask in ((empty, empty), (empty, pixels((1, 1))), (pixels((1, 1)), empty)):
        assert surface_distances(mask=mask, predicted_mask=predicted_mask) is None


def test_masks_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match=r"have shapes \[8, 8\] and \[4, 4\]; expected equal"):
        surface_distances(mask=pixels((1, 1)), predicted_mask=pixels((1, 1), size=4))
