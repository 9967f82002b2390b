import pytest

from preprocessing.errors import PreprocessingError
from preprocessing.framing import DamagedShardError, write_record
from preprocessing.inspection.scan import measure_slices, read_again


def test_all_slices_are_measured_with_their_place(tiny):
    measured = measure_slices(tiny.folder, tiny.write())
    assert [(e.slice_id, e.patient_id, e.split, e.shard, e.record_index) for e in measured] == [
        ("P_z0", "P", "train", "train-00000-of-00001.tfrecord", 0),
        ("P_z1", "P", "train", "train-00000-of-00001.tfrecord", 1),
        ("P_z2", "P", "train", "train-00000-of-00001.tfrecord", 2),
        ("Q_z0", "Q", "validation", "validation-00000-of-00001.tfrecord", 0),
    ]
    assert {entry.measures.lung_area_px for entry in measured} == {8 * 4}


def test_chosen_slices_are_read_again(tiny):
    measured = measure_slices(tiny.folder, tiny.write())
    again = list(read_again(tiny.folder, [measured[3], measured[1]]))
    assert [(entry.slice_id, example.slice_id) for entry, example in again] == [
        ("P_z1", "P_z1"),
        ("Q_z0", "Q_z0"),
    ]


def test_record_that_is_no_slice_is_told_with_its_place(tiny):
    tiny.slices["train"].insert(1, ("P", b"no example"))
    dataset = tiny.write()
    with pytest.raises(PreprocessingError, match=r"train-00000-.*, record 1: the record .*; write"):
        measure_slices(tiny.folder, dataset)


def test_damaged_shard_is_told(tiny):
    dataset = tiny.write()
    content = bytearray(tiny.path().read_bytes())
    content[40] ^= 1
    tiny.path().write_bytes(content)
    with pytest.raises(DamagedShardError, match="is damaged or truncated at record 0"):
        measure_slices(tiny.folder, dataset)


def test_shard_with_more_records_than_listed_is_told(tiny):
    dataset = tiny.write()
    with tiny.path().open("ab") as file:
        write_record(file, tiny.slices["train"][0][1])
    with pytest.raises(PreprocessingError, match="has 4 records; dataset.json lists it with 3; wr"):
        measure_slices(tiny.folder, dataset)


def test_dataset_that_was_replaced_between_the_passes_is_told(tiny):
    measured = measure_slices(tiny.folder, tiny.write())
    tiny.slices["train"].reverse()
    tiny.write()
    with pytest.raises(PreprocessingError, match="train-.* was replaced while it was read; wait"):
        list(read_again(tiny.folder, measured))


def test_dataset_that_became_shorter_between_the_passes_is_told(tiny):
    measured = measure_slices(tiny.folder, tiny.write())
    tiny.slices["train"].pop()
    tiny.write()
    with pytest.raises(PreprocessingError, match="train-.* was replaced while it was read; wait"):
        list(read_again(tiny.folder, measured))
