import json
from pathlib import Path

import pytest

from trainer.cross_validation.config import CrossValidationConfig


def make(**settings) -> CrossValidationConfig:
    return CrossValidationConfig(data=Path("d"), out=Path("o"), **settings)


def test_fold_runs_all_epochs_without_its_patient():
    config = make(recipe="reference", settings={"epochs": 7, "filters": 4})
    training = config.training("anna")
    assert training.hold_out == "anna"
    assert training.epochs == training.patience == 7
    assert training.filters == 4
    assert training.out == Path("o/fold-anna")
    assert training.data == Path("d")


def test_recipe_of_the_folds_is_the_one_that_is_named():
    assert make(recipe="best").training("anna").loss == "bce_dice"
    assert make().training("anna").loss == "bce"


def test_patient_whose_id_is_a_path_gets_one_folder():
    assert make().fold_dir("a/b") == Path("o/fold-a%2Fb")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("hold_out", "anna", "name some with --folds"),
        ("patience", 3, "it would choose an epoch by the patient who is held out"),
        ("resume", "never", "folds that are there are kept"),
    ],
)
def test_settings_that_cross_validation_sets_itself_are_refused(name, value, reason):
    flag = name.replace("_", "-")
    with pytest.raises(ValueError, match=f"received --{flag} {value}; expected none: .*{reason}"):
        make(settings={name: value})


@pytest.mark.parametrize("folds", [(), ("anna", "anna")])
def test_folds_are_patients_each_once(folds):
    with pytest.raises(ValueError, match="--folds is '.*'; expected patients, each once"):
        make(folds=folds)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flips": "some"}, "--flips is 'some'"),
        ({"scanner_every": 0}, "--scanner-every is 0; expected at least 1"),
        ({"recipe": "worst"}, "--recipe is 'worst'"),
        ({"settings": {"epochs": 0}}, "--epochs is 0"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_figures_depend_on_the_recipe_and_not_on_the_machine():
    one, other = make(), make(settings={"devices": "cpu:2", "cache": "disk"})
    assert one.describe("anna") == other.describe("anna")
    for changed in (
        make(settings={"epochs": 3}),
        make(flips="all"),
        make(postprocess=not one.postprocess),
        make(scanner_every=2),
    ):
        assert one.describe("anna") != changed.describe("anna")
    assert one.describe("anna") != one.describe("bela")
    json.dumps(one.describe("anna"))
