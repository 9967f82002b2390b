import hashlib
from pathlib import Path

import numpy as np
import pytest

from preprocessing.framing import write_record
from preprocessing.manifest import (
    FILENAME,
    DatasetManifest,
    RefusedFile,
    Shard,
    Split,
    Statistics,
)
from preprocessing.records import encode_example

TISSUE = 200
LUNG = 50


class TinyDataset:
    """Writes datasets of slices with [16, 16] pixels, one shard for each split."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "dataset"
        self.folder.mkdir()
        self.slices = {"train": [], "validation": []}
        self.changes = {}

    def add(self, slice_id, *, split="train", patient_id="P", lung_columns=4, shift=0):
        """Adds a slice with a dark bar, and a mask of that bar that is shifted to the right."""
        image = np.full((16, 16), TISSUE, dtype=np.uint8)
        mask = np.zeros((16, 16), dtype=np.uint8)
        image[0, :2] = (0, 1)  # a slice of two gray values would be a finding
        image[4:12, 4 : 4 + lung_columns] = LUNG
        mask[4:12, 4 + shift : 4 + shift + lung_columns] = 1
        record = encode_example(image=image, mask=mask, slice_id=slice_id, patient_id=patient_id)
        self.slices[split].append((patient_id, record))

    def write(self, **changes) -> DatasetManifest:
        manifest = DatasetManifest(
            **{
                "splits": {name: self._write_split(name) for name in self.slices},
                "statistics": Statistics(
                    gray_value_mean=180.0, gray_value_std=50.0, foreground_fraction=0.125
                ),
                "refused": (),
                "options": {"seed": 0},
                "versions": {"numpy": "2.1"},
                "split_by": "patient",
            }
            | changes
        )
        (self.folder / FILENAME).write_text(manifest.to_json())
        return manifest

    def path(self, split="train") -> Path:
        return self.folder / f"{split}-00000-of-00001.tfrecord"

    def _write_split(self, name) -> Split:
        slices = self.slices[name]
        path = self.path(name)
        with path.open("wb") as file:
            for _, record in slices:
                write_record(file, record)
        content = path.read_bytes()
        shard = Shard(
            filename=path.name,
            num_examples=len(slices),
            num_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        patients = [patient_id for patient_id, _ in slices if patient_id]
        return Split(
            num_examples=len(slices),
            patients={patient: patients.count(patient) for patient in sorted(set(patients))},
            shards=(shard,),
        )


@pytest.fixture
def tiny(tmp_path: Path) -> TinyDataset:
    """Three slices of patient P for training, one of patient Q for validation."""
    dataset = TinyDataset(tmp_path)
    for number in range(3):
        dataset.add(f"P_z{number}")
    dataset.add("Q_z0", split="validation", patient_id="Q")
    return dataset


@pytest.fixture
def refused_file() -> RefusedFile:
    return RefusedFile(file="images/<b>bad\x1b.bmp", reason="is <i>empty</i>")
