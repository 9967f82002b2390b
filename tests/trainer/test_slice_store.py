import numpy as np
import pytest

from preprocessing.manifest import DatasetManifest
from trainer import slice_store
from trainer.input_pipeline import read_examples
from trainer.resizing import resize_image, resize_mask
from trainer.shard_index import index_shards
from trainer.slice_store import SliceStore, remove_kept_slices

NUM_BYTES = 10 * 2 * 32 * 32
"""Of the ten slices of the dataset and their masks, at the size of the model."""


@pytest.fixture
def index(dataset):
    return index_shards(dataset, DatasetManifest.load(dataset), "train")


def make(index, folder, cache="auto") -> SliceStore:
    return SliceStore(index, size=32, cache=cache, folder=folder)


def taken(store: SliceStore, numbers: list[list[int]]) -> list[dict[str, np.ndarray]]:
    return list(store.batches(np.array(numbers)).as_numpy_iterator())


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_slices_come_by_their_numbers_at_the_size_of_the_model(index, dataset, tmp_path, cache):
    examples = list(read_examples(dataset, DatasetManifest.load(dataset), "train"))
    expected = {
        (
            resize_image(example["image"][None], 32).numpy().tobytes(),
            resize_mask(example["mask"][None], 32).numpy().tobytes(),
        )
        for example in examples
    }
    first, second = taken(make(index, tmp_path, cache), [[3, 1], [0, 3]])
    assert first["image"].shape == second["mask"].shape == (2, 32, 32, 1)
    assert np.array_equal(first["image"][0], second["image"][1])
    every = taken(make(index, tmp_path, cache), [[number] for number in range(10)])
    assert {(each["image"].tobytes(), each["mask"].tobytes()) for each in every} == expected


def test_memory_is_taken_if_it_is_large_enough_then_the_disk_then_none(
    index, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO", logger="trainer.slice_store")
    for memory, disk, kept_in, said in (
        (4 * NUM_BYTES, 0, "memory", ""),
        (4 * NUM_BYTES - 4, 2 * NUM_BYTES, "disk", "too much for memory: they are kept in"),
        (0, 2 * NUM_BYTES - 2, "none", "too much for memory and disk: they are decoded anew"),
    ):
        caplog.clear()
        monkeypatch.setattr(slice_store, "_memory_bytes", lambda value=memory: value)
        monkeypatch.setattr(slice_store, "_free_bytes", lambda folder, value=disk: value)
        store = make(index, tmp_path / kept_in)
        assert store.kept_in == kept_in
        assert said in caplog.text


def test_memory_is_that_of_the_container(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(slice_store, "CGROUP_LIMIT", limit)
    machine = slice_store._memory_bytes()
    limit.write_text("max\n")
    assert slice_store._memory_bytes() == machine
    limit.write_text("1000\n")
    assert slice_store._memory_bytes() == 1000


def test_file_on_disk_is_whole_or_not_there_and_is_used_again(index, tmp_path, monkeypatch):
    real = SliceStore._decode_into

    def stop(store, slices):
        raise KeyboardInterrupt

    monkeypatch.setattr(SliceStore, "_decode_into", stop)
    with pytest.raises(KeyboardInterrupt):
        make(index, tmp_path, "disk")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(SliceStore, "_decode_into", real)
    first = taken(make(index, tmp_path, "disk"), [[4]])
    monkeypatch.setattr(SliceStore, "_decode_into", stop)  # not decoded again
    again = taken(make(index, tmp_path, "disk"), [[4]])
    assert np.array_equal(first[0]["image"], again[0]["image"])
    remove_kept_slices(tmp_path)
    assert not tmp_path.exists()


def test_disk_that_is_too_small_is_told(index, tmp_path, monkeypatch):
    monkeypatch.setattr(slice_store, "_free_bytes", lambda folder: 100)
    with pytest.raises(ValueError, match=r"--cache disk needs 0.0 GiB in .*; make room, or give"):
        make(index, tmp_path, "disk")
