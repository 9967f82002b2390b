import time

import numpy as np
import pytest
from scipy import ndimage

from preprocessing.images.reading import read_mask, read_slice
from trainer.postprocessing import MAX_COMPONENTS, clean_mask
from trainer.simulated_scanners import SCANNERS, simulate

LARGE = 512


def mask_of(*rows: str) -> np.ndarray:
    """Reads a mask drawn with # for lung."""
    return np.array([[pixel == "#" for pixel in row] for row in rows], np.uint8)


def clean(mask: np.ndarray, **limits: float) -> np.ndarray:
    """Cleans a mask of a slice on which lung is dark, and all else bright."""
    return clean_mask(mask, np.where(mask > 0, 20, 200).astype(np.uint8), **limits)


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
    assert clean(mask, max_components=2).tolist() == expected.tolist()
    assert clean(mask, max_components=5).tolist() == mask.tolist()


def test_of_equal_pieces_the_upper_stays():
    mask = mask_of("#..", "...", "..#")
    assert clean(mask, max_components=1).tolist() == mask_of("#..", "...", "...").tolist()


def test_piece_below_its_share_of_the_image_is_dropped():
    mask = mask_of("##..#", ".....", "#...#", "....#")  # 2, 1, 1 and 2 of 20 pixels
    cleaned = clean(mask, min_component_fraction=0.1)
    assert cleaned.tolist() == mask_of("##...", ".....", "....#", "....#").tolist()


def test_thin_slanted_recess_hangs_together():
    mask = mask_of("##....", "##....", "..#...", "...#..", "....#.", ".....#")
    assert clean(mask, min_component_fraction=8 / 36).tolist() == mask.tolist()


def test_hole_is_filled_up_to_its_size():
    mask = mask_of(
        "#########",
        "#.##..###",
        "####..###",
        "#########",
    )
    one, all_filled = mask.copy(), np.ones_like(mask)
    one[1, 1] = 1
    assert clean(mask, max_hole_fraction=3 / 36).tolist() == one.tolist()
    assert clean(mask, max_hole_fraction=4 / 36).tolist() == all_filled.tolist()


def test_what_touches_the_edge_of_the_image_is_no_hole():
    mask = mask_of("#.##", "####", ".##.", "##.#")
    assert clean(mask, max_hole_fraction=1.0).tolist() == mask.tolist()


def test_hole_is_closed_by_corners():
    mask = mask_of(".....", "..#..", ".#.#.", "..#..", ".....")
    cleaned = clean(mask, max_hole_fraction=1 / 25)
    assert cleaned.tolist() == mask_of(".....", "..#..", ".###.", "..#..", ".....").tolist()


def test_speck_in_a_hole_does_not_keep_it_open():
    mask = mask_of("######", "#....#", "#.##.#", "#....#", "######")
    cleaned = clean(mask, min_component_fraction=3 / 30, max_hole_fraction=12 / 30)
    assert cleaned.all()


def test_vessel_is_filled_and_the_mediastinum_between_lungs_that_touch_is_not():
    mask = empty()
    mask[100:400, 60:450] = 1
    mask[180:320, 200:310] = 0  # 15,400 pixels
    expected = mask.copy()
    mask[150:160, 100:110] = 0  # 100 pixels
    assert np.array_equal(clean(mask), expected)


def test_two_lungs_and_their_recesses_stay_as_they_are():
    mask = empty()
    mask[100:300, 60:200] = 1
    mask[100:300, 300:440] = 1
    for index in range(MAX_COMPONENTS - 2):  # a line of one pixel, 0.8 mm wide
        mask[320 + 10 * index, 60:120] = 1
    assert np.array_equal(clean(mask), mask)


def test_one_lung_stays_as_it_is():
    mask = empty()
    mask[100:300, 60:200] = 1
    assert np.array_equal(clean(mask), mask)


def test_slice_with_specks_only_gets_empty_and_an_empty_one_stays_so():
    mask = empty()
    mask[10:15, 10:15] = 1  # 25 of 262,144 pixels, fewer than one of 10,000
    mask[300, 200] = 1
    assert not clean(mask).any()
    assert not clean(empty()).any()


def test_full_slice_stays_full():
    assert clean(np.ones([37, 91], np.uint8)).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (37, 91)])
