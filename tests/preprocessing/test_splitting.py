from collections import Counter
from pathlib import Path

import pytest

from preprocessing.config import TfrecordsConfig
from preprocessing.errors import PreprocessingError
from preprocessing.splitting import assign_splits, find_patients, read_patients, sort_by_hash


def make_config(**changes):
    folders = {"images": Path("images"), "masks": Path("masks"), "out": Path("out")}
    return TfrecordsConfig(**folders | changes)


def patients_of(*slice_ids, **changes):
    found = find_patients(slice_ids, config=make_config(**changes))
    return [found.by_slice_id.get(slice_id) for slice_id in slice_ids], found.source


@pytest.mark.parametrize(
    ("slice_id", "patient_id"),
    [
        ("LCTSC-Test-S1-101_z012", "LCTSC-Test-S1-101"),
        ("ID_0001_Z_0142", "ID_0001"),
        ("site/P1_z3", "P1"),
        ("A_z1_z2", "A_z1"),
    ],
)
def test_default_reads_the_patient_from_the_name(slice_id, patient_id):
    assert patients_of(slice_id) == ([patient_id], "names")


@pytest.mark.parametrize(
    "slice_ids",
    [("P1/001", "P2/001"), ("P1/001", "P1/002", "P2/001"), ("P1/a/001", "P2/a/001", "P2/a/002")],
)
def test_default_reads_the_patient_from_folders_of_patients(slice_ids):
    expected = [slice_id.split("/")[0] for slice_id in slice_ids]
    assert patients_of(*slice_ids) == (expected, "folders")


@pytest.mark.parametrize(
    ("slice_ids", "first", "second"),
    [
        (("2019/P1/1", "2019/P2/1", "2020/P1/1"), "2019, 2020", "P1, P2"),
        (("P1/ser1/1", "P1/ser2/1", "P2/ser1/1"), "P1, P2", "ser1, ser2"),
        (("Mueller/ser1/1", "Mueller/ser2/1"), "Mueller", "ser1, ser2"),
        (("ct/P1/1", "ct/P2/1", "ct/P2/2"), "ct", "P1, P2"),
    ],
)
def test_folders_of_folders_are_not_guessed_at(slice_ids, first, second):
    with pytest.raises(
        PreprocessingError,
        match=f"cannot tell which folders are patients: .*, such as {slice_ids[0]}; .*"
        f"folders if each of {first} is a patient, or .* if each of {second} is one",
    ):
        patients_of(*slice_ids)
    assert patients_of(*slice_ids, patient_pattern="folders") == (
        [slice_id.split("/")[0] for slice_id in slice_ids],
        "folders",
    )


@pytest.mark.parametrize(
    "slice_ids",
    [
        ("all/P1_z1", "all/P1_z2", "all/P2_z1"),
        ("P1/P1_z1", "P2/P2_z1", "P2/P2_z2"),
        ("site/P1/P1_z1", "site/P2/P2_z1"),
        ("P1/ser1/P1_z1", "P1/ser2/P1_z2", "P2/ser1/P2_z1"),
    ],
)
def test_names_come_before_folders_where_they_agree(slice_ids):
    expected = [slice_id.split("/")[-1].split("_")[0] for slice_id in slice_ids]
    assert patients_of(*slice_ids) == (expected, "names")


@pytest.mark.parametrize(
    "slice_ids",
    [
        ("P1/scan_z1", "P1/scan_z2", "P2/scan_z1"),  # one name in two folders
        ("P1/study1_z1", "P1/study2_z1", "P2/study3_z1"),  # two names in one folder
        ("2019/P1_z1", "2020/P1_z1", "2020/P2_z1"),
        ("P1_z1", "more/P1_z2", "more/P2_z1"),
    ],
)
def test_names_and_folders_that_disagree_are_not_guessed_at(slice_ids):
    with pytest.raises(
        PreprocessingError,
        match="names and folders tell different patients .*; expected one answer; pass "
        "--patient-pattern names if names are right, --patient-pattern folders if each of",
    ):
        patients_of(*slice_ids)
    assert patients_of(*slice_ids, patient_pattern="names")[1] == "names"


def test_spellings_of_a_patient_are_one():
    assert patients_of("P1_z1", "p1_z2", "P1_z3") == (["P1", "P1", "P1"], "names")


def test_pattern_of_ones_own_sees_the_folder():
    pattern = "^(?P<patient_id>[^/]+)/"
    assert patients_of("P1/001", "P2/001", patient_pattern=pattern) == (
        ["P1", "P2"],
        "--patient-pattern",
    )


def test_names_without_patient_give_none():
    assert patients_of("1", "2") == ([None, None], "nothing")
    assert patients_of("all/1", "all/2") == ([None, None], "nothing")


def test_only_who_splits_is_offered_a_split_by_slice():
    hint = "; or pass --split-by slice and do not trust the metrics"
    with pytest.raises(PreprocessingError, match=f"that reads all of them{hint}$"):
        patients_of("P1_z1", "x")
    with pytest.raises(PreprocessingError, match="that reads all of them$"):
        read_patients(["P1_z1", "x"], pattern="auto")


