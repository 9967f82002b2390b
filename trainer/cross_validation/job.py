"""Leave-one-patient-out: how good a recipe is on patients whom nothing was learned or chosen on."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from preprocessing.manifest import DatasetManifest
from preprocessing.publish import write_text
from preprocessing.spec import VALIDATION_SPLIT
from trainer import train
from trainer.checkpoints import Progress, last_checkpoint, read_progress
from trainer.config import TrainerConfig, describe_recipe
from trainer.cross_validation.config import CrossValidationConfig
from trainer.cross_validation.summary import summarize_reports
from trainer.cross_validation.table import make_tables, number
from trainer.distribution import is_alone
from trainer.evaluation.config import EvaluationConfig
from trainer.evaluation.job import FILENAME as EVALUATION_FILENAME
from trainer.evaluation.job import MASKS_FOLDER, evaluate
from trainer.evaluation.results import FALSE_LUNG, LUNG_DICE
from trainer.evaluation.scanners import ALL_SCANNERS
from trainer.evaluation.slices import DatasetSlices
from trainer.figures import Prediction, draw_predictions
from trainer.simulated_scanners import SCANNERS

logger = logging.getLogger(__name__)

FILENAME, TABLES_FILENAME = "cross_validation.json", "cross_validation.md"
FOLD_FILENAME = "fold.json"
"""Settings of a fold; it is written last, so a fold without it is not finished."""

MEASURED_FOLDER = "last_epoch"
"""Where in the folder of a fold the figures of its last epoch are."""

WORST_FILENAME = "worst.png"
NUM_WORST = 6
MIN_PATIENTS = 2


def cross_validate(config: CrossValidationConfig) -> dict[str, Any]:
    """Trains once for each patient, without that patient, and measures the last epoch on them.

    Nothing depends on the patient who is left out: there is no early stopping, and it is the last
    epoch that is measured, not the best. Folds that are finished are kept, and the one that was
    under way goes on.

    Args:
        config: all settings.

    Returns:
        What is written to ``cross_validation.json``, from all folds that are finished.

    Raises:
        ValueError: if there are too few patients, not those who are named, or several workers; or
            as ``trainer.train.run``.
        FloatingPointError, KeyboardInterrupt: as ``trainer.train.run``.
        OSError: if the results cannot be written.
    """
    if not is_alone():
        raise ValueError(
            "the environment describes several workers (TF_CONFIG, or NUM_WORKERS), which train "
            "one run together; expected one: give each machine other --folds instead"
        )
    manifest = DatasetManifest.load(config.data)
    patients = _patients_of(manifest, config.data)
    chosen = _chosen(config, patients)
    for place, patient_id in enumerate(chosen, 1):
        logger.info("fold %d of %d: without patient %s", place, len(chosen), patient_id)
        _run_fold(config, manifest, patient_id)
    finished = [patient for patient in patients if _is_finished(config, manifest, patient)]
    report = _report(config, manifest, finished, missing=sorted({*patients} - {*finished}))
    write_text(config.out / FILENAME, json.dumps(report, indent=2, allow_nan=False) + "\n")
    write_text(config.out / TABLES_FILENAME, make_tables(report))
    _log(config, report)
    return report


def _patients_of(manifest: DatasetManifest, data: Path) -> list[str]:
    """Gives the patients of all splits.

    Raises:
        ValueError: if it is not known whose the slices are, or there is one patient only.
    """
    patients = {patient for split in manifest.splits.values() for patient in split.patients}
    if "" in patients or not patients:
        raise ValueError(
            f"the dataset {data} does not tell whose slices it has, so no patient can be left out; "
            "write it again with --patient-pattern"
        )
    if len(patients) < MIN_PATIENTS:
        raise ValueError(
            f"the dataset {data} has one patient, {min(patients)}; expected at least "
            f"{MIN_PATIENTS}: one to leave out, the others to train on"
        )
    return sorted(patients)


def _chosen(config: CrossValidationConfig, patients: Sequence[str]) -> Sequence[str]:
    unknown = sorted({*(config.folds or ())} - {*patients})
    if unknown:
        raise ValueError(
            f"--folds names {', '.join(unknown)}, of whom the dataset {config.data} has no slice; "
            f"expected some of {', '.join(patients)}"
        )
    return patients if config.folds is None else config.folds


def _run_fold(config: CrossValidationConfig, manifest: DatasetManifest, patient_id: str) -> None:
    if _is_finished(config, manifest, patient_id):
        logger.info("%s is finished, and kept", config.fold_dir(patient_id))
        return
    training = config.training(patient_id)
    train.run(training, is_measured=False)
    out = training.out / MEASURED_FOLDER
    report = evaluate(
        EvaluationConfig(
            checkpoint=_checkpoint_of_last_epoch(training),
            data=config.data,
            out=out,
            scanner=ALL_SCANNERS,
            scanner_every=config.scanner_every,
            flips=config.flips,
            postprocess=config.postprocess,
            write_masks=True,
        )
    )
    slices = DatasetSlices(config.data, manifest, VALIDATION_SPLIT, hold_out=patient_id)
    _draw_worst(report, slices, out)
    settings = _settings(config, manifest, patient_id)
    write_text(training.out / FOLD_FILENAME, json.dumps(settings, indent=2) + "\n")


def _settings(
    config: CrossValidationConfig, manifest: DatasetManifest, patient_id: str
) -> dict[str, Any]:
    return {
        **config.describe(patient_id),
        "data_sha256": manifest.data_sha256(),
        "scanners": list(SCANNERS),
    }


def _is_finished(config: CrossValidationConfig, manifest: DatasetManifest, patient_id: str) -> bool:
    """Tells whether a fold was trained and measured with these settings, on these data."""
    try:
        text = (config.fold_dir(patient_id) / FOLD_FILENAME).read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return bool(json.loads(text) == _settings(config, manifest, patient_id))


def _checkpoint_of_last_epoch(training: TrainerConfig) -> Path:
    """Gives the checkpoint after the last epoch.

    Raises:
        ValueError: if the run has more epochs than are asked for.
    """
    folder = last_checkpoint(training.out)
    progress = read_progress(folder) if folder else Progress()
    if folder is None or len(progress.rows) != training.epochs:
        raise ValueError(
            f"{training.out} was trained for {len(progress.rows)} epochs; expected "
            f"{training.epochs}: give as many --epochs, or another --out"
        )
    return folder


def _draw_worst(report: Mapping[str, Any], slices: DatasetSlices, out: Path) -> None:
    """Draws the slices with the lowest Dice, of those that show lung or are said to."""
    candidates = [
        entry for entry in report["by_slice"] if entry["mask_area_px"] or entry["predicted_area_px"]
    ]
    ranked = sorted(candidates, key=lambda entry: (entry["dice"], entry["slice_id"]))[:NUM_WORST]
    if not ranked:
        return
    labeled = {each.slice_id: each for each in slices.read([entry["slice_id"] for entry in ranked])}
    draw_predictions(
        [
            Prediction(
                kind=f"worst, {place}",
                slice_id=entry["slice_id"],
                image=labeled[entry["slice_id"]].image,
                mask=labeled[entry["slice_id"]].mask,
                predicted_mask=_read_mask(out / MASKS_FOLDER / f"{entry['slice_id']}.png"),
                caption=f"Dice {entry['dice']:.3f}",
            )
            for place, entry in enumerate(ranked, 1)
        ],
        out / WORST_FILENAME,
    )


def _read_mask(path: Path) -> np.ndarray:
    with Image.open(path) as file:
        return (np.asarray(file) > 0).astype(np.uint8)


def _report(
    config: CrossValidationConfig,
    manifest: DatasetManifest,
    finished: Sequence[str],
    *,
    missing: Sequence[str],
) -> dict[str, Any]:
    reports = [
        json.loads(
            (config.fold_dir(patient) / MEASURED_FOLDER / EVALUATION_FILENAME).read_text("utf-8")
        )
        for patient in finished
    ]
    training = config.recipe_config()
    settings = config.describe("")
    del settings["training"]["hold_out"], settings["training"]["patience"]
    return {
        "data": str(config.data),
        "data_sha256": manifest.data_sha256(),
        "recipe": describe_recipe(training),
        "epochs": training.epochs,
        "measured": "the weights after the last epoch; nothing was chosen on the patient left out",
        **settings,
        "distance_unit": reports[0]["distance_unit"],
        "folds_missing": list(missing),
        **summarize_reports(reports),
    }


def _log(config: CrossValidationConfig, report: Mapping[str, Any]) -> None:
    for patient_id, figures in report["by_patient"].items():
        logger.info(
            "without %s: Dice %s on slices with lung, false lung on %d of %d slices without",
            patient_id,
            number(figures[LUNG_DICE], 4),
            figures["num_slices_with_false_lung"],
            figures["num_slices"] - figures["num_slices_with_lung"],
        )
    mean, intervals, scanners = report["mean_of_patients"], report["intervals"], report["scanners"]
    logger.info(
        "mean of %d patients: Dice %s on slices with lung, false lung %s %% of the pixels of "
        "slices without; simulated scanners: Dice %s in the mean, %s at the worst (%s); details "
        "in %s",
        report["num_patients"],
        number(mean[LUNG_DICE], 4, interval=intervals[LUNG_DICE]),
        number(mean[FALSE_LUNG], 3, factor=100, interval=intervals[FALSE_LUNG]),
        number(scanners["mean"], 4, interval=scanners["interval"]),
        number(scanners["worst_dice"], 4),
        scanners["worst"],
        config.out / TABLES_FILENAME,
    )
    if report["folds_missing"]:
        logger.warning("not run yet: %s", ", ".join(report["folds_missing"]))
