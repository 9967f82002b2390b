"""A tiny dataset: bright bodies with two dark lungs, three patients, written without Beam."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from preprocessing.manifest import FILENAME, DatasetManifest, Shard, Split, Statistics
from preprocessing.records import encode_example
from trainer.config import TrainerConfig

SLICES_PER_PATIENT = 5
NUM_SHARDS = 3
SPLITS = {"train": ("anna", "bela"), "validation": ("cleo",)}


def draw_slice(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy bright disk with two dark ones in it; the dark ones are the mask."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    image = np.where(np.hypot(x, y) < 0.45, 190.0, 20.0)
    mask = np.zeros((size, size), np.uint8)
    for side in (-0.19, 0.19):
        dy, radius = rng.uniform(-0.05, 0.05), rng.uniform(0.13, 0.17)
        mask[np.hypot(x - side, y - dy) < radius] = 1
    image = np.where(mask, 80.0, image) + rng.normal(0, 6, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), mask


def write_shard(path: Path, records: list[bytes]) -> Shard:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    content = path.read_bytes()
    return Shard(
        filename=path.name,
        num_examples=len(records),
        num_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def write_dataset(folder: Path, *, size: int = 40) -> DatasetManifest:
    folder.mkdir()
    rng = np.random.default_rng(7)
    splits = {}
    for split, patients in SPLITS.items():
        records = []
        for patient in patients:
            for z in range(SLICES_PER_PATIENT):
                image, mask = draw_slice(rng, size)
                if z == 0:
                    mask[:] = 0  # a slice without lung
                    image[image < 120] = 20
                records.append(
                    encode_example(
                        image=image,
                        mask=mask,
                        slice_id=f"{patient}_z{z:03}",
                        patient_id=patient,
                    )
                )
        shards = tuple(
            write_shard(
                folder / f"{split}-{index:05}-of-{NUM_SHARDS:05}.tfrecord",
                records[index::NUM_SHARDS],
            )
            for index in range(NUM_SHARDS)
        )
        splits[split] = Split(
            num_examples=len(records),
            patients=dict.fromkeys(patients, SLICES_PER_PATIENT),
            shards=shards,
        )
    manifest = DatasetManifest(
        splits=splits,
        statistics=Statistics(gray_value_mean=90.0, gray_value_std=70.0, foreground_fraction=0.1),
        refused=(),
        options={},
        versions={},
        split_by="patient",
    )
    (folder / FILENAME).write_text(manifest.to_json())
    return manifest


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 training slices of 2 patients and 5 validation slices of a third, 40x40 pixels."""
    folder = tmp_path_factory.mktemp("data") / "dataset"
    write_dataset(folder)
    return folder


@pytest.fixture
def other_dataset(tmp_path: Path) -> Path:
    """The same slices, smaller."""
    write_dataset(tmp_path / "other", size=36)
    return tmp_path / "other"


def small_config(dataset: Path, out: Path, **settings: object) -> TrainerConfig:
    """A U-Net that trains in a second: 32x32 pixels, 4 filters, 2 levels."""
    defaults = {
        "image_size": 32,
        "filters": 4,
        "depth": 2,
        "global_batch_size": 4,
        "epochs": 2,
        "learning_rate": 5e-3,
        "devices": "cpu",
    }
    return TrainerConfig(data=dataset, out=out, **{**defaults, **settings})


@pytest.fixture
def config(dataset: Path, tmp_path: Path) -> TrainerConfig:
    return small_config(dataset, tmp_path / "run")


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what comes after training, for tests that train often."""
    for name in ("draw_curves", "evaluate", "write_model_card"):
        monkeypatch.setattr(f"trainer.train.{name}", lambda *_: None)


@pytest.fixture(scope="session")
def trained_run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on the tiny dataset; do not write to it."""
    from trainer.train import run

    out = tmp_path_factory.mktemp("runs") / "trained"
    run(
        small_config(
            dataset, out, filters=8, global_batch_size=2, learning_rate=1e-2, epochs=25, patience=25
        )
    )
    return out
