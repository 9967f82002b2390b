import shutil
from dataclasses import replace

import numpy as np
import pytest

from preprocessing.manifest import DatasetManifest, ManifestError, Split
from trainer import input_pipeline
from trainer.input_pipeline import SplitReader, read_examples


def reader(config, split: str = "train", *, num_replicas: int = 1) -> SplitReader:
    manifest = DatasetManifest.load(config.data)
    return SplitReader(config, manifest, split, num_replicas=num_replicas)


def images_of(batches) -> list[bytes]:
    return [
        image.tobytes()
        for batch in batches.as_numpy_iterator()
        for image, weight in zip(batch["image"], batch["weight"], strict=True)
        if weight
    ]


def test_evaluation_sees_every_slice_exactly_once_in_order(config):
    slices = list(read_examples(config.data, DatasetManifest.load(config.data), "train"))
    images = images_of(reader(config).evaluation_batches())
    assert len(images) == len(set(images)) == len(slices) == 10


def test_training_sees_the_same_slices_in_another_order_each_epoch(config):
    split = reader(config)
    first, second = (images_of(split.training_batches(epoch)) for epoch in (1, 2))
    assert sorted(first) == sorted(second) == sorted(images_of(split.evaluation_batches()))
    assert first != second


def test_epoch_that_is_run_again_sees_the_same_batches(config):
    runs = [list(reader(config).training_batches(3).as_numpy_iterator()) for _ in range(2)]
    for batch, again in zip(*runs, strict=True):
        for key in batch:
            assert np.array_equal(batch[key], again[key])


def test_seed_changes_the_order(config):
    other = replace(config, seed=1)
    assert images_of(reader(config).training_batches(1)) != images_of(
        reader(other).training_batches(1)
    )


def test_last_batch_is_padded_with_weight_zero(config):
    weights = [
        batch["weight"].tolist()
        for batch in reader(config).evaluation_batches().as_numpy_iterator()
    ]
    assert weights == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]]


def test_batch_is_padded_to_a_multiple_of_the_replicas(config):
    split = reader(config, num_replicas=3)
    assert split.steps == 3
    weights = [b["weight"].tolist() for b in split.evaluation_batches().as_numpy_iterator()]
    assert weights[0] == [1, 1, 1, 1, 0, 0]


def test_batches_are_uint8_at_the_size_of_the_model(config):
    batch = next(reader(config).training_batches(1).as_numpy_iterator())
    assert batch["image"].shape == batch["mask"].shape == (4, 32, 32, 1)
    assert batch["image"].dtype == batch["mask"].dtype == np.uint8
    assert set(np.unique(batch["mask"])) == {0, 1}
    assert batch["transform"].shape == (4, 8)


def test_cache_changes_nothing_in_what_is_read(config):
    cached, read_anew = (
        images_of(reader(replace(config, cache=cache)).training_batches(1))
        for cache in ("memory", "none")
    )
    assert cached == read_anew


def test_slices_are_cached_only_when_they_fit(config, monkeypatch, tmp_path, caplog):
    caplog.set_level("INFO", logger="trainer.input_pipeline")
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(input_pipeline, "CGROUP_LIMIT", limit)
    for text, says_so in (("max\n", False), ("1073741824\n", False), ("1000\n", True)):
        limit.write_text(text)
        caplog.clear()
        reader(config)
        assert ("they are read anew each epoch" in caplog.text) == says_so, text


def test_order_of_records_does_not_depend_on_the_number_of_cores(config, monkeypatch):
    orders = []
    for num_cores in (1, 5):
        monkeypatch.setattr(input_pipeline, "_num_cores", lambda count=num_cores: count)
        orders.append(images_of(reader(config).evaluation_batches()))
    assert orders[0] == orders[1]


def test_missing_shard_is_named(config, tmp_path):
    shutil.copytree(config.data, tmp_path / "copy")
    (tmp_path / "copy" / "train-00000-of-00003.tfrecord").unlink()
    with pytest.raises(ManifestError, match=r"train-00000-of-00003.tfrecord is missing"):
        reader(replace(config, data=tmp_path / "copy"))


def test_shard_of_another_size_is_named(config, tmp_path):
    shutil.copytree(config.data, tmp_path / "copy")
    shard = tmp_path / "copy" / "train-00000-of-00003.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ManifestError, match=r"tfrecord has \d+ bytes; dataset.json says \d+"):
        reader(replace(config, data=tmp_path / "copy"))


def test_empty_split_is_refused(config):
    manifest = DatasetManifest.load(config.data)
    empty = Split(num_examples=0, patients={}, shards=())
    manifest = replace(manifest, splits={**manifest.splits, "validation": empty})
    with pytest.raises(ManifestError, match="the validation split of .* is empty"):
        SplitReader(config, manifest, "validation", num_replicas=1)
