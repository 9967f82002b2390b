"""A SavedModel that marks gray values of lung, and folders of slices for it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

LUNG, BODY = 80, 190
"""Gray values of the slices; what is drawn as lung is marked by the model."""


class MarksGrayValues(tf.Module):
    """Marks the pixels between 50 and 120."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 1], tf.uint8, name="image")])
    def serve(self, image):
        probability = tf.cast((image > 50) & (image < 120), tf.float32)
        return {"predicted_mask": tf.cast(probability, tf.uint8), "probability": probability}


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with one version, 7."""
    folder = tmp_path_factory.mktemp("models") / "marks_gray_values"
    module = MarksGrayValues()
    tf.saved_model.save(module, str(folder / "7"), signatures={"serving_default": module.serve})
    return folder


class Folders:
    """Writes slices whose dark pixels the model marks, and masks."""

    def __init__(self, root: Path) -> None:
        self.images, self.masks = root / "images", root / "masks"

    def add(self, slice_id: str, *, marked: object, mask: object) -> None:
        """Adds a slice: pixels that the model will mark, and those that are lung."""
        image = np.where(np.array(marked), LUNG, BODY).astype(np.uint8)
        labels = np.array(mask, np.uint8) * np.uint8(255)
        for folder, pixels in ((self.images, image), (self.masks, labels)):
            path = folder / f"{slice_id}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)

    def damage(self, slice_id: str) -> None:
        (self.images / f"{slice_id}.png").write_bytes(b"GIF8")

    def settings(self) -> Mapping[str, Path]:
        return {"images": self.images, "masks": self.masks}


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)
