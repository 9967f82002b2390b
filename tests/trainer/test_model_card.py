import dataclasses
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from preprocessing.manifest import FILENAME as MANIFEST_FILENAME
from preprocessing.manifest import DatasetManifest
from trainer.config import OF_THE_MACHINE, TrainerConfig, describe_recipe
from trainer.history import COLUMNS, write_history
from trainer.model_card import METRICS, write_model_card

FIGURES = {name: 0.5 for name in METRICS}


@pytest.fixture
def run_dir(dataset, tmp_path) -> Path:
    """The files of a run, without its checkpoints: 10 training slices of 2 patients, 5 of one."""
    folder = tmp_path / "run"
    folder.mkdir()
    config = TrainerConfig(data=dataset, out=folder, image_size=32, filters=4, depth=2)
    (folder / "config.json").write_text(config.to_json())
    shutil.copy(dataset / MANIFEST_FILENAME, folder)
    rows = [
        {**dict.fromkeys(COLUMNS, 0.5), "epoch": float(epoch), "validation_loss": loss}
        for epoch, loss in ((1, 0.4), (2, 0.2), (3, 0.3))
    ]
    write_history(folder / "history.csv", rows)
    write_evaluation(folder)
    return folder


def write_evaluation(folder: Path, **changes: object) -> None:
    report = {
        "run": "/somewhere/run",
        "data": "/somewhere/dataset",
        "data_sha256": DatasetManifest.load(folder).data_sha256(),
        "split": "validation",
        "probability_threshold": 0.5,
        "flips": "horizontal",
        "postprocess": True,
        "distance_unit": "px",
        "num_patients": 1,
        "num_slices": 5,
        "num_slices_with_distances": 4,
        "num_slices_one_mask_empty": 0,
        "num_slices_both_masks_empty": 1,
        "overall": {**FIGURES, "dice_pooled": 0.91234},
        "intervals": {
            "level": 0.95,
            "num_resamples": 2000,
            "num_patients": 1,
            "by_metric": None,
            "reason": "all slices are of one patient",
        },
        "by_patient": {"cleo": {"dice_pooled": 0.91234}},
        **changes,
    }
    (folder / "evaluation.json").write_text(json.dumps(report))


def card_of(run_dir: Path) -> str:
    path = write_model_card(run_dir)
    assert path == run_dir / "MODEL_CARD.md"
    return path.read_text()


def test_card_tells_the_data_and_its_hash(run_dir, dataset):
    card = card_of(run_dir)
    assert "| train | 2 | 10 |" in card
    assert "| validation | 1 | 5 |" in card
    assert "- Split by patient." in card
    assert f"`{DatasetManifest.load(dataset).data_sha256()}`" in card


def write_config(folder: Path, **changes: object) -> None:
    config = dataclasses.replace(TrainerConfig.load(folder), **changes)
    (folder / "config.json").write_text(config.to_json())


def test_card_tells_of_phantoms_where_there_were_any(run_dir):
    assert "phantoms were trained on" not in card_of(run_dir)
    write_config(run_dir, phantom_share=0.5, phantoms=300)
    assert "300 phantoms were trained on, 50 % of the slices of an epoch" in card_of(run_dir)


def test_card_of_a_run_that_left_a_patient_out_tells_its_own_splits_and_not_whom(run_dir):
    everybody = {
        patient: count
        for split in DatasetManifest.load(run_dir).splits.values()
        for patient, count in split.patients.items()
    }
    patient = min(everybody)
    write_config(run_dir, hold_out=patient)
    card = card_of(run_dir)
    total = sum(everybody.values())
    assert f"| train | {len(everybody) - 1} | {total - everybody[patient]} |" in card
    assert f"| validation | 1 | {everybody[patient]} |" in card
    assert "one patient, who was left out on purpose" in card
    assert patient not in card


def test_card_tells_every_setting_and_what_is_not_of_the_reference_recipe(run_dir):
    card = card_of(run_dir)
    assert "| `--filters` | 4 | 64 |" in card
    assert "| `--flip` | horizontal |  |" in card
    assert f"The recipe is {describe_recipe(TrainerConfig.load(run_dir))}." in card
    assert "The recipe is reference" in card
    # Without two paths, the patient left out, and what follows from the machine.
    num_settings = len(vars(TrainerConfig.load(run_dir))) - 3 - len(OF_THE_MACHINE)
    assert card.count("| `--") == num_settings


def test_card_tells_how_training_went(run_dir):
    card = card_of(run_dir)
    assert "- 3 epochs. The weights are those of epoch 2, which has the lowest" in card
    assert "tensorflow 2." in card


def test_card_tells_the_figures_and_why_there_are_no_intervals(run_dir):
    card = card_of(run_dir)
    assert "Measured on the validation split, on which the model was not trained: 5 slices" in card
    assert "of 1 patient, at their own size." in card
    assert "| Dice, pooled | 0.9123 | — |" in card
    assert "| 95 % Hausdorff distance, mean of slices, px | 0.50 | — |" in card
    assert "- No intervals: all slices are of one patient.\n" in card


