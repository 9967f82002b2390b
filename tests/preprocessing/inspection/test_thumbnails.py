import io

import numpy as np
import pytest
from PIL import Image

from preprocessing.inspection.thumbnails import FILL_ALPHA, MASK_COLOR, draw_thumbnail
from preprocessing.records import Example


def drawn(image, mask):
    thumbnail = draw_thumbnail(
        Example(
            image=np.asarray(image, dtype=np.uint8),
            mask=np.asarray(mask, dtype=np.uint8),
            slice_id="s",
            patient_id="",
        )
    )
    gray = np.asarray(Image.open(io.BytesIO(thumbnail.slice_jpeg)))
    overlay = np.asarray(Image.open(io.BytesIO(thumbnail.mask_png)).convert("RGBA"))
    assert gray.shape == overlay.shape[:2] == (thumbnail.height, thumbnail.width)
    return gray, overlay


def test_outline_is_inside_casing_outside_and_fill_between():
    mask = np.zeros((256, 256))
    mask[100:110, 100:120] = 1
    _, overlay = drawn(np.full((256, 256), 90), mask)
    assert overlay[105, 98].tolist()[3] == 0
    assert overlay[105, 99].tolist() == [16, 16, 16, 255]
    assert overlay[105, 100].tolist() == [*MASK_COLOR, 255]
    assert overlay[105, 101].tolist() == [*MASK_COLOR, FILL_ALPHA]
    assert (overlay[..., 3] > 0).sum() == 10 * 20 + 2 * (10 + 20)


@pytest.mark.parametrize(
    ("shape", "scaled"),
    [
        ((512, 512), (256, 256)),
        ((4, 4), (256, 256)),
        ((100, 50), (256, 128)),
        ((300, 900), (85, 256)),
        ((1, 2000), (1, 256)),
    ],
)
def test_longer_side_has_one_size_and_the_shape_stays(shape, scaled):
    gray, _ = drawn(np.zeros(shape), np.zeros(shape))
    assert gray.shape == scaled


@pytest.mark.parametrize("side", [200, 257, 1000, 4096])
def test_no_speck_is_lost(side):
    mask = np.zeros((side, side))
    mask[side - 1, side - 1] = 1
    _, overlay = drawn(np.zeros((side, side)), mask)
    assert overlay[255, 255].tolist()[3] == 255


def test_tiny_slice_is_enlarged_in_squares():
    gray, overlay = drawn([[0, 255], [255, 0]], [[1, 0], [0, 0]])
    assert abs(gray[:120, :120].astype(int)).max() < 10
    assert gray[:120, 136:].min() > 245
    assert (overlay[:127, :127, 3] > 0).all()
    assert (overlay[129:, :, 3] == 0).all()


def test_empty_mask_draws_nothing():
    _, overlay = drawn(np.zeros((8, 8)), np.zeros((8, 8)))
    assert (overlay[..., 3] == 0).all()


def test_full_mask_is_filled_to_the_border():
    _, overlay = drawn(np.zeros((256, 256)), np.ones((256, 256)))
    assert (overlay[..., 3] == FILL_ALPHA).all()
