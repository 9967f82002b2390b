import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from serving.mask_files import npy_of_mask, png_of_mask, rle_of_mask

MASKS = [
    np.zeros((3, 4), np.uint8),
    np.ones((3, 4), np.uint8),
    np.array([[1]], np.uint8),
    np.array([[0]], np.uint8),
    np.array([[0, 1, 1], [1, 0, 1]], np.uint8),
    (np.random.default_rng(0).random((37, 53)) < 0.3).astype(np.uint8),
]


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
@pytest.mark.parametrize("mask", MASKS, ids=range(len(MASKS)))
def test_run_lengths_are_those_of_coco(mask: np.ndarray) -> None:
    document = json.loads(rle_of_mask(mask))
    height, width = document["size"]
    encoded = coco.frPyObjects(document, height, width)
    np.testing.assert_array_equal(coco.decode(encoded), mask)
    assert document["area_px"] == coco.area(encoded)
    assert sum(document["counts"]) == mask.size


@pytest.mark.parametrize("mask", MASKS, ids=range(len(MASKS)))
def test_files_hold_the_mask(mask: np.ndarray) -> None:
    with Image.open(io.BytesIO(png_of_mask(mask))) as image:
        np.testing.assert_array_equal(np.asarray(image), mask * 255)
    array = np.load(io.BytesIO(npy_of_mask(mask)), allow_pickle=False)
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array, mask)


def test_part_of_an_array_is_written_as_it_looks() -> None:
    mask = np.arange(64, dtype=np.uint8).reshape(8, 8)[::2, ::-2] % 2
    runs = json.loads(rle_of_mask(mask))
    assert runs["area_px"] == mask.sum()
    np.testing.assert_array_equal(np.load(io.BytesIO(npy_of_mask(mask))), mask)
