"""``MODEL_CARD.md``: what a model is, from what it was made, how good it is, and where it ends.

Everything in it is read from the files of the run; it names no patient and no path, as it travels
with the model.
"""

import csv
import dataclasses
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import jinja2

from preprocessing.manifest import DatasetManifest, Split
from preprocessing.publish import write_text
from preprocessing.spec import TRAIN_SPLIT, VALIDATION_SPLIT
from trainer.config import OF_THE_MACHINE, TrainerConfig, describe_recipe
from trainer.history import best_epoch

FILENAME = "MODEL_CARD.md"
LIBRARIES = ("tensorflow", "keras", "numpy")

FEW_PATIENTS = 20
"""Fewer than this, and the card says that intervals by patient are rough."""

METRICS = {
    "dice_pooled": "Dice, pooled",
    "iou_pooled": "IoU, pooled",
    "precision": "precision, pooled",
    "sensitivity": "sensitivity, pooled",
    "specificity": "specificity, pooled",
    "accuracy": "accuracy, pooled",
    "dice_per_slice_mean": "Dice, mean of slices",
    "iou_per_slice_mean": "IoU, mean of slices",
    "hausdorff_95_per_slice_mean": "95 % Hausdorff distance, mean of slices",
    "average_surface_distance_per_slice_mean": "average surface distance, mean of slices",
    "loss": "loss",
}
"""Metrics of ``evaluation.json``, in the order of the card, and their names for people."""


@dataclass(frozen=True, kw_only=True)
class MetricLine:
    """One line of the table of metrics."""

    name: str
    """For people, with the unit."""

    value: str
    """The figure."""

    interval: str
    """Lower and upper end, or that there is none."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One line of the table of settings."""

    flag: str
    """Such as ``--image-size``."""

    value: str
    """In this run."""

    default: str
    """Of the reference recipe; empty if it is the same."""


def write_model_card(run_dir: Path) -> Path:
    """Writes the card of a run that has been evaluated; an older one is replaced.

    Args:
        run_dir: folder of the run, with ``config.json``, ``dataset.json``, ``history.csv`` and
            ``evaluation.json``.

    Returns:
        The card.

    Raises:
        ValueError: if one of the files is missing or of another version.
        OSError: if the card cannot be written.
    """
    config = TrainerConfig.load(run_dir)
    manifest = DatasetManifest.load(run_dir)
    best, num_epochs = _read_history(run_dir / "history.csv")
    evaluation = _read_evaluation(run_dir)
    try:
        card = _template().render(
            config=config,
            settings=_settings(config),
            recipe=describe_recipe(config),
            manifest=manifest,
            data_sha256=manifest.data_sha256(),
            **_splits(config, manifest),
            num_epochs=num_epochs,
            best_epoch=best,
            python=platform.python_version(),
            libraries={name: version(name) for name in LIBRARIES},
            evaluation=evaluation,
            measured_on=_measured_on(evaluation, manifest),
            metrics=_metric_lines(evaluation),
            dices=_dice_by_patient(evaluation["by_patient"]),
            few_patients=FEW_PATIENTS,
        )
    except (KeyError, TypeError, AttributeError, jinja2.UndefinedError) as error:
        raise ValueError(
            f"{run_dir / 'evaluation.json'} is of another version ({error}); {_mend(run_dir)}"
        ) from error
    write_text(run_dir / FILENAME, card)
    return run_dir / FILENAME


def _read_evaluation(run_dir: Path) -> dict[str, Any]:
    path = run_dir / "evaluation.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(
            f"{run_dir} holds no evaluation.json, and a model card without figures says little; "
            f"{_mend(run_dir)}"
        ) from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); {_mend(run_dir)}") from error


def _mend(run_dir: Path) -> str:
    return f"measure the run: `python -m trainer evaluate --run {run_dir} --out {run_dir}`"


def _read_history(path: Path) -> tuple[int, int]:
    """Gives the best epoch and the number of epochs."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [
                {name: float(row[name]) for name in ("epoch", "image_size", "validation_loss")}
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read ({error!r}), so there is no training to describe; restore it, "
            "or train anew in another folder"
        ) from error
    return best_epoch(rows), len(rows)


def _splits(config: TrainerConfig, manifest: DatasetManifest) -> dict[str, Split]:
    """Gives the two splits of the run, which are not those of the dataset if a patient is out."""
    if config.hold_out is None:
        return {name: manifest.splits[name] for name in (TRAIN_SPLIT, VALIDATION_SPLIT)}
    counts = dict(count for split in manifest.splits.values() for count in split.patients.items())
    out = {config.hold_out: counts.pop(config.hold_out)}
    return {
        name: Split(num_examples=sum(patients.values()), patients=patients, shards=())
        for name, patients in ((TRAIN_SPLIT, counts), (VALIDATION_SPLIT, out))
    }


def _settings(config: TrainerConfig) -> list[Setting]:
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    return [
        Setting(
            flag=f"--{name.replace('_', '-')}",
            value=_shown(value),
            default=_shown(defaults[name]) if defaults[name] != value else "",
        )
        for name, value in json.loads(config.recipe_to_json()).items()
        if name not in (*OF_THE_MACHINE, "hold_out")  # who was left out is nobody's business
    ]


def _shown(value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _measured_on(evaluation: Mapping[str, Any], manifest: DatasetManifest) -> str:
    """Tells which slices the figures are of, and whether the model was trained on them."""
    if "split" not in evaluation:
        return "slices in plain folders, which are not part of the dataset above"
    split = evaluation["split"]
    if evaluation["data_sha256"] != manifest.data_sha256():
        return f"{split} split of another dataset, of SHA-256 `{evaluation['data_sha256']}`"
    if split == VALIDATION_SPLIT:
        return "validation split, on which the model was not trained"
    return f"{split} split; **the model was trained on these slices, so the figures flatter it**"


def _metric_lines(evaluation: Mapping[str, Any]) -> list[MetricLine]:
    overall = evaluation["overall"]
    intervals = evaluation["intervals"]["by_metric"] or {}
    lines = []
    for metric, name in METRICS.items():
        is_distance = "distance" in name
        digits = 2 if is_distance else 4
        interval = intervals.get(metric)
        lines.append(
            MetricLine(
                name=f"{name}, {evaluation['distance_unit']}" if is_distance else name,
                value=_number(overall[metric], digits),
                interval=" to ".join(_number(end, digits) for end in interval) if interval else "—",
            )
        )
    return lines


def _number(value: float | None, digits: int) -> str:
    return "undefined" if value is None else f"{value:.{digits}f}"


def _dice_by_patient(by_patient: Mapping[str, Mapping[str, float]]) -> Sequence[str]:
    """Gives the lowest, the median and the highest Dice of a patient, if there are two at least."""
    dices = sorted(figures["dice_pooled"] for name, figures in by_patient.items() if name)
    if len(dices) < 2:
        return ()
    return [_number(value, 4) for value in (dices[0], median(dices), dices[-1])]


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("MODEL_CARD.md.j2")
