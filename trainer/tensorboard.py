"""What TensorBoard shows of a run: figures of each epoch, and slices as they are marked."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from trainer.history import Row
from trainer.input_pipeline import SplitReader
from trainer.model import UNet
from trainer.segmentation import logits_of

NUM_PANELS = 4
"""Validation slices that are shown, evenly spread over the split."""


class TensorBoard:
    """Writes below ``RUN/tensorboard``."""

    def __init__(self, run_dir: Path, validation: SplitReader) -> None:
        """Opens the log, and chooses the slices that are shown."""
        self._writer = tf.summary.create_file_writer(str(run_dir / "tensorboard"))
        count = min(NUM_PANELS, validation.num_slices)
        numbers = (2 * np.arange(count) + 1) * validation.num_slices // (2 * count)
        self._shown = next(iter(validation.store.batches(numbers[np.newaxis])))

    def write(self, row: Row, *, speed: Mapping[str, float]) -> None:
        """Writes the figures of an epoch: ``train/loss``, ``validation/dice_pooled`` and so on.

        Args:
            row: of ``history.csv``.
            speed: learning rate, slices a second, and what else is worth a curve.
        """
        with self._writer.as_default(step=int(row["epoch"])):
            for name, value in row.items():
                if name.startswith(("train_", "validation_")):
                    tf.summary.scalar(name.replace("_", "/", 1), value)
            for name, value in speed.items():
                tf.summary.scalar(name, value)
        self._writer.flush()

    def write_panels(self, model: UNet, *, epoch: int) -> None:
        """Writes slice, reference mask and probability of lung, side by side."""
        probability = tf.sigmoid(logits_of(model, self._shown["image"]))
        panels = [
            self._shown["image"],
            self._shown["mask"] * 255,
            tf.cast(255 * probability, tf.uint8),
        ]
        with self._writer.as_default(step=epoch):
            tf.summary.image(
                "validation/slice, reference, probability",
                tf.concat(panels, axis=2),
                max_outputs=NUM_PANELS,
            )
        self._writer.flush()
