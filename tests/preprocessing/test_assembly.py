import os
import re
import shutil
import socket
from pathlib import Path

import pytest

from preprocessing.assembly import check_outcome, read_outcome, write_manifest
from preprocessing.manifest import DatasetManifest
from preprocessing.pairing import Pair
from preprocessing.planning import ShardPlan, write_plan
from preprocessing.shards import RecordOptions, ShardWriteError, try_write_shard

SLICES = {"train": ["P0_z000", "P0_z001"], "validation": ["P1_z000"]}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "staging"
    path.mkdir()
    return path


def make_plans():
    """One shard of two slices for training, one of one slice for validation."""
    return [
        ShardPlan(
            split=split,
            filename=f"{split}-00000-of-00001.tfrecord",
            pairs=tuple(
                Pair(slice_id=name, image_path=f"{name}.bmp", mask_path=f"{name}.bmp", num_bytes=1)
                for name in names
            ),
            patients={},
        )
        for split, names in SLICES.items()
    ]


def write_shards(pairs, folder):
    for names in SLICES.values():
        for name in names:
            pairs.add(name)
    options = RecordOptions(images=str(pairs.images), masks=str(pairs.masks))
    reports = []
    for plan in make_plans():
        if folder.is_dir():
            write_plan(plan, folder=folder)
        reports.append(try_write_shard(plan.filename, options=options, folder=str(folder)))
    return reports


def assemble(reports, folder):
    write_manifest(
        ("dataset", reports),
        folder=str(folder),
        refused=(),
        skipped=(),
        options={},
        split_by="patient",
    )


def test_whole_outcome_passes(empty_pairs, folder):
    assemble(write_shards(empty_pairs, folder), folder)
    dataset = read_outcome(folder)
    check_outcome(dataset, make_plans(), folder=folder)
    assert dataset == DatasetManifest.load(folder)
    assert [split.num_examples for split in dataset.splits.values()] == [2, 1]


def test_report_that_the_engine_lost_ends_the_job(empty_pairs, folder):
    reports = write_shards(empty_pairs, folder)
    assemble(reports[:1], folder)
    with pytest.raises(
        ShardWriteError,
        match="the engine lost what a worker reported of validation-00000-of-00001.tfrecord: "
        "dataset.json lists 1 of 2 planned shards; no dataset was published; run again, with",
    ):
        check_outcome(read_outcome(folder), make_plans(), folder=folder)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"x")])
def test_shard_that_is_elsewhere_or_not_whole_ends_the_job(empty_pairs, folder, damage):
    reports = write_shards(empty_pairs, folder)
    assemble(reports, folder)
    path = folder / "train-00000-of-00001.tfrecord"
    damage(path)
    message = (
        f"a worker wrote {path.name} with {reports[0].shard.num_bytes} bytes, but {folder} on this "
        "machine does not hold it so; expected --images, --masks and the folder of --out on a file "
    )
    with pytest.raises(ShardWriteError, match=re.escape(message)):
        check_outcome(read_outcome(folder), make_plans(), folder=folder)


def test_workers_that_see_another_file_system_are_told_of(empty_pairs, folder):
    shutil.rmtree(folder)
    reports = write_shards(empty_pairs, folder)
    assemble(reports, folder)
    assert not folder.exists()
    folder.mkdir()  # the driver's
    with pytest.raises(
        ShardWriteError,
        match=f"the engine ended, but no worker wrote to {folder}, which is on this machine; expec"
        "ted --images, --masks and the folder of --out on a file system that the driver and all "
        "workers mount under the same path; mount it on the workers, see docs/engines.md",
    ):
        read_outcome(folder)


def test_worker_without_the_slices_tells_its_name_and_the_folder(empty_pairs, folder):
    empty_pairs.images.rmdir()
    images, masks = str(empty_pairs.images), str(empty_pairs.masks)
    report = try_write_shard(
        make_plans()[0].filename,
        options=RecordOptions(images=images, masks=masks),
        folder=str(folder),
    )
    assert os.listdir(folder) == []
    assemble([report], folder)
    with pytest.raises(
        ShardWriteError,
        match=f"the worker on {socket.gethostname()} has no folder {images}; expected --images,",
    ):
        read_outcome(folder)


def test_reason_that_cannot_be_written_is_raised_for_the_engine_to_tell(folder, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    report = try_write_shard(
        make_plans()[0].filename,
        options=RecordOptions(images="/none", masks="/none"),
        folder=str(folder),
    )
    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(ShardWriteError, match="has no folder /none; expected --images, --masks"):
        assemble([report], folder)


def test_plan_that_a_worker_cannot_read_is_told(pairs, folder):
    options = RecordOptions(images=str(pairs.images), masks=str(pairs.masks))
    report = try_write_shard("train-00000-of-00001.tfrecord", options=options, folder=str(folder))
    assert report.reason.startswith("cannot read the plan of train-00000-of-00001.tfrecord in ")
    assert "No such file" in report.reason
    assert "a file system that the driver and all workers mount" in report.reason
