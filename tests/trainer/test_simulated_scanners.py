import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from trainer.simulated_scanners import SCANNERS, simulate

AIR, TISSUE, LUNG = 60, 220, 90
SIZE = 64
BODY = slice(20, 44), slice(12, 52)
"""Rows and columns of a body of 24x40 pixels, in the middle of a slice of 64x64."""

LEFT, RIGHT = (slice(26, 38), slice(16, 28)), (slice(26, 38), slice(36, 48))


def make_slice() -> tuple[np.ndarray, np.ndarray]:
    """A rectangle of tissue with two square lungs, 4 pixels from its left and right edge."""
    image = np.full([SIZE, SIZE], AIR, np.uint8)
    mask = np.zeros([SIZE, SIZE], np.uint8)
    image[BODY] = TISSUE
    for lung in (LEFT, RIGHT):
        image[lung], mask[lung] = LUNG, 1
    return image, mask


def show(scanner: str, image=None, mask=None, *, slice_id: str = "P1_z1"):
    drawn_image, drawn_mask = make_slice()
    return simulate(
        scanner,
        image=drawn_image if image is None else image,
        mask=drawn_mask if mask is None else mask,
        slice_id=slice_id,
    )


def boxes(mask: np.ndarray) -> list[tuple[slice, slice]]:
    return ndimage.find_objects(ndimage.label(mask)[0])


@pytest.mark.parametrize("scanner", SCANNERS)
@pytest.mark.parametrize("shape", [(8, 8), (9, 31), (64, 64), (70, 48)])
@pytest.mark.parametrize("kind", ["noise", "black", "white", "body"])
def test_any_slice_stays_a_slice_with_a_mask_of_its_size(scanner, shape, kind):
    rng = np.random.default_rng(1)
    image = {
        "noise": rng.integers(0, 256, shape),
        "black": np.zeros(shape),
        "white": np.full(shape, 255),
        "body": np.resize(make_slice()[0], shape),
    }[kind].astype(np.uint8)
    mask = (rng.random(shape) < 0.5).astype(np.uint8)
    before = image.copy(), mask.copy()
    for given in (mask, np.zeros_like(mask)):
        pixels, lung = show(scanner, image, given)
        assert pixels.shape == lung.shape == shape
        assert pixels.dtype == lung.dtype == np.uint8
        assert set(np.unique(lung)) <= {0, 1}
        assert given.any() or not lung.any()
        pixels[:], lung[:] = 7, 1  # what was given is not among what comes back
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])


@pytest.mark.parametrize("scanner", SCANNERS)
def test_same_slice_is_always_drawn_alike(scanner):
    first, again = show(scanner), show(scanner)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])


@pytest.mark.parametrize("scanner", ["strong_noise", "wide_field_of_view", "gantry_circle"])
def test_another_slice_is_drawn_otherwise(scanner):
    assert (show(scanner)[0] != show(scanner, slice_id="P1_z2")[0]).any()


