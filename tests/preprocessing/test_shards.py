import hashlib
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from preprocessing.pairing import Pair
from preprocessing.planning import ShardPlan
from preprocessing.records import parse_example
from preprocessing.shards import (
    PixelSums,
    RecordOptions,
    ShardWriteError,
    estimate_record_bytes,
    write_shard,
)


def make_pair(slice_id, *, num_bytes=1):
    name = f"{slice_id}.bmp"
    return Pair(slice_id=slice_id, image_path=name, mask_path=name, num_bytes=num_bytes)


def make_plan(*slice_ids, patients=None):
    return ShardPlan(
        split="train",
        filename="train-00000-of-00001.tfrecord",
        pairs=tuple(make_pair(slice_id) for slice_id in slice_ids),
        patients=patients or {},
    )


def options_of(pairs, **changes):
    return RecordOptions(images=str(pairs.images), masks=str(pairs.masks), **changes)


def write(pairs, shard_plan, folder):
    folder.mkdir(exist_ok=True)
    return write_shard(shard_plan, options=options_of(pairs), folder=str(folder))


def test_size_of_a_record_is_that_of_its_slices(pairs, tmp_path):
    two = [make_pair("P0_z000"), make_pair("P0_z001")]
    estimated = estimate_record_bytes(two, options=options_of(pairs), seed=0)
    report = write(pairs, make_plan("P0_z000", "P0_z001"), tmp_path / "out")
    assert 2 * (estimated + 16) == report.shard.num_bytes  # 16 bytes of length and checksums
    raw = estimate_record_bytes(two, options=options_of(pairs, encoding="raw"), seed=0)
    assert raw != estimated


def test_size_of_records_that_cannot_be_made_is_that_of_the_files(pairs):
    gone = [make_pair("gone", num_bytes=30), make_pair("lost", num_bytes=50)]
    assert estimate_record_bytes(gone, options=options_of(pairs), seed=0) == 40


def test_shard_holds_the_slices_in_order_and_the_report_describes_it(pairs, tmp_path):
    patients = {"P0_z001": "P0", "P0_z000": "P0", "P1_z000": "P1"}
    report = write(pairs, make_plan(*patients, patients=patients), tmp_path / "out")
    path = tmp_path / "out" / "train-00000-of-00001.tfrecord"
    examples = [parse_example(record) for record in tf.data.TFRecordDataset(str(path))]
    assert [example["slice_id"].numpy().decode() for example in examples] == list(patients)
    assert [example["patient_id"].numpy().decode() for example in examples] == ["P0", "P0", "P1"]
    assert report.patients == {"P0": 2, "P1": 1}
    assert report.refused == ()
    assert report.shard.num_examples == 3
    assert report.shard.num_bytes == path.stat().st_size
    assert report.shard.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_bytes_are_those_of_the_writer_of_tensorflow(pairs, tmp_path):
    write(pairs, make_plan("P0_z000", "P1_z000"), tmp_path / "out")
    path = tmp_path / "out" / "train-00000-of-00001.tfrecord"
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for record in tf.data.TFRecordDataset(str(path)):
            writer.write(record.numpy())
    assert path.read_bytes() == (tmp_path / "theirs").read_bytes()


def test_sums_are_exact(empty_pairs, tmp_path):
    image = np.array([[0, 255], [255, 10]], np.uint8)
    Image.fromarray(image).save(empty_pairs.images / "a.bmp")
    Image.fromarray(np.array([[0, 0], [255, 0]], np.uint8)).save(empty_pairs.masks / "a.bmp")
    report = write(empty_pairs, make_plan("a"), tmp_path / "out")
    expected = PixelSums(
        num_pixels=4,
        gray_value_sum=520,
        gray_value_square_sum=2 * 255**2 + 100,
        num_lung_pixels=1,
        num_like_masks=0,
    )
    assert report.sums == expected
    assert (expected + expected).gray_value_sum == 1040


def test_bad_pairs_are_refused_and_the_good_ones_are_written(pairs, tmp_path):
    data = (pairs.images / "P0_z000.bmp").read_bytes()
    (pairs.images / "P0_z000.bmp").write_bytes(data[:-5])
    (pairs.masks / "P0_z000.bmp").write_bytes(b"")
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(pairs.masks / "P0_z001.bmp")
    report = write(pairs, make_plan("P0_z000", "P0_z001", "P0_z002"), tmp_path / "out")
    assert report.shard.num_examples == 1
    assert [entry.file for entry in report.refused] == [
        "images/P0_z000.bmp",
        "masks/P0_z000.bmp",
        "masks/P0_z001.bmp",
    ]
    assert report.refused[0].reason.startswith("is a truncated BMP")
    assert report.refused[1].reason.startswith("is empty (0 bytes)")
    assert report.refused[2].reason == (
        "is 4 x 3 px, but its slice P0_z001.bmp is 10 x 12 px; expected equal sizes; "
        "export the mask again at the size of its slice"
    )


def test_progress_counts_written_and_refused_slices(pairs, tmp_path):
    (pairs.masks / "P0_z000.bmp").write_bytes(b"")
    write(pairs, make_plan("P0_z000", "P0_z001"), tmp_path / "out")
    progress = tmp_path / "out" / "train-00000-of-00001.tfrecord.progress"
    assert progress.stat().st_size == 2


def test_failed_write_leaves_no_shard_and_names_the_mend(pairs, tmp_path, monkeypatch):
    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(
        ShardWriteError, match="of-00001.tfrecord in .*: No space left on device; ma"
    ):
        write(pairs, make_plan("P0_z000"), tmp_path / "out")
    assert [path.suffix for path in (tmp_path / "out").iterdir()] == [".progress"]
