"""From the best epoch of a run to a SavedModel that TensorFlow Serving can load."""

import dataclasses
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from preprocessing.manifest import DatasetManifest
from preprocessing.publish import whole_folder, write_text
from preprocessing.spec import MASK_FILE_FOREGROUND, VALIDATION_SPLIT
from trainer.checkpoints import model_of
from trainer.config import EXPORT_PRECISIONS, TrainerConfig
from trainer.export_agreement import compare
from trainer.failures import explained
from trainer.guards import checked_files, checked_gray_values, checked_images
from trainer.input_pipeline import read_examples
from trainer.model import UNet
from trainer.model_card import FILENAME as MODEL_CARD_FILENAME
from trainer.resizing import resize_image, restore_probability
from trainer.run_folder import load_best_model, load_manifest
from trainer.segmentation import logits_of, segment
from trainer.signature import (
    ARRAY_SIGNATURE,
    ENCODED_SIGNATURE,
    IMAGE,
    IMAGE_BYTES,
    PREDICTED_MASK,
    PREDICTED_MASK_BYTES,
    PROBABILITY,
    PROBABILITY_THRESHOLD,
    SCALED_IMAGE,
    SCALED_SIGNATURE,
    WARM_UP_BATCHES,
    TensorContract,
)
from trainer.slice_decoding import decode_slice
from trainer.warm_up_requests import write_warm_up_requests

logger = logging.getLogger(__name__)

NUM_COMPARED_SLICES = 8
"""Slices on which the SavedModel is compared with the trained model before it is published."""

MAX_VERSION = 2**63 - 1
"""TensorFlow Serving counts versions in 64 bits; a larger number is no version."""

PROVENANCE = Path("assets.extra") / "provenance.json"
"""Below the folder of a version: the hash of the data that the model was trained on."""

MAX_WARM_UP_BATCH = 1024


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Settings of ``python -m trainer export``."""

    run: Path
    """Folder of a training run; its best epoch is exported."""

    out: Path
    """Folder of the model; the SavedModel goes to its next numbered version folder."""

    data: Path | None = None
    """Dataset whose validation slices the SavedModel is tried on; ``None``: that of the run."""

    warm_up_batches: Sequence[int] = WARM_UP_BATCHES
    """Slices in the requests that a server plays first, by each signature; those of the client,
    with flips and without. None of them: no requests."""

    precision: str = EXPORT_PRECISIONS[0]
    """In which numbers the served model computes, whatever the run was trained in."""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: if a batch size cannot be, or there is no such precision.
        """
        if self.precision not in EXPORT_PRECISIONS:
            raise ValueError(
                f"--precision is {self.precision!r}; expected one of {', '.join(EXPORT_PRECISIONS)}"
            )
        if not all(1 <= size <= MAX_WARM_UP_BATCH for size in self.warm_up_batches):
            raise ValueError(
                f"--warm-up-batches is {' '.join(map(str, self.warm_up_batches))}; expected "
                f"numbers from 1 to {MAX_WARM_UP_BATCH}"
            )


