"""Phantoms to train on: drawn once at the start of a run, at the size of the model."""

import logging
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from preprocessing.phantoms.teaching import draw_teaching_slices
from preprocessing.publish import whole_file

logger = logging.getLogger(__name__)


class PhantomStore:
    """Gives phantoms by their numbers."""

    def __init__(self, *, num_phantoms: int, size: int, seed: int, folder: Path) -> None:
        """Draws all phantoms, or reads those that a run drew before it was stopped.

        Args:
            num_phantoms: how many there are.
            size: height and width, in pixels.
            seed: the same seed gives the same phantoms on any machine.
            folder: for the file that keeps them.

        Raises:
            OSError: if the file cannot be written.
            ValueError: if a process that draws them was killed.
        """
        path = folder / f"phantoms-{size}-{num_phantoms}-{seed}.npy"
        if not path.exists():
            logger.info("drawing %d phantoms", num_phantoms)
            try:
                drawn = draw_teaching_slices(
                    num_slices=num_phantoms,
                    image_size=size,
                    seed=seed,
                    num_processes=len(os.sched_getaffinity(0)),
                )
            except RuntimeError as error:
                raise ValueError(f"the phantoms of this run were not drawn: {error}") from error
            with whole_file(path) as aside, aside.open("wb") as file:
                np.save(file, drawn)
        # [num_phantoms, 2, size, size, 1]: each slice, and its mask.
        self._slices: npt.NDArray[np.uint8] = np.load(path, mmap_mode="r")

    def batches(self, numbers: npt.NDArray[np.int64]) -> tf.data.Dataset:
        """Gives the phantoms of each row of numbers.

        Args:
            numbers: [num_batches, batch].

        Returns:
            ``image`` and ``mask``, uint8 [batch, size, size, 1].
        """
        taken = self._slices
        shape = [numbers.shape[1], *taken.shape[1:]]

        def read(row: tf.Tensor) -> dict[str, tf.Tensor]:
            both = tf.numpy_function(taken.__getitem__, [row], tf.uint8)
            both = tf.ensure_shape(both, shape)
            return {"image": both[:, 0], "mask": both[:, 1]}

        return tf.data.Dataset.from_tensor_slices(numbers).map(
            read, num_parallel_calls=2, deterministic=True
        )
