"""How good a model is, measured on the slices as they came: at their own size."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from preprocessing.publish import whole_file, write_text
from preprocessing.spec import MASK_FILE_FOREGROUND
from trainer.evaluation.config import ALL_SPLITS, EvaluationConfig
from trainer.evaluation.intervals import describe_intervals
from trainer.evaluation.models import MeasuredModel, load_measured_model
from trainer.evaluation.results import (
    SliceResult,
    count_slices,
    make_row,
    rows_by_patient,
    summarize_row,
)
from trainer.evaluation.slices import LabeledSlice, Slices, open_dataset, open_folders
from trainer.evaluation.surface import surface_distances
from trainer.figures import Prediction, draw_predictions
from trainer.metrics import slice_totals
from trainer.signature import IMAGE, PROBABILITY_THRESHOLD

logger = logging.getLogger(__name__)

FILENAME = "evaluation.json"
NUM_PICTURES_OF_A_KIND = 2
"""How many of the worst, the median and the best slices are drawn."""

Measured = tuple[LabeledSlice, np.ndarray, SliceResult]
"""A slice, its predicted mask, [height, width] uint8 in {0, 1}, and its figures."""


def evaluate(config: EvaluationConfig) -> dict[str, Any]:
    """Measures a model, slice by slice, keeping the figures of all slices and the pixels of none.

    Masks are compared at the size of the slice, which is what is served; the loss is that
    of training, at the size of the model. What all figures mean: docs/evaluation.md.

    Args:
        config: all settings.

    Returns:
        What is written to ``evaluation.json``: the metrics pooled, by patient and by slice.

    Raises:
        ValueError: if there is no such model, dataset or folder, or too many slices are refused.
        OSError: if the results cannot be written.
    """
    # Folders are looked through first: a wrong one is told at once.
    slices: Slices | None = open_folders(config) if config.images is not None else None
    model = load_measured_model(config)
    if slices is None:
        slices = open_dataset(config, path=model.path, run_config=model.config)
    config.out.mkdir(parents=True, exist_ok=True)  # before hours of measuring, not after
    results = []
    for labeled, predicted_mask, result in _measure(config, model, slices):
        results.append(result)
        if config.write_masks:
            _write_mask(config.out / "predicted_masks", labeled.slice_id, predicted_mask)
    report = _report(config, model, slices, results)
    write_text(config.out / FILENAME, json.dumps(report, indent=2, allow_nan=False) + "\n")
    _draw(config, model, slices, results)
    _log(config, report)
    return report


def _measure(
    config: EvaluationConfig, model: MeasuredModel, slices: Slices, only: Sequence[str] = ()
) -> Iterator[Measured]:
    """Predicts one slice at a time, each at its own size."""
    # Any size: one graph for all of them.
    pixels = tf.TensorSpec(IMAGE.shape, tf.uint8)

    @tf.function(input_signature=[pixels, pixels])
    def predict(image: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        predicted_mask, loss = model.predict(image, mask)
        return predicted_mask, slice_totals(
            mask=mask,
            probability=tf.cast(predicted_mask, tf.float32),
            loss=loss,
            threshold=PROBABILITY_THRESHOLD,
        )

    count = len(only) or slices.num_slices
    for labeled in tqdm(
        slices.read(only), total=count, desc="evaluation", unit="slice", disable=None, leave=False
    ):
        try:
            predicted, totals = predict(
                labeled.image[np.newaxis, :, :, np.newaxis],
                labeled.mask[np.newaxis, :, :, np.newaxis],
            )
        except tf.errors.ResourceExhaustedError as error:
            raise ValueError(
                f"the memory of the device is exhausted by slice {labeled.slice_id}, shape "
                f"{list(labeled.image.shape)}; use a device with more of it, or the CPU "
                "(CUDA_VISIBLE_DEVICES=-1)"
            ) from error
        predicted_mask = predicted[0, :, :, 0].numpy()
        distances = surface_distances(
            mask=labeled.mask,
            predicted_mask=predicted_mask,
            pixel_spacing=config.pixel_spacing_mm or 1.0,
        )
        result = SliceResult(
            slice_id=labeled.slice_id,
            patient_id=labeled.patient_id,
            row=make_row(totals[0].numpy().tolist(), distances),
        )
        yield labeled, predicted_mask, result


def _report(
    config: EvaluationConfig,
    model: MeasuredModel,
    slices: Slices,
    results: Sequence[SliceResult],
) -> dict[str, Any]:
    row = np.sum([result.row for result in results], axis=0)
    patients = rows_by_patient(results)
    return {
        model.flag: str(model.path),
        **slices.origin(),
        "loss": model.config.loss if model.config else None,
        "probability_threshold": PROBABILITY_THRESHOLD,
        "distance_unit": _unit(config),
        "pixel_spacing_mm": config.pixel_spacing_mm,
        "num_patients": None if slices.patients_unknown else len(patients),
        **count_slices(row),
        "num_refused_files": len(slices.refused),
        "overall": summarize_row(row),
        "intervals": describe_intervals(
            patients, summarize_row, patients_unknown=slices.patients_unknown
        ),
        "by_patient": {
            patient_id: count_slices(of_patient) | summarize_row(of_patient)
            for patient_id, of_patient in patients.items()
        },
        "by_slice": [result.figures() for result in results],
        "refused": [{"file": entry.file, "reason": entry.reason} for entry in slices.refused],
    }


def _unit(config: EvaluationConfig) -> str:
    return "px" if config.pixel_spacing_mm is None else "mm"


def _draw(
    config: EvaluationConfig,
    model: MeasuredModel,
    slices: Slices,
    results: Sequence[SliceResult],
) -> None:
    """Draws the worst, the median and the best of the slices that show lung, or are said to."""
    kinds = choose_slices(results)
    drawn = {
        labeled.slice_id: Prediction(
            kind=kinds[labeled.slice_id],
            slice_id=labeled.slice_id,
            image=labeled.image,
            mask=labeled.mask,
            predicted_mask=predicted_mask,
            caption=_caption(result, _unit(config)),
        )
        for labeled, predicted_mask, result in _measure(config, model, slices, list(kinds))
    }
    draw_predictions([drawn[slice_id] for slice_id in kinds], config.out / "predictions.png")


def choose_slices(results: Sequence[SliceResult]) -> dict[str, str]:
    """Chooses slices to draw, by Dice: as many of each kind, and none twice.

    Returns:
        ``worst``, ``median`` or ``best`` by ``slice_id``, from the worst to the best.
    """
    candidates = [result for result in results if result.shows_lung] or results
    ranked = sorted(candidates, key=lambda result: (result.dice, result.slice_id))
    count = max(1, min(NUM_PICTURES_OF_A_KIND, len(ranked) // 3))
    starts = {"median": (len(ranked) - count) // 2, "worst": 0, "best": len(ranked) - count}
    kinds = {start + i: kind for kind, start in starts.items() for i in range(count)}
    return {ranked[index].slice_id: kinds[index] for index in sorted(kinds)}


def _caption(result: SliceResult, unit: str) -> str:
    hausdorff = result.figures()["hausdorff_95"]
    distance = "" if hausdorff is None else f", HD95 {hausdorff:.1f} {unit}"
    return f"Dice {result.dice:.3f}{distance}"


def _write_mask(folder: Path, slice_id: str, predicted_mask: np.ndarray) -> None:
    pixels = predicted_mask[:, :, np.newaxis] * np.uint8(MASK_FILE_FOREGROUND)
    with whole_file(folder / f"{slice_id}.png") as aside:
        tf.io.write_file(str(aside), tf.io.encode_png(pixels))


def _origin(report: dict[str, Any]) -> str:
    if "split" not in report:
        return str(report["images"])
    return "all splits" if report["split"] == ALL_SPLITS else f"{report['split']} split"


def _log(config: EvaluationConfig, report: dict[str, Any]) -> None:
    overall = report["overall"]
    interval = (report["intervals"]["by_metric"] or {}).get("dice_pooled")
    logger.info(
        "%s, %d slices at their own size: Dice %.4f%s, IoU %.4f, accuracy %.4f (pooled); "
        "details in %s",
        _origin(report),
        report["num_slices"],
        overall["dice_pooled"],
        " ({:.4f} to {:.4f} by patient)".format(*interval) if interval else "",
        overall["iou_pooled"],
        overall["accuracy"],
        config.out / FILENAME,
    )
    if not any(entry["predicted_area_px"] for entry in report["by_slice"]):
        logger.warning("THE MODEL MARKS NO LUNG AT ALL, on none of these slices: train it longer")
    if not any(entry["mask_area_px"] for entry in report["by_slice"]):
        logger.warning("NO MASK SHOWS LUNG, so these figures say little: look at the masks")
