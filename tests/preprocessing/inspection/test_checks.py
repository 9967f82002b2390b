import dataclasses
import os

import pytest

from preprocessing.errors import PreprocessingError
from preprocessing.inspection.checks import check_gallery_place, find_problems


def test_whole_dataset_has_no_problem(tiny):
    dataset = tiny.write()
    assert find_problems(tiny.folder, dataset, verify=False) == []
    assert find_problems(tiny.folder, dataset, verify=True) == []


def test_each_missing_shard_is_told_with_its_mend(tiny):
    dataset = tiny.write()
    num_bytes = tiny.path().stat().st_size
    tiny.path().unlink()
    tiny.path("validation").unlink()
    first, second = find_problems(tiny.folder, dataset, verify=False)
    assert first == (
        f"{tiny.path()} is missing; dataset.json lists it with {num_bytes} bytes; "
        "copy the dataset again, or write it again with `make tfrecords`"
    )
    assert second.startswith(f"{tiny.path('validation')} is missing")


def test_truncated_shard_is_told_without_verify(tiny):
    dataset = tiny.write()
    whole = tiny.path().read_bytes()
    tiny.path().write_bytes(whole[:-1])
    (problem,) = find_problems(tiny.folder, dataset, verify=False)
    assert problem.startswith(
        f"{tiny.path()} has {len(whole) - 1} bytes; dataset.json lists it with {len(whole)}; copy"
    )


def test_flipped_bit_is_told_with_verify_only(tiny):
    dataset = tiny.write()
    content = bytearray(tiny.path().read_bytes())
    content[-1] ^= 1
    tiny.path().write_bytes(content)
    assert find_problems(tiny.folder, dataset, verify=False) == []
    (problem,) = find_problems(tiny.folder, dataset, verify=True)
    assert problem.startswith(f"{tiny.path()} has SHA-256 ")
    assert dataset.splits["train"].shards[0].sha256 in problem


def test_patient_in_both_splits_is_told(tiny):
    tiny.add("P_z9", split="validation")
    (problem,) = find_problems(tiny.folder, tiny.write(), verify=False)
    assert "lists patients in both splits, although it says that each is in one: P;" in problem


def test_patient_in_both_splits_is_no_problem_when_split_by_slice(tiny):
    tiny.add("P_z9", split="validation")
    assert find_problems(tiny.folder, tiny.write(split_by="slice"), verify=False) == []


def test_counts_that_contradict_each_other_are_told(tiny):
    dataset = tiny.write()
    train = dataclasses.replace(dataset.splits["train"], num_examples=4)
    changed = dataclasses.replace(dataset, splits={**dataset.splits, "train": train})
    (problem,) = find_problems(tiny.folder, changed, verify=False)
    assert "lists 4 slices of train, but its shards have 3; write" in problem


def test_page_is_not_written_over_a_folder(tiny):
    with pytest.raises(PreprocessingError, match="is a folder; expected a file, such as .*/page.h"):
        check_gallery_place(tiny.folder.parent, dataset_dir=tiny.folder)


@pytest.mark.parametrize("name", ["page.html", "a/../page.html", "b/page.html"])
def test_page_is_not_written_into_the_dataset(tiny, name):
    with pytest.raises(PreprocessingError, match="is inside of the dataset .*; choose a place"):
        check_gallery_place(tiny.folder / name, dataset_dir=tiny.folder)


def test_page_below_a_file_is_refused_before_any_work(tiny, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PreprocessingError, match=r"page.html cannot be written: .*/file is no fol"):
        check_gallery_place(tmp_path / "file" / "page.html", dataset_dir=tiny.folder)


def test_page_in_a_folder_without_rights_is_refused_before_any_work(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PreprocessingError, match="is no folder that you may write to; choose"):
        check_gallery_place(tmp_path / "page.html", dataset_dir=tiny.folder)


def test_page_in_a_new_folder_is_allowed(tiny, tmp_path):
    check_gallery_place(tmp_path / "new" / "newer" / "page.html", dataset_dir=tiny.folder)


def test_shard_that_is_in_both_splits_is_told(tiny):
    dataset = tiny.write()
    train, validation = (dataset.splits[name] for name in ("train", "validation"))
    doubled = dataclasses.replace(
        validation,
        shards=(*validation.shards, train.shards[0]),
        num_examples=validation.num_examples + train.shards[0].num_examples,
    )
    splits = {"train": train, "validation": doubled}
    (problem,) = find_problems(
        tiny.folder, dataclasses.replace(dataset, splits=splits), verify=False
    )
    assert "lists shards twice, so slices are in both splits or count double: train-0000" in problem
