"""What is measured: the best epoch of a run, one checkpoint, or a SavedModel."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from trainer.checkpoints import load_checkpoint_model
from trainer.config import TrainerConfig
from trainer.evaluation.config import EvaluationConfig
from trainer.losses import loss_of_slices
from trainer.resizing import resize_mask
from trainer.run_folder import load_best_model
from trainer.segmentation import segment
from trainer.signature import ARRAY_SIGNATURE, IMAGE, PROBABILITY

SAVED_MODEL_FILENAME = "saved_model.pb"

Predict = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
"""From slices and masks, uint8 [batch, height, width, 1], to the probability of lung of the same
shape, float32, and the loss of each slice, float32 [batch]: NaN from a model that gives none."""


@dataclass(frozen=True, kw_only=True)
class MeasuredModel:
    """A model, ready to predict."""

    flag: str
    """``run``, ``checkpoint`` or ``model``."""

    path: Path
    """Where it was loaded from; of a model with versions, the version's folder."""

    predict: Predict
    """Predicts at the size of the slices."""

    config: TrainerConfig | None
    """Of the run that it is of; ``None`` for a SavedModel, which keeps no paths."""


def load_measured_model(config: EvaluationConfig) -> MeasuredModel:
    """Loads what a configuration names.

    Raises:
        ValueError: if it is not there, or not what it should be; the message names the folder.
    """
    if config.run is not None:
        run_config, model = load_best_model(config.run)
        return MeasuredModel(
            flag="run",
            path=config.run,
            predict=_from_logits(model, loss_name=run_config.loss),
            config=run_config,
        )
    if config.checkpoint is not None:
        run_config, model = load_checkpoint_model(config.checkpoint)
        return MeasuredModel(
            flag="checkpoint",
            path=config.checkpoint,
            predict=_from_logits(model, loss_name=run_config.loss),
            config=run_config,
        )
    if config.model is None:
        raise ValueError("there is nothing to measure; give --run, --checkpoint or --model")
    version_dir = _version_dir(config.model)
    return MeasuredModel(
        flag="model", path=version_dir, predict=_from_saved_model(version_dir), config=None
    )


def _from_logits(model: keras.Model, *, loss_name: str) -> Predict:
    # One graph, however often the model is measured; of any size.
    pixels = tf.TensorSpec(IMAGE.shape, tf.uint8)

    @tf.function(input_signature=[pixels, pixels], autograph=False)
    def predict(image: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits, probability = segment(model, image)
        # The loss is the one of training, at the size of the model.
        resized = resize_mask(mask, logits.shape[1])
        loss = loss_of_slices(loss_name, mask=resized, logits=logits)
        return probability, loss

    return predict


def _from_saved_model(version_dir: Path) -> Predict:
    try:
        # Held by `predict`: a signature does not keep the variables of its model alive.
        loaded = tf.saved_model.load(str(version_dir))
    except (OSError, ValueError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"the SavedModel {version_dir} cannot be loaded ({reason}); copy it again, or export "
            "the run again"
        ) from error
    signature = loaded.signatures.get(ARRAY_SIGNATURE.name)
    if signature is None or PROBABILITY.key not in signature.structured_outputs:
        raise ValueError(
            f"the SavedModel {version_dir} has no signature {ARRAY_SIGNATURE.name} that gives "
            f"{PROBABILITY.key}; expected a model that `make export` wrote"
        )

    def predict(image: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        answer = loaded.signatures[ARRAY_SIGNATURE.name](**{IMAGE.key: image})
        # It gives no logits, so there is no loss.
        return answer[PROBABILITY.key], tf.fill([tf.shape(mask)[0]], float("nan"))

    return predict


def _version_dir(model_dir: Path) -> Path:
    """Gives the folder of a SavedModel, or its highest version's, as TensorFlow Serving does."""
    if (model_dir / SAVED_MODEL_FILENAME).is_file():
        return model_dir
    entries = model_dir.iterdir() if model_dir.is_dir() else ()
    versions = [entry for entry in entries if (entry / SAVED_MODEL_FILENAME).is_file()]
    numbered = [version for version in versions if version.name.isdecimal()]
    if not numbered:
        found = "holds no" if model_dir.is_dir() else "does not exist, so there is no"
        raise ValueError(
            f"--model {model_dir} {found} {SAVED_MODEL_FILENAME}, nor a numbered version with one; "
            "point it to the folder that `make export` wrote"
        )
    return max(numbered, key=lambda version: int(version.name))
