"""Whether a SavedModel answers as the trained model does."""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from preprocessing.spec import MASK_FILE_FOREGROUND
from trainer.signature import (
    ARRAY_SIGNATURE,
    ENCODED_SIGNATURE,
    PREDICTED_MASK,
    PREDICTED_MASK_BYTES,
    PROBABILITY,
    PROBABILITY_THRESHOLD,
    SCALED_SIGNATURE,
)

MAX_PROBABILITY_DIFFERENCE = 1e-4
"""Allowed between the two; more means that the graph or the weights are not the same. Sums of
float32 in another order, as another graph of the same network has them, differ by up to 1.7e-5 in
a trained U-Net of five levels."""

MAX_DICE_LOSS = 0.002
"""Allowed to a model that computes in fewer bits than float32, on slices with lung."""

Segment = Callable[[tf.Tensor], Mapping[str, tf.Tensor]]


@dataclass
class Agreement:
    """A SavedModel beside the trained model, which computes in float32, on validation slices."""

    num_slices: int = 0
    difference: float = 0.0
    """The largest between two probabilities."""

    dice: list[float] = field(default_factory=list)
    """Of the SavedModel with the reference masks, for each slice with lung."""

    trained_dice: list[float] = field(default_factory=list)
    """Of the trained model, for the same slices."""

    @property
    def mean_dice(self) -> float:
        """Mean over slices with lung; NaN without any."""
        return float(np.mean(self.dice)) if self.dice else math.nan

    @property
    def mean_trained_dice(self) -> float:
        """The same of the trained model."""
        return float(np.mean(self.trained_dice)) if self.trained_dice else math.nan

    def check(self, *, reduced: bool) -> None:
        """Checks that the SavedModel is as good as the trained model.

        Args:
            reduced: it computes in fewer bits, so probabilities may differ, and Dice counts.

        Raises:
            ValueError: if it is not.
        """
        # Both are written so that NaN fails too.
        if reduced and not self.mean_trained_dice - self.mean_dice <= MAX_DICE_LOSS:
            raise ValueError(
                f"the SavedModel has a Dice of {self.mean_dice:.4f} on {len(self.dice)} validation "
                f"slices with lung, in float32 {self.mean_trained_dice:.4f}; expected to lose at "
                f"most {MAX_DICE_LOSS}: not published; export it with --precision float32"
            )
        if not reduced and not self.difference <= MAX_PROBABILITY_DIFFERENCE:
            raise ValueError(
                f"the SavedModel's probabilities differ from the trained model's by up to "
                f"{self.difference:.2e}, more than {MAX_PROBABILITY_DIFFERENCE:.0e}: not "
                "published; look whether the checkpoint is whole and of this version of the code"
            )

    def described(self, *, reduced: bool) -> str:
        """Says in a line how well both agree."""
        if reduced:
            return (
                f"on {len(self.dice)} validation slices with lung its Dice is "
                f"{self.mean_dice:.4f}, in float32 {self.mean_trained_dice:.4f}"
            )
        return (
            f"on {self.num_slices} validation slices all signatures agree with the trained model "
            f"(probabilities differ by at most {self.difference:.1e})"
        )


def compare(
    segment: Segment, saved_dir: Path, slices: Sequence[Mapping[str, np.ndarray]]
) -> Agreement:
    """Runs all signatures of the SavedModel beside the trained model.

    It is loaded into a session, as TensorFlow Serving does; ``tf.saved_model.load`` restores
    weights that a session does not.

    Args:
        segment: the trained model behind the signature for arrays.
        saved_dir: folder of the SavedModel.
        slices: each with ``image`` and ``mask``, uint8 [height, width, 1].

    Returns:
        How well they agree.

    Raises:
        ValueError: if the signatures do not agree with one another.
    """
    agreement = Agreement()
    with contextlib.closing(tf.compat.v1.Session(graph=tf.Graph())) as session:
        signatures = tf.compat.v1.saved_model.loader.load(
            session, [tf.saved_model.SERVING], str(saved_dir)
        ).signature_def
        for example in slices:
            image = example["image"]
            answer = call(session, signatures[ARRAY_SIGNATURE.name], image[np.newaxis])
            scaled = call(
                session, signatures[SCALED_SIGNATURE.name], image[np.newaxis] / np.float32(255)
            )
            file = tf.io.encode_png(image).numpy()
            encoded = call(session, signatures[ENCODED_SIGNATURE.name], [file])
            expected = segment(tf.constant(image[np.newaxis]))
            found = np.stack([answer[PROBABILITY.key], scaled[PROBABILITY.key]])
            difference = np.max(np.abs(found - expected[PROBABILITY.key].numpy()))
            # numpy's, which keeps NaN
            agreement.difference = float(np.maximum(agreement.difference, difference))
            mask = answer[PROBABILITY.key] >= PROBABILITY_THRESHOLD
            from_file = tf.io.decode_png(encoded[PREDICTED_MASK_BYTES.key][0]).numpy()
            if not np.array_equal(answer[PREDICTED_MASK.key], mask) or not np.array_equal(
                from_file, mask[0] * MASK_FILE_FOREGROUND
            ):
                raise ValueError(
                    "the masks of the SavedModel's signatures are not the thresholded "
                    "probability: not published"
                )
            reference = example["mask"].astype(bool)
            if reference.any():
                agreement.dice.append(_dice(mask[0], reference))
                trained_mask = expected[PREDICTED_MASK.key].numpy()[0].astype(bool)
                agreement.trained_dice.append(_dice(trained_mask, reference))
            agreement.num_slices += 1
    return agreement


def _dice(mask: npt.NDArray[np.bool_], reference: npt.NDArray[np.bool_]) -> float:
    both = np.count_nonzero(mask & reference)
    return 2 * both / (np.count_nonzero(mask) + np.count_nonzero(reference))


def call(session: Any, signature: Any, value: Any) -> dict[str, np.ndarray]:
    """Calls a signature that has one input; gives its outputs by their keys."""
    (received,) = signature.inputs.values()
    outputs = {key: tensor.name for key, tensor in signature.outputs.items()}
    return session.run(outputs, {received.name: value})
