"""How good a model is, measured on the slices as they came: at their own size."""

import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from preprocessing.publish import whole_file, write_text
from preprocessing.spec import MASK_FILE_FOREGROUND, SPLITS, VALIDATION_SPLIT
from trainer.failures import explained
from trainer.figures import Prediction, draw_predictions
from trainer.input_pipeline import read_examples
from trainer.losses import binary_cross_entropy
from trainer.metrics import TOTALS, slice_totals, summarize
from trainer.resizing import resize_mask
from trainer.run_folder import load_best_model, load_manifest
from trainer.segmentation import segment
from trainer.signature import PROBABILITY_THRESHOLD

logger = logging.getLogger(__name__)

NUM_PICTURES_OF_A_KIND = 2
"""How many of the worst, the middle and the best slices are drawn."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Settings of ``python -m trainer evaluate``."""

    run: Path
    """Folder of a training run; its best epoch is evaluated."""

    out: Path
    """Folder for ``evaluation.json`` and ``predictions.png``."""

    data: Path | None = None
    """Dataset to measure on; ``None``: the one that the run was trained with."""

    split: str = VALIDATION_SPLIT
    """``validation`` or ``train``."""

    write_masks: bool = False
    """Also write each predicted mask as ``predicted_masks/SLICE_ID.png``."""

    def __post_init__(self) -> None:
        """Checks values.

        Raises:
            ValueError: if the split has another name.
        """
        if self.split not in SPLITS:
            raise ValueError(f"--split is {self.split!r}; expected one of {', '.join(SPLITS)}")


def evaluate(config: EvaluationConfig) -> dict[str, Any]:
    """Measures the best epoch of a run on a split, slice by slice.

    Dice, IoU and accuracy compare masks at the size of the slice, which is what is served; the loss
    is the one of training, at the size of the model.

    Args:
        config: all settings.

    Returns:
        What is written to ``evaluation.json``: the metrics pooled, by patient and by slice.

    Raises:
        ValueError: if there is no such run or dataset.
    """
    run_config, model = load_best_model(config.run)
    data, manifest = load_manifest(config.run, run_config, config.data)
    with explained(data, manifest):
        return _evaluate(config, model, data, read_examples(data, manifest, config.split))


def _evaluate(
    config: EvaluationConfig, model: keras.Model, data: Path, examples: tf.data.Dataset
) -> dict[str, Any]:
    by_slice: list[dict[str, Any]] = []
    totals: list[np.ndarray] = []
    for prediction, row in _predictions(model, examples):
        totals.append(row)
        by_slice.append(
            {
                "slice_id": prediction.slice_id,
                "patient_id": prediction.patient_id,
                "dice": row[TOTALS.index("dice_sum")],
                "iou": row[TOTALS.index("iou_sum")],
                "mask_area_px": int(row[TOTALS.index("mask_area")]),
                "predicted_area_px": int(row[TOTALS.index("predicted_area")]),
            }
        )
        if config.write_masks:
            _write_mask(config.out / "predicted_masks", prediction)
    overall = summarize(np.sum(totals, axis=0).tolist())
    report = {
        "run": str(config.run),
        "data": str(data),
        "split": config.split,
        "num_slices": len(totals),
        "overall": overall,
        "by_patient": _by_patient(by_slice, totals),
        "by_slice": by_slice,
    }
    write_text(config.out / "evaluation.json", json.dumps(report, indent=2) + "\n")
    chosen = _slices_to_draw(by_slice)
    drawn = examples.filter(lambda example: tf.reduce_any(example["slice_id"] == chosen))
    pictures = {prediction.slice_id: prediction for prediction, _ in _predictions(model, drawn)}
    draw_predictions([pictures[slice_id] for slice_id in chosen], config.out / "predictions.png")
    logger.info(
        "%s split, %d slices at their own size: Dice %.4f, IoU %.4f, accuracy %.4f (pooled); "
        "details in %s",
        config.split,
        len(totals),
        overall["dice_pooled"],
        overall["iou_pooled"],
        overall["accuracy"],
        config.out / "evaluation.json",
    )
    if not any(entry["predicted_area_px"] for entry in by_slice):
        logger.warning("THE MODEL MARKS NO LUNG AT ALL, on none of these slices: train it longer")
    return report


def _predictions(
    model: keras.Model, examples: tf.data.Dataset
) -> Iterator[tuple[Prediction, np.ndarray]]:
    """Predicts one slice at a time, each at its own size; gives its row of totals beside it."""
    size = model.input_shape[1]

    @tf.function(reduce_retracing=True)
    def predict(image: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits, probability = segment(model, image)
        return probability, slice_totals(
            mask=mask,
            probability=probability,
            loss=binary_cross_entropy(mask=resize_mask(mask, size), logits=logits),
            threshold=PROBABILITY_THRESHOLD,
        )

    for example in tqdm(
        examples.batch(1).prefetch(2), desc="evaluation", unit="slice", disable=None, leave=False
    ):
        probability, totals = predict(example["image"], example["mask"])
        yield (
            Prediction(
                slice_id=example["slice_id"][0].numpy().decode(),
                patient_id=example["patient_id"][0].numpy().decode(),
                image=example["image"][0, :, :, 0].numpy(),
                mask=example["mask"][0, :, :, 0].numpy(),
                predicted_mask=(probability[0, :, :, 0].numpy() >= PROBABILITY_THRESHOLD).astype(
                    np.uint8
                ),
                dice=float(totals[0, TOTALS.index("dice_sum")]),
            ),
            totals[0].numpy(),
        )


def _by_patient(
    by_slice: Sequence[dict[str, Any]], totals: Sequence[np.ndarray]
) -> dict[str, dict[str, float]]:
    rows: dict[str, list[np.ndarray]] = defaultdict(list)
    for entry, row in zip(by_slice, totals, strict=True):
        rows[entry["patient_id"]].append(row)
    return {
        patient_id: {"num_slices": len(rows[patient_id])}
        | summarize(np.sum(rows[patient_id], axis=0).tolist())
        for patient_id in sorted(rows)
    }


def _slices_to_draw(by_slice: Sequence[dict[str, Any]]) -> list[str]:
    """Chooses the worst, the middle and the best of the slices that show lung, or are said to."""
    shows_lung = [e for e in by_slice if e["mask_area_px"] or e["predicted_area_px"]]
    ranked = sorted(shows_lung or by_slice, key=lambda e: (e["dice"], e["slice_id"]))
    count, middle = NUM_PICTURES_OF_A_KIND, len(ranked) // 2
    chosen = [*ranked[:count], *ranked[middle : middle + count], *ranked[-count:]]
    return list(dict.fromkeys(entry["slice_id"] for entry in chosen))


def _write_mask(folder: Path, prediction: Prediction) -> None:
    pixels = prediction.predicted_mask[:, :, np.newaxis] * np.uint8(MASK_FILE_FOREGROUND)
    with whole_file(folder / f"{prediction.slice_id}.png") as aside:
        tf.io.write_file(str(aside), tf.io.encode_png(pixels))
