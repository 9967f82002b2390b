import hashlib
import json
from dataclasses import replace

import pytest

from preprocessing.manifest import (
    FILENAME,
    DatasetManifest,
    ManifestError,
    RefusedFile,
    Shard,
    Split,
    Statistics,
)

SHARD = Shard(filename="train-00000-of-00001.tfrecord", num_examples=2, num_bytes=9, sha256="ab")
MANIFEST = DatasetManifest(
    splits={
        "train": Split(num_examples=2, patients={"a": 2}, shards=(SHARD,)),
        "validation": Split(num_examples=0, patients={}, shards=()),
    },
    statistics=Statistics(gray_value_mean=1.5, gray_value_std=0.5, foreground_fraction=0.25),
    refused=(RefusedFile(file="images/x.bmp", reason="truncated"),),
    options={"seed": 0},
    versions={"numpy": "2"},
    split_by="patient",
)


def changed(**values: object) -> str:
    return json.dumps({**json.loads(MANIFEST.to_json()), **values})


def test_manifest_survives_its_file(tmp_path):
    (tmp_path / FILENAME).write_text(MANIFEST.to_json())
    assert DatasetManifest.load(tmp_path) == MANIFEST


def test_hash_of_the_data_is_that_of_the_sorted_hashes_of_all_shards():
    shards = tuple(replace(SHARD, sha256=sha256) for sha256 in ("ef", "ab"))
    validation = replace(MANIFEST.splits["validation"], shards=(replace(SHARD, sha256="cd"),))
    train = replace(MANIFEST.splits["train"], shards=shards)
    manifest = replace(MANIFEST, splits={"train": train, "validation": validation})
    expected = hashlib.sha256(b"ab\ncd\nef").hexdigest()
    assert manifest.data_sha256() == expected
    assert replace(manifest, options={"seed": 1}).data_sha256() == expected
    assert MANIFEST.data_sha256() != expected


def test_equal_manifests_give_equal_text():
    again = DatasetManifest.from_json(MANIFEST.to_json(), source="s")
    assert again.to_json() == MANIFEST.to_json()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "s is not JSON .*; write the dataset again"),
        ("[" * 100_000, "s is not JSON .*; write the dataset again"),
        (changed(options=[]), r"s lacks or has too much of something .*options is \[\]"),
        (changed(skipped="x"), "s lacks or has too much of something .*skipped is 'x'"),
        (changed(statistics={"gray_value_mean": "x"}), "gray_value_mean is 'x'"),
        ("[]", "s is not a dataset of this project: expected format 'lung-ct-segmentation-d"),
        ('{"format": "other"}', "s is not a dataset of this project"),
        (changed(schema_version=99), "s has schema version 99; this version .* reads 1"),
        (changed(splits={"train": {}}), "s lacks or has too much of something"),
        (changed(statistics={}), "s lacks or has too much of something"),
        (changed(refused=[{"path": "x"}]), "s lacks or has too much of something"),
        (changed(splits=[]), "s lacks or has too much of something"),
    ],
)
def test_text_that_is_no_manifest_is_refused(text, message):
    with pytest.raises(ManifestError, match=message):
        DatasetManifest.from_json(text, source="s")


def test_folder_without_manifest_is_no_dataset(tmp_path):
    with pytest.raises(ManifestError, match="holds no dataset.json, so it is not a whole dataset"):
        DatasetManifest.load(tmp_path)


def test_folder_that_does_not_exist_is_no_dataset(tmp_path):
    with pytest.raises(ManifestError, match="none does not exist, so it is not a whole dataset"):
        DatasetManifest.load(tmp_path / "none")


def test_manifest_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / FILENAME).mkdir()
    with pytest.raises(ManifestError, match="dataset.json cannot be read: "):
        DatasetManifest.load(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("filename", "../../etc/passwd", "is no name of a file in its folder"),
        ("filename", 3, "filename is 3"),
        ("num_bytes", "9", "num_bytes is '9'"),
        ("num_examples", None, "num_examples is None"),
        ("num_examples", True, "num_examples is True"),
    ],
)
def test_shard_of_another_type_is_refused(key, value, found):
    document = json.loads(MANIFEST.to_json())
    document["splits"]["train"]["shards"][0][key] = value
    with pytest.raises(ManifestError, match=found):
        DatasetManifest.from_json(json.dumps(document), source="s")
