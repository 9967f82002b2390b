import time

import numpy as np
import pytest

from trainer.postprocessing import MAX_COMPONENTS, clean_mask

LARGE = 512


def mask_of(*rows: str) -> np.ndarray:
    """Reads a mask drawn with # for lung."""
    return np.array([[pixel == "#" for pixel in row] for row in rows], np.uint8)


def empty() -> np.ndarray:
    return np.zeros([LARGE, LARGE], np.uint8)


def test_largest_pieces_are_kept_up_to_their_number():
    mask = mask_of(
        "##...#",
        "##....",
        ".....#",
        "###...",
        "###..#",
    )
    expected = mask.copy()
    expected[:, 5] = 0
    assert clean_mask(mask, max_components=2).tolist() == expected.tolist()
    assert clean_mask(mask, max_components=5).tolist() == mask.tolist()


def test_of_equal_pieces_the_upper_stays():
    mask = mask_of("#..", "...", "..#")
    assert clean_mask(mask, max_components=1).tolist() == mask_of("#..", "...", "...").tolist()


def test_piece_below_its_share_of_the_image_is_dropped():
    mask = mask_of("##..#", ".....", "#...#", "....#")  # 2, 1, 1 and 2 of 20 pixels
    cleaned = clean_mask(mask, min_component_fraction=0.1)
    assert cleaned.tolist() == mask_of("##...", ".....", "....#", "....#").tolist()


def test_thin_slanted_recess_hangs_together():
    mask = mask_of("##....", "##....", "..#...", "...#..", "....#.", ".....#")
    assert clean_mask(mask, min_component_fraction=8 / 36).tolist() == mask.tolist()


def test_hole_is_filled_up_to_its_size():
    mask = mask_of(
        "#########",
        "#.##..###",
        "####..###",
        "#########",
    )
    one, all_filled = mask.copy(), np.ones_like(mask)
    one[1, 1] = 1
    assert clean_mask(mask, max_hole_fraction=3 / 36).tolist() == one.tolist()
    assert clean_mask(mask, max_hole_fraction=4 / 36).tolist() == all_filled.tolist()


def test_what_touches_the_edge_of_the_image_is_no_hole():
    mask = mask_of("#.##", "####", ".##.", "##.#")
    assert clean_mask(mask, max_hole_fraction=1.0).tolist() == mask.tolist()


def test_hole_is_closed_by_corners():
    mask = mask_of(".....", "..#..", ".#.#.", "..#..", ".....")
    cleaned = clean_mask(mask, max_hole_fraction=1 / 25)
    assert cleaned.tolist() == mask_of(".....", "..#..", ".###.", "..#..", ".....").tolist()


def test_speck_in_a_hole_does_not_keep_it_open():
    mask = mask_of("######", "#....#", "#.##.#", "#....#", "######")
    cleaned = clean_mask(mask, min_component_fraction=3 / 30, max_hole_fraction=12 / 30)
    assert cleaned.all()


def test_vessel_is_filled_and_the_mediastinum_between_lungs_that_touch_is_not():
    mask = empty()
    mask[100:400, 60:450] = 1
    mask[180:320, 200:310] = 0  # 15,400 pixels
    expected = mask.copy()
    mask[150:160, 100:110] = 0  # 100 pixels
    assert np.array_equal(clean_mask(mask), expected)


def test_two_lungs_and_their_recesses_stay_as_they_are():
    mask = empty()
    mask[100:300, 60:200] = 1
    mask[100:300, 300:440] = 1
    for index in range(MAX_COMPONENTS - 2):  # a line of one pixel, 0.8 mm wide
        mask[320 + 10 * index, 60:120] = 1
    assert np.array_equal(clean_mask(mask), mask)


def test_one_lung_stays_as_it_is():
    mask = empty()
    mask[100:300, 60:200] = 1
    assert np.array_equal(clean_mask(mask), mask)


def test_slice_with_specks_only_gets_empty_and_an_empty_one_stays_so():
    mask = empty()
    mask[10:15, 10:15] = 1  # 25 of 262,144 pixels, fewer than one of 10,000
    mask[300, 200] = 1
    assert not clean_mask(mask).any()
    assert not clean_mask(empty()).any()


def test_full_slice_stays_full():
    assert clean_mask(np.ones([37, 91], np.uint8)).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (37, 91)])
@pytest.mark.parametrize("value", [0, 1])
def test_masks_of_odd_sizes_are_cleaned(shape, value):
    mask = np.full(shape, value, np.uint8)
    cleaned = clean_mask(mask)
    assert cleaned.dtype == np.uint8
    assert np.array_equal(cleaned, mask)


def test_given_mask_is_not_changed():
    mask = mask_of("###", "#.#", "###")
    before = mask.copy()
    assert clean_mask(mask, max_hole_fraction=1 / 9).all()
    assert np.array_equal(mask, before)


def test_cleaning_is_quick_on_the_worst_of_masks():
    noise = np.random.default_rng(0).integers(0, 2, [LARGE, LARGE], np.uint8)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        clean_mask(noise)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.1  # measured: 0.007
