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
from preprocessing.spec import MASK_FILE_FOREGROUND, VALIDATION_SPLIT
from trainer.evaluation.config import ALL_SPLITS, EvaluationConfig
from trainer.evaluation.intervals import describe_intervals
from trainer.evaluation.models import MeasuredModel, load_measured_model
from trainer.evaluation.results import (
    LUNG_DICE,
    Row,
    SliceResult,
    count_slices,
    make_row,
    rows_by_patient,
    summarize_row,
    totals_of_row,
)
from trainer.evaluation.scanners import ALL_SCANNERS, SimulatedSlices, check_scanner
from trainer.evaluation.slices import LabeledSlice, Slices, open_dataset, open_folders
from trainer.evaluation.surface import surface_distances
from trainer.figures import Prediction, draw_predictions
from trainer.metrics import slice_totals
from trainer.postprocessing import clean_mask
from trainer.signature import IMAGE, PROBABILITY_THRESHOLD
from trainer.simulated_scanners import SCANNERS
from trainer.test_time import flipped, mean_of_flips

logger = logging.getLogger(__name__)

FILENAME = "evaluation.json"
MASKS_FOLDER = "predicted_masks"
NUM_PICTURES_OF_A_KIND = 2
"""How many of the worst, the median and the best slices are drawn."""

_PIXELS = tf.TensorSpec(IMAGE.shape, tf.uint8)
"""Slices or masks of any size: one graph for all of them."""

Measured = tuple[LabeledSlice, np.ndarray, SliceResult]
"""A slice, its predicted mask, [height, width] uint8 in {0, 1}, and its figures."""


def evaluate(config: EvaluationConfig) -> dict[str, Any]:
    """Measures a model, slice by slice, keeping the figures of all slices and the pixels of none.

    Masks are compared at the size of the slice, which is what is served, after flips and cleaning
    where these are asked for; the loss is that of training, of the slice as it is, at the size of
    the model. What all figures mean: docs/evaluation.md.

    Args:
        config: all settings.

    Returns:
        What is written to ``evaluation.json``: the metrics pooled, by patient and by slice.

    Raises:
        ValueError: if there is no such model, dataset or folder, or too many slices are refused.
        OSError: if the results cannot be written.
    """
    check_scanner(config.scanner)
    # Folders are looked through first: a wrong one is told at once.
    slices: Slices | None = open_folders(config) if config.images is not None else None
    model = load_measured_model(config)
    if slices is None:
        slices = open_dataset(config, path=model.path, run_config=model.config)
    if config.scanner is not None and config.scanner != ALL_SCANNERS:
        slices = SimulatedSlices(slices, config.scanner, every=config.scanner_every)
    config.out.mkdir(parents=True, exist_ok=True)  # before hours of measuring, not after
    results = []
    for labeled, predicted_mask, result in _measure(config, model, slices):
        results.append(result)
        if config.write_masks:
            _write_mask(config.out / MASKS_FOLDER, labeled.slice_id, predicted_mask)
    report = _report(config, model, slices, results)
    if config.scanner == ALL_SCANNERS:
        report["by_scanner"] = _by_scanner(config, model, slices)
    write_text(config.out / FILENAME, json.dumps(report, indent=2, allow_nan=False) + "\n")
    _draw(config, model, slices, results)
    _log(config, report)
    return report


def _measure(
    config: EvaluationConfig, model: MeasuredModel, slices: Slices, only: Sequence[str] = ()
) -> Iterator[Measured]:
    """Predicts one slice at a time, each at its own size."""
    predict = tf.function(model.predict, input_signature=[_PIXELS, _PIXELS], autograph=False)
    count = len(only) or slices.num_slices
    for labeled in tqdm(
        slices.read(only), total=count, desc="evaluation", unit="slice", disable=None, leave=False
    ):
        try:
            probabilities, losses = predict(
                flipped(labeled.image, config.flips)[..., np.newaxis],
                flipped(labeled.mask, config.flips)[..., np.newaxis],
            )
        except tf.errors.ResourceExhaustedError as error:
            raise ValueError(
                f"the memory of the device is exhausted by slice {labeled.slice_id}, shape "
                f"{list(labeled.image.shape)}; use a device with more of it, or the CPU "
                "(CUDA_VISIBLE_DEVICES=-1)"
            ) from error
        probability = mean_of_flips(probabilities.numpy()[..., 0], config.flips)
        predicted_mask = (probability >= PROBABILITY_THRESHOLD).astype(np.uint8)
        if config.postprocess:
            predicted_mask = clean_mask(predicted_mask, labeled.image)
        totals = _totals_of(
            labeled.mask[np.newaxis, :, :, np.newaxis],
            predicted_mask[np.newaxis, :, :, np.newaxis],
            losses[:1],  # of the slice as it came
        )
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


@tf.function(input_signature=[_PIXELS, _PIXELS, tf.TensorSpec([None], tf.float32)], autograph=False)
def _totals_of(mask: tf.Tensor, predicted_mask: tf.Tensor, loss: tf.Tensor) -> tf.Tensor:
    return slice_totals(
        mask=mask,
        probability=tf.cast(predicted_mask, tf.float32),
        loss=loss,
        threshold=PROBABILITY_THRESHOLD,
    )


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
        "flips": config.flips,
        "postprocess": config.postprocess,
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
            patient_id: _figures_of(of_patient) for patient_id, of_patient in patients.items()
        },
        "by_slice": [result.figures() for result in results],
        "refused": [{"file": entry.file, "reason": entry.reason} for entry in slices.refused],
    }


def _figures_of(row: Row) -> dict[str, Any]:
    return {**count_slices(row), **summarize_row(row), "totals": totals_of_row(row)}


def _by_scanner(
    config: EvaluationConfig, model: MeasuredModel, slices: Slices
) -> dict[str, dict[str, Any]]:
    """Measures the same slices as each simulated scanner would have them."""
    figures = {}
    for number, name in enumerate(SCANNERS, 1):
        simulated = SimulatedSlices(slices, name, every=config.scanner_every)
        measured = _measure(config, model, simulated)
        rows = rows_by_patient([result for _, _, result in measured])
        overall = summarize_row(np.sum(list(rows.values()), axis=0))
        figures[name] = {
            "overall": overall,
            "by_patient": {patient_id: _figures_of(row) for patient_id, row in rows.items()},
        }
        dice = overall[LUNG_DICE]
        logger.info(
            "simulated scanner %d of %d, %s: Dice %s, mean of slices with lung",
            *(number, len(SCANNERS), name, "undefined" if dice is None else f"{dice:.4f}"),
        )
    return figures


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
    through = f" through {report['scanner']}" if "scanner" in report else ""
    if "split" not in report:
        return f"{report['images']}{through}"
    if report["split"] == ALL_SPLITS:
        return f"all splits{through}"
    patient = "" if report["hold_out"] is None else f" without {report['hold_out']}"
    if patient and report["split"] == VALIDATION_SPLIT:
        patient = f" (patient {report['hold_out']})"
    return f"{report['split']} split{patient}{through}"


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
