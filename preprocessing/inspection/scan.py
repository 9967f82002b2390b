"""Reads all slices of a dataset, one at a time, and later those again that are to be shown.

Two passes, because which slices are the worst is known only after the first one: thumbnails of the
others need neither be made nor kept, and memory does not grow with the pixels of the dataset.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from preprocessing.errors import PreprocessingError
from preprocessing.framing import read_records
from preprocessing.inspection.measures import Measures, measure
from preprocessing.manifest import FILENAME, DatasetManifest
from preprocessing.records import DamagedRecordError, Example, decode_example


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredSlice:
    """One slice of the dataset, without its pixels."""

    slice_id: str
    """Which slice it is."""

    patient_id: str
    """Whose slice it is; empty if that is not known."""

    split: str
    """``train`` or ``validation``."""

    shard: str
    """Name of the file that holds it."""

    record_index: int
    """Which record of the file it is; the first is 0."""

    measures: Measures
    """Its figures."""


def measure_slices(dataset_dir: Path, dataset: DatasetManifest) -> list[MeasuredSlice]:
    """Measures all slices, in the order of the shards.

    Raises:
        PreprocessingError: if a record cannot be decoded, or a shard has another number of them
            than ``dataset.json`` says.
        DamagedShardError: if a shard is truncated or damaged.
        OSError: if a shard cannot be read.
    """
    measured: list[MeasuredSlice] = []
    total = sum(split.num_examples for split in dataset.splits.values())
    with tqdm(total=total, desc="masks", unit="slice", disable=None, leave=False) as bar:
        for split_name, split in dataset.splits.items():
            for shard in split.shards:
                num_before = len(measured)
                for index, record in enumerate(read_records(dataset_dir / shard.filename)):
                    example = _decode(record, path=dataset_dir / shard.filename, index=index)
                    measured.append(
                        MeasuredSlice(
                            slice_id=example.slice_id,
                            patient_id=example.patient_id,
                            split=split_name,
                            shard=shard.filename,
                            record_index=index,
                            measures=measure(image=example.image, mask=example.mask),
                        )
                    )
                    bar.update()
                num_records = len(measured) - num_before
                if num_records != shard.num_examples:
                    raise PreprocessingError(
                        f"{dataset_dir / shard.filename} has {num_records} records; {FILENAME} "
                        f"lists it with {shard.num_examples}; write the dataset again with "
                        "`make tfrecords`"
                    )
    return measured


def read_again(
    dataset_dir: Path, chosen: Collection[MeasuredSlice]
) -> Iterator[tuple[MeasuredSlice, Example]]:
    """Gives some of the slices with their pixels, in the order of the shards.

    Raises:
        PreprocessingError: if the dataset was replaced in the meantime.
        DamagedShardError: if a shard is truncated or damaged.
        OSError: if a shard cannot be read.
    """
    wanted = {(entry.shard, entry.record_index): entry for entry in chosen}
    with tqdm(total=len(wanted), desc="pictures", unit="slice", disable=None, leave=False) as bar:
        for shard in sorted({entry.shard for entry in chosen}):
            path = dataset_dir / shard
            for index, record in enumerate(read_records(path)):
                entry = wanted.pop((shard, index), None)
                if entry is None:
                    continue
                example = _decode(record, path=path, index=index)
                if example.slice_id != entry.slice_id:
                    raise _replaced(path)
                yield entry, example
                bar.update()
    for shard, _ in wanted:
        raise _replaced(dataset_dir / shard)


def _decode(record: bytes, *, path: Path, index: int) -> Example:
    try:
        return decode_example(record)
    except DamagedRecordError as error:
        raise PreprocessingError(
            f"{path}, record {index}: {error}; expected a slice and a mask; write the dataset "
            "again with `make tfrecords`"
        ) from error


def _replaced(path: Path) -> PreprocessingError:
    return PreprocessingError(
        f"{path} was replaced while it was read; wait until the other run has ended, and try again"
    )
