"""Where each record of a split lies, and whether the shards are those that were written.

With the place of each record known, slices can be read in any order, from any of them on, and each
worker reads only those that it needs.
"""

import hashlib
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from preprocessing.manifest import DatasetManifest, ManifestError, Shard
from preprocessing.records import read_patient_id
from preprocessing.spec import VALIDATION_SPLIT

_LENGTH = struct.Struct("<Q")
_HEADER_BYTES = 12
_FOOTER_BYTES = 4
"""A record: its length and a checksum, the content, a checksum."""


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """The records of a split, in the order of the shards."""

    paths: tuple[Path, ...]
    """Of the shards."""

    shards: npt.NDArray[np.int64]
    """[num_records]: in which shard a record is."""

    offsets: npt.NDArray[np.int64]
    """[num_records]: where its content begins, in bytes."""

    lengths: npt.NDArray[np.int64]
    """[num_records]: how many bytes its content has."""

    def __len__(self) -> int:
        """Gives the number of records."""
        return len(self.shards)

    def read(self, index: int) -> bytes:
        """Reads the content of one record; threads may do so at the same time.

        Raises:
            ManifestError: if the shard has become shorter.
            OSError: if it cannot be read.
        """
        path = self.paths[self.shards[index]]
        descriptor = os.open(path, os.O_RDONLY)
        try:
            content = os.pread(descriptor, int(self.lengths[index]), int(self.offsets[index]))
        finally:
            os.close(descriptor)
        if len(content) != self.lengths[index]:
            raise ManifestError(f"{path} became shorter while it was read; copy it again")
        return content


def shard_paths(dataset_dir: Path, manifest: DatasetManifest, split_name: str) -> tuple[Path, ...]:
    """Gives the shards of a split, after a look at their sizes.

    Args:
        dataset_dir: folder of the dataset.
        manifest: of that dataset; only the shards that it lists are read.
        split_name: ``train`` or ``validation``.

    Raises:
        ManifestError: if the split is empty, or a shard is missing or has another size.
    """
    split = manifest.splits[split_name]
    if not split.num_examples:
        raise ManifestError(
            f"the {split_name} split of {dataset_dir} is empty; "
            "write the dataset again with more patients or another --validation-fraction"
        )
    for shard in split.shards:
        path = dataset_dir / shard.filename
        if not path.is_file():
            raise ManifestError(
                f"{path} is missing, but dataset.json lists it; write the dataset again"
            )
        if path.stat().st_size != shard.num_bytes:
            raise ManifestError(
                f"{path} has {path.stat().st_size} bytes; dataset.json says {shard.num_bytes}: "
                "it was changed or copied in part; copy it again or write the dataset again"
            )
    return tuple(dataset_dir / shard.filename for shard in split.shards)


def index_shards(dataset_dir: Path, manifest: DatasetManifest, split_name: str) -> ShardIndex:
    """Reads the shards of a split once: compares their hashes, and finds their records.

    Args:
        dataset_dir: folder of the dataset.
        manifest: of that dataset; only the shards that it lists are read.
        split_name: ``train`` or ``validation``.

    Raises:
        ManifestError: if the split is empty, or a shard is missing or is not the one that was
            written.

    Source: TFRecord framing, tensorflow/core/lib/io/record_writer.h.
    """
    paths = shard_paths(dataset_dir, manifest, split_name)
    split = manifest.splits[split_name]
    places: list[tuple[int, int, int]] = []
    bar = tqdm(paths, desc=f"checking {split_name} shards", disable=None, leave=False)
    for number, (path, shard) in enumerate(zip(bar, split.shards, strict=True)):
        places += [(number, *place) for place in _find_records(path, shard)]
    shards, offsets, lengths = np.array(places, np.int64).T
    return ShardIndex(paths=paths, shards=shards, offsets=offsets, lengths=lengths)


def index_patients(
    dataset_dir: Path, manifest: DatasetManifest, *, hold_out: str, split_name: str
) -> ShardIndex:
    """Finds the records of all splits that are, or are not, of one patient.

    Args:
        dataset_dir: folder of the dataset.
        manifest: of that dataset.
        hold_out: the patient.
        split_name: ``validation``: the slices of this patient; ``train``: those of all others.

    Raises:
        ManifestError: as `index_shards`; or if there is no such patient, or no other.
    """
    indices = [
        index_shards(dataset_dir, manifest, name)
        for name, split in manifest.splits.items()
        if split.num_examples
    ]
    paths = tuple(path for index in indices for path in index.paths)
    first_shards = np.cumsum([0, *(len(index.paths) for index in indices)])
    patients = [read_patient_id(index.read(n)) for index in indices for n in range(len(index))]
    chosen = (np.array(patients) == hold_out) == (split_name == VALIDATION_SPLIT)
    if not chosen.any() or chosen.all():
        known = sorted(set(patients))
        raise ManifestError(
            f"--hold-out is {hold_out!r}, but {dataset_dir} has slices of {', '.join(known[:20])}"
            f"{' and others' if len(known) > 20 else ''}; expected one of at least two patients"
        )
    return ShardIndex(
        paths=paths,
        shards=np.concatenate(
            [index.shards + first for index, first in zip(indices, first_shards[:-1], strict=True)]
        )[chosen],
        offsets=np.concatenate([index.offsets for index in indices])[chosen],
        lengths=np.concatenate([index.lengths for index in indices])[chosen],
    )


def _find_records(path: Path, shard: Shard) -> list[tuple[int, int]]:
    """Gives offset and length of the content of each record of a shard.

    Raises:
        ManifestError: if the hash of the shard is not the one in ``dataset.json``.
    """
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
            raise ManifestError(
                f"{path} is damaged: its SHA-256 is not the one in dataset.json; copy it again or "
                "write the dataset again"
            )
        places = []
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            position = 0
            while position < len(content):
                (length,) = _LENGTH.unpack_from(content, position)
                places.append((position + _HEADER_BYTES, length))
                position += _HEADER_BYTES + length + _FOOTER_BYTES
    if len(places) != shard.num_examples:
        raise ManifestError(
            f"{path} has {len(places)} records; dataset.json says {shard.num_examples}: it was "
            "edited; write the dataset again with `make tfrecords`"
        )
    return places
