"""On real slices: sound masks have few findings, and damaged ones are found."""

import numpy as np
import pytest
from PIL import Image

from preprocessing.inspection.findings import OFF_EDGES, find
from preprocessing.inspection.measures import measure

DAMAGES = {
    "shifted by 10 pixels": lambda mask: np.roll(mask, 10, axis=1),
    "mirrored": lambda mask: mask[:, ::-1],
    "upside down": lambda mask: mask[::-1],
    "inverted": lambda mask: 1 - mask,
}
MIN_AREA_PX = 2_000
NUM_SLICES = 20


@pytest.fixture(scope="module")
def slices(lctsc):
    """Slices and masks with more than a tip of a lung, evenly spread."""
    pairs = []
    for path in sorted((lctsc / "images").iterdir()):
        mask = np.asarray(Image.open(lctsc / "masks" / path.name)) // 255
        if mask.sum() > MIN_AREA_PX:
            pairs.append((path, mask))
    chosen = pairs[:: len(pairs) // NUM_SLICES]
    return [(np.asarray(Image.open(path)), mask) for path, mask in chosen]


def num_off_edges(slices, change=lambda mask: mask):
    return sum(
        OFF_EDGES
        in {
            finding.kind
            for finding in find(measure(image=image, mask=change(mask)), gray_value_mean=100.0)
        }
        for image, mask in slices
    )


def test_sound_masks_run_along_edges(slices):
    assert len(slices) >= NUM_SLICES
    assert num_off_edges(slices) == 0


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_masks_are_found(slices, damage):
    assert num_off_edges(slices, DAMAGES[damage]) >= len(slices) - 1
