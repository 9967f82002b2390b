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


def test_share_and_split_file_exclude_each_other():
    with pytest.raises(ValueError, match="split_file split.csv and validation_fraction 0.3; expe"):
        make_config(split_file=Path("split.csv"), validation_fraction=0.3)


@pytest.mark.parametrize("values", [(), (0,), (1, 256), (-1,)])
def test_labels_that_are_lung_must_be_gray_values(values):
    with pytest.raises(ValueError, match=r"received mask_foreground \[.*expected gray values from"):
        make_config(mask_foreground=values)


@pytest.mark.parametrize("value", [0, -16, 4097])
def test_size_of_records_must_be_one_that_can_be_read(value):
    with pytest.raises(ValueError, match=f"received image_size {value}; expected height and width"):
        make_config(image_size=value)


def test_unknown_encoding_is_refused():
    with pytest.raises(ValueError, match="received encoding 'jpeg'; expected png or raw"):
        make_config(encoding="jpeg")


@pytest.mark.parametrize(
    ("pattern", "message"), [("([", "no regular expression .unterminated"), ("x*", "finds nothing")]
)
@pytest.mark.parametrize("field", ["image_pattern", "mask_pattern"])
def test_marks_must_find_something(field, pattern, message):
    with pytest.raises(ValueError, match=f"received {field} .*{message}"):
        make_config(**{field: pattern})


def test_masks_lie_among_the_slices_unless_their_folder_is_given():
    assert make_config().mask_folder() == Path("masks")
    assert make_config(masks=None).mask_folder() == Path("images")


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
        "allow_orphans",
        "encoding",
        "image_pattern",
        "image_size",
        "mask_foreground",
        "mask_pattern",
        "max_refused_fraction",
        "num_shards",
        "patient_pattern",
        "seed",
        "split_by",
        "validation_fraction",
    ]
