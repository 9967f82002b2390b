import shutil
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from preprocessing.manifest import DatasetManifest, ManifestError
from trainer.shard_index import index_shards


@pytest.fixture
def copied(dataset, tmp_path):
    shutil.copytree(dataset, tmp_path / "copy")
    return tmp_path / "copy"


def test_every_record_is_found_where_tensorflow_reads_it(dataset):
    manifest = DatasetManifest.load(dataset)
    index = index_shards(dataset, manifest, "train")
    paths = [str(dataset / shard.filename) for shard in manifest.splits["train"].shards]
    records = [record.numpy() for record in tf.data.TFRecordDataset(paths)]
    assert [index.read(number) for number in range(len(index))] == records
    assert len(records) == 10


def test_shard_with_a_flipped_byte_is_named(copied):
    shard = copied / "train-00001-of-00003.tfrecord"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ManifestError, match=f"^{shard} is damaged: its SHA-256 is not the one in"):
        index_shards(copied, DatasetManifest.load(copied), "train")


def test_shard_with_another_number_of_records_is_named(copied):
    manifest = DatasetManifest.load(copied)
    split = manifest.splits["validation"]
    shards = (replace(split.shards[0], num_examples=7), *split.shards[1:])
    splits = {**manifest.splits, "validation": replace(split, shards=shards)}
    with pytest.raises(ManifestError, match=r"-00000-of-00003.tfrecord has 2 records; .*says 7"):
        index_shards(copied, replace(manifest, splits=splits), "validation")


def test_shard_that_becomes_shorter_later_is_named(copied):
    index = index_shards(copied, DatasetManifest.load(copied), "train")
    path = index.paths[0]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ManifestError, match=f"{path} became shorter while it was read"):
        index.read(int(np.flatnonzero(index.shards == 0)[-1]))