def test_draws_do_not_depend_on_the_process():
    code = (
        "import numpy as np; from trainer.simulated_scanners import simulate; "
        "a = np.arange(256, dtype=np.uint8).reshape(16, 16); "
        "print(simulate('strong_noise', image=a, mask=a * 0, slice_id='P1')[0].sum())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=True,
            text=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


def test_body_that_is_cut_out_fills_the_slice():
    image, mask = show("crop_to_body")
    assert (image[[0, 0, -1, -1], [0, -1, 0, -1]] == TISSUE).all()
    # 24x40 pixels become 64x64: lungs of 12x12, 6 rows and 4 columns from its edges.
    rows, columns = 64 / 24, 64 / 40
    left, right = sorted(boxes(mask), key=lambda box: box[1].start)
    for box, first_column in ((left, 4), (right, 24)):
        assert box[0].start == pytest.approx(6 * rows, abs=1)
        assert box[0].stop == pytest.approx(18 * rows, abs=1)
        assert box[1].start == pytest.approx(first_column * columns, abs=1)
        assert box[1].stop == pytest.approx((first_column + 12) * columns, abs=1)
    assert abs(image[mask > 0].mean() - LUNG) < 8


def test_small_field_of_view_cuts_the_skin_off_at_both_sides():
    image, mask = show("small_field_of_view")
    assert (image[32] >= LUNG).all()  # no air at its sides
    # At least 32 columns fill 64, so the 8 between the lungs become at most 16.
    left, right = sorted(boxes(mask), key=lambda box: box[1].start)
    assert 8 * 64 / 36 - 1 <= right[1].start - left[1].stop <= 16 + 1
    assert image[0, 0] == AIR  # a square, so there is air above this body


def test_wide_field_of_view_shrinks_the_slice_into_air():
    image, mask = show("wide_field_of_view")
    # 50 to 60 % in each axis: 25 to 36 % of 288 pixels of lung.
    assert 0.22 * 288 < mask.sum() < 0.40 * 288
    assert (image[[0, 0, -1, -1], [0, -1, 0, -1]] == AIR).all()
    assert abs(float(image[mask > 0].mean()) - LUNG) < 20


def test_flipped_slice_is_upside_down():
    given_image, given_mask = make_slice()
    given_image[0, 3] = 255
    image, mask = show("vertical_flip", given_image, given_mask)
    assert image[63, 3] == 255
    np.testing.assert_array_equal(mask, given_mask[::-1])


def test_slice_is_turned_by_a_quarter_to_either_side():
    given_image, given_mask = make_slice()
    given_image[0, 3] = 255
    seen = set()
    for number in range(8):
        image, mask = show("rotated_90", given_image, given_mask, slice_id=str(number))
        place = np.argwhere(image == 255)
        seen.add(tuple(place[0].tolist()))
        np.testing.assert_array_equal(mask, given_mask.T)  # it is symmetric, but for its sides
    # The pixel in the first row and the fourth column.
    assert seen == {(60, 0), (3, 63)}


def test_turned_slice_keeps_its_shape():
    image = np.zeros([8, 16], np.uint8)
    mask = image.copy()
    mask[:, :8] = 1
    pixels, lung = show("rotated_90", image, mask)
    assert lung.shape == (8, 16)
    assert lung[:4].all() or lung[4:].all()
    assert lung.sum() == 64
    assert not pixels.any()


@pytest.mark.parametrize(
    ("scanner", "expected"),
    [
        # Gray values 0, 51, 204 and 255 are -1350, -1050, -150 and 150 HU.
        ("soft_tissue_window", [0, 0, 6, 198]),
        ("narrow_window", [0, 0, 255, 255]),
        ("wide_window", [0, 0, 74, 99]),
        ("dark_gamma", [0, 10, 160, 255]),
        ("bright_gamma", [0, 120, 230, 255]),
    ],
)
def test_gray_values_change_and_the_mask_does_not(scanner, expected):
    image = np.repeat(np.array([0, 51, 204, 255], np.uint8), 16).reshape(8, 8)
    mask = np.eye(8, dtype=np.uint8)
    pixels, lung = show(scanner, image, mask)
    tolerance = 25 if "gamma" in scanner else 0  # its exponent is drawn
    assert pixels.ravel()[::16].tolist() == pytest.approx(expected, abs=tolerance)
    np.testing.assert_array_equal(lung, mask)


@pytest.mark.parametrize(
    ("scanner", "low", "high"), [("dark_gamma", 1.8, 2.4), ("bright_gamma", 0.4, 0.55)]
)
def test_exponent_is_in_its_range(scanner, low, high):
    image = np.full([8, 8], 128, np.uint8)
    (value,) = np.unique(show(scanner, image, image * 0)[0])
    assert 128 / 255 == pytest.approx((value / 255) ** (1 / low), abs=0.1)
    assert low - 0.02 <= np.log(value / 255) / np.log(128 / 255) <= high + 0.02


def test_contrast_of_a_neighborhood_is_raised():
    image, mask = make_slice()
    image[30:34, 20:24] = LUNG + 4  # a faint vessel
    pixels, lung = show("clahe", image, mask)
    rise = int(pixels[32, 22]) - int(pixels[32, 17])
    assert rise > 4
    np.testing.assert_array_equal(lung, mask)


def test_low_resolution_keeps_means_and_loses_lines():
    image = np.zeros([64, 64], np.uint8)
    image[:, 32] = 255
    pixels, _ = show("low_resolution", image, image * 0)
    # A line of one pixel is spread over some: at most as bright as a fifth of a pixel.
    assert 10 < pixels.max() < 255 / 4
    assert pixels.mean() == pytest.approx(image.mean(), rel=0.35)


def test_noise_has_the_strength_that_is_said():
    image = np.full([128, 128], 128, np.uint8)
    pixels, _ = show("strong_noise", image, image * 0)
    # 130 to 200 HU, and 255 gray values are 1500 HU.
    assert 130 * 255 / 1500 - 2 < pixels.std() < 200 * 255 / 1500 + 2
    assert pixels.mean() == pytest.approx(128, abs=2)


def test_sharp_kernel_overshoots_at_edges():
    image = np.full([512, 64], 80, np.uint8)
    image[:, 32:] = 180
    pixels, _ = show("sharp_kernel", image, image * 0)
    columns = pixels.mean(axis=0)
    assert columns[31] < 80 - 15
    assert columns[32] > 180 + 15
    assert columns[5] == pytest.approx(80, abs=3)


def test_circle_blackens_the_corners_and_their_lung():
    image, mask = np.full([64, 64], 200, np.uint8), np.ones([64, 64], np.uint8)
    pixels, lung = show("gantry_circle", image, mask)
    np.testing.assert_array_equal(pixels, lung * np.uint8(200))
    assert not lung[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    # A radius of 88 to 98 % of half the size: its area in pixels, within a rim of one.
    assert np.pi * (0.88 * 32 - 1) ** 2 < lung.sum() < np.pi * (0.98 * 32 + 1) ** 2


def test_black_background_leaves_the_body_alone():
    image, mask = make_slice()
    image[56:58, 4:60] = 230  # a couch
    pixels, lung = show("black_background", image, mask)
    np.testing.assert_array_equal(lung, mask)
    np.testing.assert_array_equal(pixels[BODY], image[BODY])
    near = np.zeros([64, 64], bool)
    near[19:45, 11:53] = True  # a margin of one pixel
    assert not pixels[~near].any()


def test_couch_is_a_bright_shell_around_dark_foam_below_the_body():
    image, mask = show("hollow_couch")
    bottom = max(box[0].stop for box in boxes(image == TISSUE))
    below = image[bottom:]
    foam, shell = (below > 65) & (below < 90), below > 205
    assert foam.sum() > 60
    assert shell.sum() > 60
    # The shell is all around it.
    assert not (ndimage.binary_dilation(foam) & (below == AIR)).any()
    assert not mask[bottom:].any()


def test_combination_has_all_of_its_parts():
    image, mask = make_slice()
    pixels, lung = show("old_scanner", image, mask)
    assert not pixels[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert len(np.unique(pixels)) > 20  # noise
    np.testing.assert_array_equal(lung, mask)
    pixels, lung = show("journal_figure", image, mask)
    assert lung.sum() > 2 * mask.sum()  # cut out
    assert pixels[0, 0] > 200
    pixels, lung = show("prone_low_dose", image, mask)
    assert lung.sum() < 0.7 * mask.sum()  # shrunk
    assert len(np.unique(pixels)) > 20


def test_slice_without_a_body_is_not_cut():
    image = np.full([16, 16], 90, np.uint8)
    mask = np.zeros([16, 16], np.uint8)
    mask[2:5, 2:5] = 1
    for scanner in ("crop_to_body", "small_field_of_view", "black_background"):
        pixels, lung = show(scanner, image, mask)
        np.testing.assert_array_equal(pixels, image)
        np.testing.assert_array_equal(lung, mask)


def test_specks_are_no_body():
    image = np.zeros([64, 64], np.uint8)
    image[30:34, 30:34] = 255  # 16 of 4,096 pixels
    np.testing.assert_array_equal(show("crop_to_body", image, image * 0)[0], image)


def test_unknown_scanner_is_refused():
    with pytest.raises(ValueError, match="scanner is 'pet'; expected one of crop_to_body, small"):
        show("pet")


@pytest.mark.parametrize(
    "image",
    [np.zeros([7, 8], np.uint8), np.zeros([8, 8, 1], np.uint8), np.zeros([8, 8], np.float32)],
)
def test_slice_of_another_kind_is_refused(image):
    with pytest.raises(ValueError, match=r"slice P1_z1 has shape .*; expected uint8 \[height, w"):
        show("clahe", image, image)


@pytest.mark.parametrize(
    "mask",
    [np.zeros([8, 9], np.uint8), np.zeros([8, 8], bool), np.full([8, 8], 255, np.uint8)],
)
def test_mask_of_another_kind_is_refused(mask):
    with pytest.raises(
        ValueError, match=r"the mask of slice P1_z1 .*; expected \[8, 8\], uint8, 0"
    ):
        show("clahe", np.zeros([8, 8], np.uint8), mask)
