import logging

import numpy as np
import pytest
from PIL import Image

from trainer.config import TrainerConfig
from trainer.evaluation.config import EvaluationConfig
from trainer.evaluation.slices import open_dataset, open_folders

FULL, EMPTY = [[1, 1], [1, 1]], [[0, 0], [0, 0]]


def folder_config(folders, tmp_path, **settings) -> EvaluationConfig:
    out = tmp_path / "out"
    return EvaluationConfig(run=tmp_path, out=out, **folders.settings(), **settings)


def dataset_config(dataset, tmp_path, **settings) -> EvaluationConfig:
    return EvaluationConfig(run=tmp_path, data=dataset, out=tmp_path / "out", **settings)


@pytest.mark.parametrize(
    ("split", "num_slices", "patients"),
    [
        ("train", 10, {"anna", "bela"}),
        ("validation", 5, {"cleo"}),
        ("all", 15, {"anna", "bela", "cleo"}),
    ],
)
def test_split_has_its_slices(dataset, tmp_path, split, num_slices, patients):
    config = dataset_config(dataset, tmp_path, split=split)
    slices = open_dataset(config, path=tmp_path, run_config=None)
    read = list(slices.read())
    assert slices.num_slices == len(read) == num_slices
    assert {labeled.patient_id for labeled in read} == patients
    assert read[0].image.shape == read[0].mask.shape == (40, 40)
    assert slices.origin()["split"] == split
    assert not slices.patients_unknown


@pytest.mark.parametrize(
    ("split", "patients"),
    [
        ("validation", {"anna"}),
        ("train", {"bela", "cleo"}),
        ("all", {"anna", "bela", "cleo"}),
    ],
)
def test_patient_whom_the_run_held_out_is_its_validation_split(dataset, tmp_path, split, patients):
    run_config = TrainerConfig(data=dataset, out=tmp_path, hold_out="anna")
    config = dataset_config(dataset, tmp_path, split=split)
    slices = open_dataset(config, path=tmp_path, run_config=run_config)
    read = list(slices.read())
    assert {labeled.patient_id for labeled in read} == patients
    assert slices.num_slices == len(read) == 5 * len(patients)
    assert slices.origin()["hold_out"] == "anna"
    assert not slices.patients_unknown
    wanted = [read[-1].slice_id]
    assert [labeled.slice_id for labeled in slices.read(wanted)] == wanted


def test_another_dataset_without_that_patient_keeps_its_split(dataset, tmp_path):
    run_config = TrainerConfig(data=dataset, out=tmp_path, hold_out="zoe")
    slices = open_dataset(dataset_config(dataset, tmp_path), path=tmp_path, run_config=run_config)
    assert {labeled.patient_id for labeled in slices.read()} == {"cleo"}
    assert slices.origin()["hold_out"] is None


def test_slices_are_read_again_by_their_ids(dataset, folders, tmp_path):
    config = dataset_config(dataset, tmp_path, split="all")
    slices = open_dataset(config, path=tmp_path, run_config=None)
    wanted = ["bela_z001", "cleo_z004"]
    assert [labeled.slice_id for labeled in slices.read(wanted)] == wanted
    for slice_id in ("P1_z1", "P1_z2", "P2_z1"):
        folders.add(slice_id, marked=FULL, mask=FULL)
    read = open_folders(folder_config(folders, tmp_path)).read(["P2_z1"])
    assert [labeled.slice_id for labeled in read] == ["P2_z1"]


def test_dataset_of_the_run_is_the_default(dataset, tmp_path):
    config = EvaluationConfig(run=tmp_path, out=tmp_path / "out")
    run_config = TrainerConfig(data=dataset, out=tmp_path)
    slices = open_dataset(config, path=tmp_path, run_config=run_config)
    assert slices.origin()["data"] == str(dataset)
    with pytest.raises(ValueError, match="names no dataset to measure it on; give --data"):
        open_dataset(config, path=tmp_path, run_config=None)


def test_folder_that_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no dataset.json"):
        open_dataset(dataset_config(tmp_path, tmp_path), path=tmp_path, run_config=None)