def test_card_tells_intervals_by_patient(run_dir):
    intervals = {
        "level": 0.95,
        "num_resamples": 2000,
        "num_patients": 3,
        "by_metric": {"dice_pooled": [0.81, 0.95], "loss": None},
        "reason": None,
    }
    by_patient = {
        name: {"dice_pooled": dice} for name, dice in (("a", 0.8), ("b", 0.96), ("c", 0.9))
    }
    write_evaluation(run_dir, intervals=intervals, by_patient=by_patient, num_patients=3)
    card = card_of(run_dir)
    assert "| Dice, pooled | 0.9123 | 0.8100 to 0.9500 |" in card
    assert "| loss | 0.5000 | — |" in card
    assert "- Intervals: 2000 bootstrap draws of 3 patients.\n  So few patients give rough" in card
    assert "0.8000 at worst, 0.9000 in the middle, 0.9600 at best." in card


def test_figure_that_is_undefined_is_said_to_be(run_dir):
    overall = {**FIGURES, "hausdorff_95_per_slice_mean": None}
    write_evaluation(run_dir, overall=overall, distance_unit="mm")
    assert "| 95 % Hausdorff distance, mean of slices, mm | undefined | — |" in card_of(run_dir)


def test_card_says_that_it_is_no_medical_device(run_dir):
    card = card_of(run_dir)
    assert "**This is not a medical device.**" in card
    assert "It is not for diagnosis" in card
    assert "Gray values are not Hounsfield units" in card


def test_card_names_no_patient_and_no_path(run_dir, dataset):
    card = card_of(run_dir)
    for word in ("anna", "cleo", "/somewhere", str(run_dir), str(dataset)):
        assert word not in card


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": "train"}, "train split; **the model was trained on these slices"),
        ({"split": "all"}, "all split; **the model was trained on these slices"),
        ({"data_sha256": "abc"}, "validation split of another dataset, of SHA-256 `abc`"),
    ],
)
def test_card_tells_which_slices_the_figures_are_of(run_dir, changes, words):
    write_evaluation(run_dir, **changes)
    assert words in card_of(run_dir)


def test_card_of_a_run_measured_on_plain_folders(run_dir):
    write_evaluation(run_dir)
    report = json.loads((run_dir / "evaluation.json").read_text())
    del report["split"], report["data_sha256"]
    report["num_patients"] = None
    (run_dir / "evaluation.json").write_text(json.dumps(report))
    card = card_of(run_dir)
    assert "Measured on the slices in plain folders, which are not part of the dataset" in card
    assert "of an unknown number of patients" in card


def test_split_by_slice_is_told_loudly(run_dir):
    manifest = DatasetManifest.load(run_dir)
    splits = {name: replace(split, patients={}) for name, split in manifest.splits.items()}
    manifest = replace(manifest, split_by="slice", splits=splits)
    (run_dir / MANIFEST_FILENAME).write_text(manifest.to_json())
    card = card_of(run_dir)
    assert "| train | unknown | 10 |" in card
    assert "**Slices of one patient may be in both splits, so the figures below flatter" in card


def test_run_without_an_evaluation_is_refused(run_dir):
    (run_dir / "evaluation.json").unlink()
    with pytest.raises(
        ValueError, match="holds no evaluation.json, .*: `python -m trainer evaluate --run .* --out"
    ):
        write_model_card(run_dir)


def test_damaged_evaluation_is_refused(run_dir):
    (run_dir / "evaluation.json").write_text("{")
    with pytest.raises(ValueError, match=r"evaluation.json is not JSON .*; measure the run: `pyth"):
        write_model_card(run_dir)


@pytest.mark.parametrize("name", ["overall", "by_patient", "num_slices", "intervals"])
def test_evaluation_of_another_version_is_refused(run_dir, name):
    report = json.loads((run_dir / "evaluation.json").read_text())
    del report[name]
    (run_dir / "evaluation.json").write_text(json.dumps(report))
    with pytest.raises(ValueError, match=rf"evaluation.json is of another version \(.*{name}"):
        write_model_card(run_dir)


def test_run_without_a_history_is_refused(run_dir):
    (run_dir / "history.csv").unlink()
    with pytest.raises(ValueError, match=r"history.csv cannot be read .*there is no training to"):
        write_model_card(run_dir)


def test_card_of_a_real_run(trained_run, tmp_path):
    shutil.copytree(trained_run, tmp_path / "run")
    lines = card_of(tmp_path / "run").splitlines()
    assert lines[0].startswith("# Model card")
    assert all(len(line) <= 160 for line in lines)
    assert not any("{" in line or "None" in line for line in lines)
