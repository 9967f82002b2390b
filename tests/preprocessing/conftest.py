import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


class SlicePairs:
    """Writes tiny slices and masks: [12, 10] pixels, four slices for each of five patients."""

    def __init__(self, folder: Path) -> None:
        self.images = folder / "images"
        self.masks = folder / "masks"
        self.out = folder / "dataset"
        self.images.mkdir(parents=True)
        self.masks.mkdir()

    def add(self, slice_id: str, *, seed: int = 0, shape: tuple[int, int] = (12, 10)) -> None:
        rng = np.random.default_rng(seed)
        image = rng.integers(0, 256, shape).astype(np.uint8)
        mask = (rng.integers(0, 2, shape) * 255).astype(np.uint8)
        for folder, pixels in ((self.images, image), (self.masks, mask)):
            path = folder / f"{slice_id}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)

    def add_patients(self, *, num_patients: int = 5, slices_per_patient: int = 4) -> None:
        for patient in range(num_patients):
            for index in range(slices_per_patient):
                self.add(f"P{patient}_z{index:03d}", seed=100 * patient + index)


@pytest.fixture(autouse=True)
def _restore_loggers():
    """Leaves the levels as they were: the command sets them."""
    ours, root = logging.getLogger("preprocessing"), logging.getLogger()
    levels = ours.level, root.level
    yield
    ours.setLevel(levels[0])
    root.setLevel(levels[1])


@pytest.fixture
def empty_pairs(tmp_path: Path) -> SlicePairs:
    return SlicePairs(tmp_path)


@pytest.fixture
def pairs(empty_pairs: SlicePairs) -> SlicePairs:
    empty_pairs.add_patients()
    return empty_pairs