def test_folders_are_paired_and_tell_patients(folders, tmp_path):
    folders.add("P1_z1", marked=FULL, mask=EMPTY)
    folders.add("P2_z1", marked=FULL, mask=FULL)
    slices = open_folders(folder_config(folders, tmp_path))
    read = list(slices.read())
    assert [(labeled.slice_id, labeled.patient_id) for labeled in read] == [
        ("P1_z1", "P1"),
        ("P2_z1", "P2"),
    ]
    assert read[0].image.tolist() == [[80, 80], [80, 80]]
    assert (read[0].mask.max(), read[1].mask.min()) == (0, 1)
    assert slices.origin() == {
        "images": str(folders.images),
        "masks": str(folders.masks),
        "mask_foreground": None,
    }


def test_names_that_tell_no_patient_are_no_error(folders, tmp_path):
    folders.add("first", marked=FULL, mask=FULL)
    slices = open_folders(folder_config(folders, tmp_path))
    assert [labeled.patient_id for labeled in slices.read()] == [""]
    assert slices.patients_unknown == "no name or folder tells whose slice it is"


def test_folders_that_are_not_given_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="there are no slices to measure on; give --images"):
        open_folders(EvaluationConfig(run=tmp_path, out=tmp_path))


def test_file_that_cannot_be_used_is_told_and_left_out(folders, tmp_path, caplog):
    caplog.set_level(logging.WARNING, logger="trainer.evaluation.slices")
    for index in range(100):
        folders.add(f"P1_z{index:03}", marked=FULL, mask=FULL)
    folders.damage("P1_z007")
    slices = open_folders(folder_config(folders, tmp_path))
    assert len(list(slices.read())) == 99
    assert [entry.file for entry in slices.refused] == ["images/P1_z007.png"]
    assert f"refused: {folders.images / 'P1_z007.png'} is a GIF; expected BMP" in caplog.text


def test_more_refused_slices_than_a_job_bears_end_it(folders, tmp_path):
    for index in range(5):
        folders.add(f"P1_z{index}", marked=FULL, mask=FULL)
    folders.damage("P1_z3")
    slices = open_folders(folder_config(folders, tmp_path))
    with pytest.raises(
        ValueError,
        match=r"1 of 5 slices are refused already, more than 1 %: .* Last: .*P1_z3.png is a GIF",
    ):
        list(slices.read())


def test_folders_that_are_swapped_are_asked_about(folders, tmp_path):
    folders.add("P1_z1", marked=FULL, mask=EMPTY)
    Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2)).save(folders.images / "P1_z1.png")
    config = EvaluationConfig(
        run=tmp_path, out=tmp_path / "out", images=folders.masks, masks=folders.images
    )
    with pytest.raises(ValueError, match="are --images and --masks swapped. If not, mend or"):
        list(open_folders(config).read())


def test_patterns_tell_slices_from_masks_in_one_folder(folders, tmp_path):
    folders.add("P1_z1_axial", marked=FULL, mask=FULL)
    (folders.masks / "P1_z1_axial.png").rename(folders.images / "lung_P1_z1.png")
    config = EvaluationConfig(
        run=tmp_path,
        out=tmp_path / "out",
        images=folders.images,
        image_pattern="_axial$",
        mask_pattern="^lung_",
    )
    assert [labeled.slice_id for labeled in open_folders(config).read()] == ["P1_z1"]


def test_slice_without_a_mask_ends_the_job_unless_it_may_be_left_out(folders, tmp_path):
    for slice_id in ("P1_z1", "P1_z2"):
        folders.add(slice_id, marked=FULL, mask=FULL)
    (folders.masks / "P1_z1.png").unlink()
    with pytest.raises(
        ValueError,
        match=r"files without a partner: 1, .* first: .*P1_z1.png has no mask .*--allow-orphans",
    ):
        open_folders(folder_config(folders, tmp_path))
    slices = open_folders(folder_config(folders, tmp_path, allow_orphans=True))
    assert [labeled.slice_id for labeled in slices.read()] == ["P1_z2"]
    assert [entry.file for entry in slices.refused] == ["images/P1_z1.png"]