@pytest.mark.parametrize("value", [0, 1])
def test_masks_of_odd_sizes_are_cleaned(shape, value):
    mask = np.full(shape, value, np.uint8)
    cleaned = clean(mask)
    assert cleaned.dtype == np.uint8
    assert np.array_equal(cleaned, mask)


def test_given_mask_is_not_changed():
    mask = mask_of("###", "#.#", "###")
    before = mask.copy()
    assert clean(mask, max_hole_fraction=1 / 9).all()
    assert np.array_equal(mask, before)


def test_cleaning_is_quick_on_the_worst_of_masks():
    noise = np.random.default_rng(0).integers(0, 2, [LARGE, LARGE], np.uint8)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        clean(noise)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.1  # measured: 0.007


def slice_with(*pieces: tuple[slice, slice], gray: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Gives a body in dark air, with an arm to its right, and a mask of what is named."""
    image = np.full([LARGE, LARGE], 20, np.uint8)
    image[150:400, 60:300] = 200
    image[150:400, 360:420] = 200
    mask = empty()
    for piece in pieces:
        image[piece] = gray
        mask[piece] = 1
    return mask, image


LUNG = (slice(200, 350), slice(90, 160))
BESIDE = (slice(200, 256), slice(302, 358))
"""Air between body and arm: tissue on two of its four sides."""


def test_air_beside_the_body_is_no_lung():
    mask, image = slice_with(LUNG, BESIDE)
    expected = mask.copy()
    expected[BESIDE] = 0
    assert np.array_equal(clean_mask(mask, image), expected)
    assert np.array_equal(clean_mask(mask, image, min_space_fraction=0), mask)


def test_air_that_opens_to_one_side_only_is_no_lung():
    mask, image = slice_with(LUNG, BESIDE)
    expected = mask.copy()
    expected[BESIDE] = 0
    image[257:400, 300:360] = 200  # an armpit: tissue on three of four sides
    assert np.array_equal(clean_mask(mask, image), expected)


def test_part_of_a_lung_stays():
    mask, image = slice_with(LUNG)
    mask[220:] = 0  # 20 of 150 rows: what a poor model finds
    assert np.array_equal(clean_mask(mask, image), mask)


def test_gas_that_is_enclosed_stays():
    gas = slice(200, 260), slice(200, 260)
    mask, image = slice_with(LUNG, gas)
    assert np.array_equal(clean_mask(mask, image), mask)


def test_lung_that_the_image_cuts_off_stays():
    mask, image = slice_with(LUNG)
    for shift in (100, 150):
        cut_mask, cut_image = mask[:, shift:].copy(), image[:, shift:]
        assert np.array_equal(clean_mask(cut_mask, cut_image), cut_mask)
        cut_mask[:, :4] = 0  # not found up to the edge
        assert np.array_equal(clean_mask(cut_mask, cut_image), cut_mask)


def test_lung_that_is_dense_as_a_whole_stays():
    mask, image = slice_with(LUNG, gray=200)
    assert np.array_equal(clean_mask(mask, image), mask)


def test_lungs_that_are_half_dense_stay():
    mask, image = slice_with(LUNG)
    image[270:350, 90:160] = 190
    assert np.array_equal(clean_mask(mask, image), mask)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_air_is_known_at_any_number_of_pixels(scale):
    mask, image = slice_with(LUNG, BESIDE)
    cleaned = clean_mask(mask[::scale, ::scale], image[::scale, ::scale])
    assert cleaned[250 // scale, 120 // scale]
    assert not cleaned[:, 300 // scale :].any()


def test_slice_that_shows_nothing_shows_no_lung():
    mask, _ = slice_with(LUNG)
    assert not clean_mask(mask, np.full_like(mask, 90)).any()


@pytest.mark.parametrize("scanner", ["", *SCANNERS])
def test_real_lung_is_closed_off_from_the_air_on_every_scanner(lctsc, scanner):
    num_pieces = 0
    for path in sorted((lctsc / "images").glob("*.bmp"))[::10]:
        image = read_slice(path)
        mask = read_mask(lctsc / "masks" / path.name)
        if scanner and mask.any():
            image, mask = simulate(scanner, image=image, mask=mask, slice_id=path.stem)
        cleaned = clean_mask(mask, image)
        assert np.array_equal(cleaned, clean_mask(mask, image, min_space_fraction=0)), path.stem
        num_pieces += ndimage.label(cleaned)[1]
    assert num_pieces > 20