@pytest.mark.parametrize(
    ("slice_ids", "pattern", "message"),
    [
        (("P1_z1", "x", "y"), "auto", "2 of 3 slices tell no patient by --patient-pattern auto: x"),
        (("P1/1", "P2/2", "3"), "auto", "1 of 3 slices tell no patient by .* auto: 3; expected"),
        (("P1/1", "3"), "folders", "1 of 2 slices tell no patient by .* folders: 3; expected"),
        (("1", "P1_z1"), "names", "1 of 2 slices tell no patient by --patient-pattern names: 1"),
        (("1", "2"), "folders", "2 of 2 slices tell no patient by --patient-pattern folders: 1, 2"),
        (("P1_z1",), "^(?P<patient_id>Q.)", "1 of 1 slices tell no patient by"),
    ],
)
def test_names_of_which_not_all_tell_the_patient_are_refused(slice_ids, pattern, message):
    with pytest.raises(PreprocessingError, match=message):
        patients_of(*slice_ids, patient_pattern=pattern)
    assert patients_of(*slice_ids, patient_pattern=pattern, split_by="slice") == (
        [None] * len(slice_ids),
        "nothing",
    )


def split(patients, **changes):
    slice_ids = sorted(patients)
    splits, split_by = assign_splits(slice_ids, patients, config=make_config(**changes))
    return splits, split_by


def test_no_patient_is_in_both_splits_and_validation_has_its_share():
    patients = {f"P{p}_z{z}": f"P{p}" for p in range(20) for z in range(1 + p % 5)}
    for seed in range(50):
        splits, split_by = split(patients, seed=seed)
        assert split_by == "patient"
        assert len({(patients[key], name) for key, name in splits.items()}) == 20
        # The share, and not a whole patient of at most five slices more.
        assert 0.15 * 60 <= Counter(splits.values())["validation"] < 0.15 * 60 + 5


@pytest.mark.parametrize("seed", range(20))
def test_large_patient_stays_in_training_if_smaller_ones_do(seed):
    patients = {f"A_z{z}": "A" for z in range(40)} | {f"B_z{z}": "B" for z in range(14)}
    patients |= {f"C_z{z}": "C" for z in range(6)}
    splits, _ = split(patients, seed=seed)
    assert {splits[key] for key, patient in patients.items() if patient == "A"} == {"train"}
    assert Counter(splits.values())["validation"] in (14, 20)  # 9 are wanted


def test_another_seed_gives_another_split():
    patients = {f"P{p}_z{z}": f"P{p}" for p in range(20) for z in range(3)}
    assert split(patients, seed=0) == split(patients, seed=0)
    assert split(patients, seed=0) != split(patients, seed=1)


def test_training_keeps_a_patient_however_large_the_share():
    patients = {"P1_z1": "P1", "P2_z1": "P2"}
    splits, _ = split(patients, validation_fraction=0.99)
    assert sorted(splits.values()) == ["train", "validation"]


def test_unknown_patients_are_split_by_slice():
    splits, split_by = assign_splits(["1", "2", "3"], {}, config=make_config())
    assert split_by == "slice"
    assert Counter(splits.values()) == {"train": 2, "validation": 1}


def test_split_by_slice_can_be_asked_for():
    patients = {f"P1_z{z}": "P1" for z in range(10)}
    splits, split_by = split(patients, split_by="slice")
    assert split_by == "slice"
    assert Counter(splits.values()) == {"train": 8, "validation": 2}


def test_single_patient_is_refused_with_what_to_do():
    patients = {"P1_z1": "P1", "P1_z2": "P1"}
    with pytest.raises(
        PreprocessingError, match=r"all 2 slices are of one patient, 'P1'.*--split-"
    ):
        split(patients)


def test_single_slice_is_refused():
    with pytest.raises(
        PreprocessingError, match="there is 1 slice with a mask; expected at least 2"
    ):
        assign_splits(["1"], {}, config=make_config())


PATIENTS = {"P1_z1": "P1", "P1_z2": "P1", "P2_z1": "P2"}


def pin(pinned, patients=PATIENTS):
    config = make_config(split_file=Path("split.csv"))
    return assign_splits(sorted(patients), patients, config=config, pinned=pinned)


def test_decided_split_is_kept_whatever_the_share():
    assert pin({"p1": "validation", "p2": "train", "p3": "train"}) == (
        {"P1_z1": "validation", "P1_z2": "validation", "P2_z1": "train"},
        "patient",
    )


def test_patient_without_a_decision_is_named():
    with pytest.raises(
        PreprocessingError,
        match="split.csv does not name 1 that have slices: P2; expected a line for each patient",
    ):
        pin({"p1": "train"})


def test_decision_that_leaves_a_split_empty_is_refused():
    with pytest.raises(
        PreprocessingError, match="leaves the validation split empty: all 2 that have slices"
    ):
        pin({"p1": "train", "p2": "train", "p3": "validation"})


def test_hash_order_is_the_same_everywhere():
    assert sort_by_hash("abcde", salt="0") == ["d", "c", "e", "a", "b"]
