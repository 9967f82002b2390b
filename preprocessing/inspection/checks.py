"""Whether the files of a dataset are those that ``dataset.json`` lists."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from preprocessing.config import BY_PATIENT
from preprocessing.errors import PreprocessingError
from preprocessing.finding import shorten
from preprocessing.manifest import FILENAME, DatasetManifest, Shard
from preprocessing.spec import TRAIN_SPLIT, VALIDATION_SPLIT

_MEND = "copy the dataset again, or write it again with `make tfrecords`"


def find_problems(dataset_dir: Path, dataset: DatasetManifest, *, verify: bool) -> list[str]:
    """Tells each way in which a dataset is not what its ``dataset.json`` says.

    Args:
        dataset_dir: folder of the dataset.
        dataset: its manifest.
        verify: whether to compare hashes too, for which all shards are read.

    Returns:
        One line for each problem.

    Raises:
        OSError: if a shard is there but cannot be read.
    """
    return [
        *_patient_problems(dataset_dir, dataset),
        *_count_problems(dataset_dir, dataset),
        *_shard_problems(dataset_dir, dataset, verify=verify),
    ]


def check_gallery_place(gallery: Path, *, dataset_dir: Path) -> None:
    """Looks whether a page may be written to a place, before any work is done for it.

    Raises:
        PreprocessingError: if the place is a folder, inside of the dataset, or not writable.
    """
    if gallery.is_dir():
        raise PreprocessingError(
            f"--gallery {gallery} is a folder; expected a file, such as {gallery / 'page.html'}"
        )
    # A dataset with a strange file in it is not replaced by `tfrecords --overwrite`.
    if gallery.resolve().is_relative_to(dataset_dir.resolve()):
        raise PreprocessingError(
            f"--gallery {gallery} is inside of the dataset {dataset_dir}, which holds only shards "
            f"and {FILENAME}; choose a place beside it"
        )
    parent = next(folder for folder in gallery.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise PreprocessingError(
            f"--gallery {gallery} cannot be written: {parent} is no folder that you may write to; "
            "choose another place"
        )


def _patient_problems(dataset_dir: Path, dataset: DatasetManifest) -> Iterator[str]:
    if dataset.split_by != BY_PATIENT:
        return
    train, validation = (dataset.splits[name].patients for name in (TRAIN_SPLIT, VALIDATION_SPLIT))
    if both := sorted(train.keys() & validation.keys()):
        yield (
            f"{dataset_dir / FILENAME} lists patients in both splits, although it says that each "
            f"is in one: {shorten(both)}; write the dataset again with `make tfrecords`"
        )


def _count_problems(dataset_dir: Path, dataset: DatasetManifest) -> Iterator[str]:
    names = [shard.filename for split in dataset.splits.values() for shard in split.shards]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        yield (
            f"{dataset_dir / FILENAME} lists shards twice, so slices are in both splits or count "
            f"double: {shorten(twice)}; write the dataset again with `make tfrecords`"
        )
    for name, split in dataset.splits.items():
        num_in_shards = sum(shard.num_examples for shard in split.shards)
        if num_in_shards != split.num_examples:
            yield (
                f"{dataset_dir / FILENAME} lists {split.num_examples} slices of {name}, but its "
                f"shards have {num_in_shards}; write the dataset again with `make tfrecords`"
            )


def _shard_problems(dataset_dir: Path, dataset: DatasetManifest, *, verify: bool) -> Iterator[str]:
    shards = [shard for split in dataset.splits.values() for shard in split.shards]
    num_bytes = sum(shard.num_bytes for shard in shards)
    with tqdm(
        total=num_bytes,
        desc="verify",
        unit="B",
        unit_scale=True,
        # None: only on a terminal.
        disable=None if verify else True,
        leave=False,
    ) as bar:
        for shard in shards:
            path = dataset_dir / shard.filename
            problem = _size_problem(path, shard)
            if not problem and verify:
                problem = _hash_problem(path, shard)
            if problem:
                yield f"{problem}; {_MEND}"
            bar.update(shard.num_bytes)


def _size_problem(path: Path, shard: Shard) -> str:
    """Gives what is wrong with the size of a shard; empty if nothing is."""
    if not path.is_file():
        return f"{path} is missing; {FILENAME} lists it with {shard.num_bytes} bytes"
    num_bytes = path.stat().st_size
    if num_bytes != shard.num_bytes:
        return f"{path} has {num_bytes} bytes; {FILENAME} lists it with {shard.num_bytes}"
    return ""


def _hash_problem(path: Path, shard: Shard) -> str:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != shard.sha256:
        return f"{path} has SHA-256 {sha256}; {FILENAME} lists it with {shard.sha256}"
    return ""