class ServedModel:
    """The U-Net inside of the signatures of ``trainer.signature``."""

    def __init__(self, model: UNet) -> None:
        """Wraps a trained model."""
        self._model = model
        self._size = model.image_size

    def save(self, folder: Path) -> None:
        """Writes the SavedModel with the signatures of the contract."""
        module = tf.Module()
        # The plain variables, and not Keras' wrappers around them: a model that holds the wrappers
        # loads in Python, but a session, and so TensorFlow Serving, leaves it without weights.
        module.weights = [weight.value for weight in self._model.weights]
        signatures = {
            signature.name: tf.function(segment, [_tensor_spec(taken)], autograph=False)
            for signature, segment, taken in (
                (ARRAY_SIGNATURE, self.segment, IMAGE),
                (SCALED_SIGNATURE, self.segment_scaled, SCALED_IMAGE),
                (ENCODED_SIGNATURE, self.segment_encoded, IMAGE_BYTES),
            )
        }
        tf.saved_model.save(module, str(folder), signatures=signatures)

    def segment(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Segments slices of one size: uint8 [batch, height, width, 1]."""
        return self._segment_checked(checked_images(image))

    def segment_scaled(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Segments slices of one size: float32 [batch, height, width, 1] in [0, 1].

        To the nearest of the 256 gray values, so the same slice as uint8 has the same answer.
        """
        gray = tf.round(255 * checked_gray_values(checked_images(image)))
        return self._segment_checked(tf.cast(gray, tf.uint8))

    def segment_encoded(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Segments PNG or BMP files, string [batch], each of its own size."""
        resized, sizes = tf.map_fn(
            self._decode_and_resize,
            checked_files(image_bytes),
            fn_output_signature=(
                tf.TensorSpec([self._size, self._size, 1], tf.uint8),
                tf.TensorSpec([2], tf.int32),
            ),
        )
        probability = tf.sigmoid(logits_of(self._model, resized))
        encoded = tf.map_fn(
            _encode_mask,
            (probability, sizes),
            fn_output_signature=tf.TensorSpec([], tf.string),
        )
        return {PREDICTED_MASK_BYTES.key: encoded}

    def _segment_checked(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        _, probability = segment(self._model, image)
        return {PREDICTED_MASK.key: _threshold(probability), PROBABILITY.key: probability}

    def _decode_and_resize(self, content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = decode_slice(content)
        resized = resize_image(image[tf.newaxis], self._size)[0]
        return resized, tf.shape(image)[:2]


def export(config: ExportConfig) -> Path:
    """Writes the best epoch of a run as the next version of a model.

    The SavedModel is written aside, loaded again, compared with the trained model on real slices,
    and only then renamed to its number, so TensorFlow Serving never sees a half-written version.

    Returns:
        The version's folder.

    Raises:
        ValueError: if there is no such run or dataset, or the SavedModel answers differently than
            the trained model.
    """
    run_config, trained = load_best_model(config.run)
    reduced = config.precision != EXPORT_PRECISIONS[0]
    data, manifest = load_manifest(config.run, run_config, config.data)
    with explained(data, manifest):
        examples = read_examples(data, manifest, VALIDATION_SPLIT)
        slices = list(
            (examples if reduced else examples.take(NUM_COMPARED_SLICES)).as_numpy_iterator()
        )
    version = _next_version(config.out)
    with whole_folder(config.out / str(version)) as aside:
        model = _copied(trained, run_config, config.precision) if reduced else trained
        ServedModel(model).save(aside)
        agreement = compare(ServedModel(trained).segment, aside, slices)
        agreement.check(reduced=reduced)
        if config.warm_up_batches:
            write_warm_up_requests(aside, config.warm_up_batches)
        write_text(aside / "assets.extra" / "training_config.json", run_config.recipe_to_json())
        provenance = {
            "data_sha256": DatasetManifest.load(config.run).data_sha256(),
            "tensorflow": tf.__version__,
            "precision": config.precision,
        }
        if reduced:
            provenance |= {
                "validation_slices_with_lung": len(agreement.dice),
                "dice": round(agreement.mean_dice, 6),
                "dice_in_float32": round(agreement.mean_trained_dice, 6),
            }
        write_text(aside / PROVENANCE, json.dumps(provenance, indent=2) + "\n")
        _copy_model_card(config.run, aside)
    logger.info(
        "exported version %d to %s; %s",
        version,
        config.out / str(version),
        agreement.described(reduced=reduced),
    )
    return config.out / str(version)


def _copied(trained: UNet, run_config: TrainerConfig, precision: str) -> UNet:
    """Builds the same network with the same weights, to compute in other numbers."""
    model = model_of(dataclasses.replace(run_config, precision=precision))
    for target, source in zip(model.weights, trained.weights, strict=True):
        target.assign(source)
    return model


def _copy_model_card(run_dir: Path, saved_dir: Path) -> None:
    """Lays the card of a finished run beside its model; a run that is under way has none yet."""
    card = run_dir / MODEL_CARD_FILENAME
    if card.exists():
        write_text(saved_dir / "assets.extra" / card.name, card.read_text(encoding="utf-8"))


def _next_version(model_dir: Path) -> int:
    entries = model_dir.iterdir() if model_dir.is_dir() else ()
    versions = [int(entry.name) for entry in entries if entry.name.isdecimal()]
    return 1 + max((version for version in versions if version < MAX_VERSION), default=0)


def _threshold(probability: tf.Tensor) -> tf.Tensor:
    return tf.cast(probability >= PROBABILITY_THRESHOLD, tf.uint8)


def _encode_mask(probability_and_size: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    """Makes a PNG file, scalar string, of a probability [size, size, 1] and the slice's size."""
    probability, size = probability_and_size
    restored = restore_probability(probability[tf.newaxis], height=size[0], width=size[1])[0]
    return tf.io.encode_png(_threshold(restored) * MASK_FILE_FOREGROUND)


def _tensor_spec(contract: TensorContract) -> tf.TensorSpec:
    return tf.TensorSpec(contract.shape, tf.dtypes.as_dtype(contract.dtype), name=contract.key)
