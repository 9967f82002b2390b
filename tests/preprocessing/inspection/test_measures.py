import numpy as np
import pytest

from preprocessing.inspection.measures import measure

TISSUE = 200
LUNG = 50


def parse(picture: str) -> np.ndarray:
    """Reads rows of `.` for 0 and `#` for 1."""
    rows = [[character == "#" for character in row] for row in picture.split()]
    return np.array(rows, dtype=np.uint8)


def measure_mask(picture: str):
    mask = parse(picture)
    return measure(image=np.where(mask, LUNG, TISSUE).astype(np.uint8), mask=mask)


def test_area_and_share():
    measures = measure_mask("#... #... .... ....")
    assert (measures.lung_area_px, measures.num_pixels, measures.lung_share) == (2, 16, 0.125)


@pytest.mark.parametrize(
    ("picture", "border_px"),
    [
        (".... .##. .##. ....", 0),
        (".... ..## ..## ....", 2),
        ("#### #### #### ####", 12),
        ("#", 1),
        ("## ##", 4),
    ],
)
def test_pixels_at_the_border_are_counted_once(picture, border_px):
    assert measure_mask(picture).border_px == border_px


@pytest.mark.parametrize(
    ("picture", "num_parts"),
    [
        (".... .... .... ....", 0),
        ("#..# #..# .... ....", 2),
        ("#... .#.. .... ...#", 2),  # connected over a corner
    ],
)
def test_parts_are_counted(picture, num_parts):
    measures = measure_mask(picture)
    assert (measures.num_parts, measures.num_specks) == (num_parts, 0)


def test_part_below_the_share_of_a_speck_is_a_speck():
    mask = np.zeros((128, 128), dtype=np.uint8)  # a speck is below 1.6384 pixels
    mask[10, 10] = 1
    mask[20, 20:22] = 1
    measures = measure(image=mask, mask=mask)
    assert (measures.num_parts, measures.num_specks) == (1, 1)


@pytest.mark.parametrize(
    ("picture", "hole_area_px"),
    [
        (".... .... .... ....", 0),
        ("#### #### #### ####", 0),
        ("##### #...# #...# #####", 6),
        ("##### #...# ....# #####", 0),  # open to the border
        ("....... .##.... .#.##.. .####..", 1),
        ("..... .##.. .#.#. .###. .....", 1),  # a corner does not let background through
    ],
)
def test_enclosed_background_is_a_hole(picture, hole_area_px):
    assert measure_mask(picture).hole_area_px == hole_area_px


def test_gray_values_are_counted_and_averaged():
    image = np.array([[0, 0], [100, 255]], dtype=np.uint8)
    measures = measure(image=image, mask=np.zeros_like(image))
    assert (measures.num_gray_values, measures.gray_value_mean) == (3, 88.75)


def test_mask_of_the_dark_area_agrees_with_all_its_edges():
    image = np.full((32, 32), TISSUE, dtype=np.uint8)
    image[8:20, 10:22] = LUNG
    assert measure(image=image, mask=(image == LUNG).astype(np.uint8)).edge_agreement == 1.0


def test_mask_of_the_bright_area_agrees_with_no_edge():
    image = np.full((32, 32), LUNG, dtype=np.uint8)
    image[8:20, 10:22] = TISSUE
    assert measure(image=image, mask=(image == TISSUE).astype(np.uint8)).edge_agreement == 0.0


def test_mask_with_one_of_two_sides_on_an_edge_agrees_by_half():
    image = np.full((16, 16), TISSUE, dtype=np.uint8)
    image[:, :8] = LUNG
    mask = np.zeros_like(image)
    mask[:, 4:8] = 1  # the rim: columns 4 and 7; the border of the slice is none
    assert measure(image=image, mask=mask).edge_agreement == 0.5


@pytest.mark.parametrize(("difference", "agreement"), [(9, 0.0), (11, 1.0)])
def test_edge_must_be_seen(difference, agreement):
    image = np.full((16, 16), 100 + difference, dtype=np.uint8)
    mask = np.zeros_like(image)
    mask[5:10, 5:10] = 1
    image[mask > 0] = 100
    assert measure(image=image, mask=mask).edge_agreement == agreement


@pytest.mark.parametrize("fill", [0, 1])
def test_mask_without_a_rim_has_no_agreement(fill):
    image = np.arange(16, dtype=np.uint8).reshape(4, 4)
    mask = np.full((4, 4), fill, dtype=np.uint8)
    assert measure(image=image, mask=mask).edge_agreement is None


def test_agreement_does_not_depend_on_where_the_mask_is():
    rng = np.random.default_rng(0)
    image = np.full((64, 96), TISSUE, dtype=np.uint8)
    mask = np.zeros_like(image)
    patch = rng.integers(0, 256, (20, 20)).astype(np.uint8)
    found = set()
    for row, column in ((10, 10), (30, 60)):
        moved, moved_mask = image.copy(), mask.copy()
        moved[row : row + 20, column : column + 20] = patch
        moved_mask[row + 4 : row + 14, column + 5 : column + 16] = 1
        found.add(measure(image=moved, mask=moved_mask).edge_agreement)
    assert len(found) == 1
    assert 0 < found.pop() < 1
