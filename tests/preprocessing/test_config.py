from pathlib import Path

import pytest

from preprocessing.config import TfrecordsConfig


def make_config(**changes):
    folders = {"images": Path("images"), "masks": Path("masks"), "out": Path("out")}
    return TfrecordsConfig(**folders | changes)


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5, float("nan")])
def test_validation_fraction_must_leave_slices_to_both_splits(value):
    with pytest.raises(ValueError, match=rf"validation_fraction {value}; expected a share above 0"):
        make_config(validation_fraction=value)


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_max_refused_fraction_must_be_a_share(value):
    with pytest.raises(ValueError, match=rf"max_refused_fraction {value}; expected a share from 0"):
        make_config(max_refused_fraction=value)


def test_unknown_split_by_is_refused():
    with pytest.raises(ValueError, match="split_by 'scanner'; expected patient or slice"):
        make_config(split_by="scanner")


def test_number_of_shards_must_be_positive():
    with pytest.raises(ValueError, match="num_shards 0; expected at least 1"):
        make_config(num_shards=0)


def test_patient_pattern_must_be_a_regular_expression():
    with pytest.raises(ValueError, match="no regular expression .unterminated"):
        make_config(patient_pattern="([")


def test_patient_pattern_must_have_the_group():
    with pytest.raises(ValueError, match="has no group named patient_id"):
        make_config(patient_pattern=r"(\d+)")


@pytest.mark.parametrize("options", [("--runner=X",), ("--runner", "X")])
def test_runner_among_the_options_of_beam_is_refused(options):
    with pytest.raises(ValueError, match="name the engine before the `--`"):
        make_config(beam_options=options)


def test_options_of_a_dataset_tell_no_place_and_no_engine():
    options = make_config(runner="FlinkRunner", overwrite=True).dataset_options()
    assert sorted(options) == [
        "max_refused_fraction",
        "num_shards",
        "patient_pattern",
        "seed",
        "split_by",
        "validation_fraction",
    ]
