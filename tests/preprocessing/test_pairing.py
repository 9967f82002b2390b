import os
from collections import Counter
from pathlib import Path

import pytest

from preprocessing.config import TfrecordsConfig
from preprocessing.errors import PreprocessingError
from preprocessing.pairing import (
    FoundFile,
    FoundFiles,
    assign_splits,
    find_files,
    find_patients,
    pair_files,
    shorten,
    sort_by_hash,
)

NOWHERE = Path("/nowhere")


def make_config(**changes):
    folders = {"images": Path("images"), "masks": Path("masks"), "out": Path("out")}
    return TfrecordsConfig(**folders | changes)


def find(folder, *, leave_out=NOWHERE):
    return find_files(folder, flag="--images", leave_out=leave_out)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"12345")


def make_found(*slice_ids):
    files = {key: FoundFile(path=f"{key}.bmp", num_bytes=5) for key in slice_ids}
    return FoundFiles(by_slice_id=files, skipped=())


def test_files_are_found_in_subfolders_and_named_without_extension(tmp_path):
    touch(tmp_path, "b.bmp", "a/c.PNG", "a/d.x.bmp", ".hidden.bmp", ".git/e.bmp", "notes.txt")
    found = find(tmp_path)
    assert list(found.by_slice_id) == ["a/c", "a/d.x", "b"]
    assert found.by_slice_id["a/c"] == FoundFile(path="a/c.PNG", num_bytes=5)
    assert found.skipped == ("notes.txt",)


def test_masks_below_the_slices_are_not_slices(tmp_path):
    touch(tmp_path, "a.bmp", "masks/a.bmp")
    assert list(find(tmp_path, leave_out=tmp_path / "masks").by_slice_id) == ["a"]


def test_links_to_folders_are_told_and_not_followed(tmp_path):
    touch(tmp_path, "a.bmp")
    (tmp_path / "loop").symlink_to(tmp_path)
    found = find(tmp_path)
    assert (list(found.by_slice_id), found.skipped) == (["a"], ("loop/",))


def test_link_to_nowhere_is_found_and_left_to_the_worker_to_refuse(tmp_path):
    (tmp_path / "a.bmp").symlink_to(tmp_path / "gone")
    found = find_files(tmp_path, flag="--images", leave_out=tmp_path / "masks")
    assert found.by_slice_id == {"a": FoundFile(path="a.bmp", num_bytes=0)}


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(
        PreprocessingError, match=r"--images .*/none does not exist; expected a fol"
    ):
        find(tmp_path / "none")


def test_file_in_place_of_a_folder_is_named(tmp_path):
    touch(tmp_path, "a.bmp")
    with pytest.raises(PreprocessingError, match=r"--images .*/a.bmp is a file; expected a folder"):
        find(tmp_path / "a.bmp")


def test_folder_without_slices_says_what_it_holds(tmp_path):
    with pytest.raises(PreprocessingError, match=r"holds no BMP or PNG file \(it is empty\)"):
        find(tmp_path)
    touch(tmp_path, "a.dcm", "b.dcm")
    with pytest.raises(PreprocessingError, match=r"holds no BMP or PNG file \(it holds a.dcm, b"):
        find(tmp_path)


def test_two_files_of_one_name_are_both_named(tmp_path):
    touch(tmp_path, "p/a.bmp", "p/a.png")
    with pytest.raises(PreprocessingError, match=r"holds both p/a.bmp and p/a.png; expected one"):
        find(tmp_path)


def test_name_that_is_not_utf8_is_named(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff.bmp", "wb"):
        pass
    with pytest.raises(PreprocessingError, match=r"a file whose name is not UTF-8: '.udcff.bmp'"):
        find(tmp_path)


def test_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    def deny(*_):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(PermissionError, match="Permission denied"):
        find(tmp_path)


def test_equal_names_make_a_pair_and_the_rest_is_refused():
    pairs, refused = pair_files(make_found("a", "b", "c"), make_found("b", "c", "d"))
    assert [(pair.slice_id, pair.image_path, pair.num_bytes) for pair in pairs] == [
        ("b", "b.bmp", 10),
        ("c", "c.bmp", 10),
    ]
    assert [(entry.file, entry.reason) for entry in refused] == [
        ("images/a.bmp", "has no mask a.bmp below --masks; add it or remove the slice"),
        ("masks/d.bmp", "has no slice d.bmp below --images; add it or remove the mask"),
    ]


def test_no_pair_at_all_shows_a_name_of_each_side():
    with pytest.raises(
        PreprocessingError, match=r"none of 2 slices .such as a.bmp. has the name of .*a_mask.bmp"
    ):
        pair_files(make_found("a", "b"), make_found("a_mask"))


@pytest.mark.parametrize(
    ("slice_id", "patient_id"),
    [
        ("LCTSC-Test-S1-101_z012", "LCTSC-Test-S1-101"),
        ("ID_0001_Z_0142", "ID_0001"),
        ("site/P1_z3", "P1"),
        ("A_z1_z2", "A_z1"),
    ],
)
def test_default_pattern_reads_the_patient(slice_id, patient_id):
    assert find_patients([slice_id], config=make_config()) == {slice_id: patient_id}


def test_pattern_of_ones_own_sees_the_folder():
    config = make_config(patient_pattern="^(?P<patient_id>[^/]+)/")
    assert find_patients(["P1/001", "P2/001"], config=config) == {"P1/001": "P1", "P2/001": "P2"}


def test_names_without_patient_give_none():
    assert find_patients(["1", "2"], config=make_config()) == {}


def test_names_of_which_some_tell_the_patient_are_refused():
    with pytest.raises(PreprocessingError, match=r"2 of 3 slice names do not match .*: x, y; expe"):
        find_patients(["P1_z1", "x", "y"], config=make_config())


def test_pattern_of_ones_own_that_reads_nothing_is_refused():
    config = make_config(patient_pattern="^(?P<patient_id>Q.)")
    with pytest.raises(PreprocessingError, match="1 of 1 slice names do not match"):
        find_patients(["P1_z1"], config=config)


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


def test_hash_order_is_the_same_everywhere():
    assert sort_by_hash("abcde", salt="0") == ["d", "c", "e", "a", "b"]


def test_long_lists_are_shortened():
    assert shorten(["a", "b", "c"]) == "a, b, c"
    assert shorten(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
