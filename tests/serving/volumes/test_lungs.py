import numpy as np
import pytest

from serving.volumes.lungs import LEFT, RIGHT, UNDIVIDED, find_lungs

SPACING_MM = (5.0, 1.0, 1.0)
SHAPE = (12, 80, 100)


def blocks(*boxes: tuple[slice, slice, slice]) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    for box in boxes:
        mask[box] = 1
    return mask


RIGHT_BOX = (slice(2, 10), slice(20, 60), slice(10, 40))
LEFT_BOX = (slice(2, 10), slice(20, 60), slice(60, 88))
BRIDGE = (slice(5, 7), slice(22, 26), slice(40, 60))


def test_two_pieces_are_the_right_and_the_left_lung() -> None:
    lungs = find_lungs(blocks(RIGHT_BOX, LEFT_BOX), SPACING_MM, clean=True)
    assert (lungs.labels[RIGHT_BOX] == RIGHT).all()
    assert (lungs.labels[LEFT_BOX] == LEFT).all()
    # 8 x 40 x 30 and 8 x 40 x 28 voxels of 5 mm³
    assert lungs.volumes_ml == {RIGHT: pytest.approx(48.0), LEFT: pytest.approx(44.8)}


def test_lungs_that_touch_are_cut_apart_and_lose_nothing() -> None:
    mask = blocks(RIGHT_BOX, LEFT_BOX, BRIDGE)
    lungs = find_lungs(mask, SPACING_MM, clean=True)
    np.testing.assert_array_equal(lungs.labels > 0, mask > 0)
    assert (lungs.labels[RIGHT_BOX] == RIGHT).all()
    assert (lungs.labels[LEFT_BOX] == LEFT).all()
    assert set(np.unique(lungs.labels[BRIDGE])) == {RIGHT, LEFT}


def test_one_block_is_not_cut() -> None:
    whole = (slice(2, 10), slice(20, 60), slice(10, 88))
    lungs = find_lungs(blocks(whole), SPACING_MM, clean=True)
    assert set(lungs.volumes_ml) == {UNDIVIDED}
    assert lungs.volumes_ml[UNDIVIDED] == pytest.approx(8 * 40 * 78 * 5 / 1000)


def test_upper_and_lower_part_of_one_lung_are_no_two_sides() -> None:
    lower = (slice(0, 5), slice(20, 60), slice(10, 40))
    upper = (slice(7, 12), slice(20, 60), slice(12, 42))
    lungs = find_lungs(blocks(lower, upper), SPACING_MM, clean=True)
    assert set(lungs.volumes_ml) == {UNDIVIDED}


def test_third_piece_and_small_second_piece_are_no_lung() -> None:
    gas = (slice(2, 4), slice(70, 75), slice(60, 70))
    lungs = find_lungs(blocks(RIGHT_BOX, LEFT_BOX, gas), SPACING_MM, clean=True)
    assert not lungs.labels[gas].any()
    alone = find_lungs(blocks(RIGHT_BOX, gas), SPACING_MM, clean=True)
    assert not alone.labels[gas].any()
    kept = find_lungs(blocks(RIGHT_BOX, LEFT_BOX, gas), SPACING_MM, clean=False)
    assert kept.labels[gas].all()


def test_what_lung_encloses_is_filled() -> None:
    mask = blocks(RIGHT_BOX, LEFT_BOX)
    mask[4:6, 30:34, 20:24] = 0
    assert find_lungs(mask, SPACING_MM, clean=True).labels[4:6, 30:34, 20:24].all()
    assert not find_lungs(mask, SPACING_MM, clean=False).labels[4:6, 30:34, 20:24].any()


def test_no_lung_has_no_volume() -> None:
    lungs = find_lungs(np.zeros(SHAPE, np.uint8), SPACING_MM, clean=True)
    assert not lungs.labels.any()
    assert lungs.volumes_ml == {}


def test_single_voxel_and_scan_of_lung_alone_are_borne() -> None:
    one = np.zeros((1, 1, 1), np.uint8) + 1
    assert find_lungs(one, (1.0, 1.0, 1.0), clean=True).volumes_ml == {UNDIVIDED: 0.001}
    full = np.ones(SHAPE, np.uint8)
    assert set(find_lungs(full, SPACING_MM, clean=True).volumes_ml) == {UNDIVIDED}
