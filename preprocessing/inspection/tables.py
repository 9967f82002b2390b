"""A dataset in lines of text, for a terminal."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from preprocessing.config import BY_PATIENT
from preprocessing.finding import printable
from preprocessing.inspection.findings import KINDS, JudgedSlice
from preprocessing.manifest import FILENAME, DatasetManifest
from preprocessing.spec import TRAIN_SPLIT

MAX_ROWS = 40
"""Longer tables are cut; the manifest has all."""

MAX_REFUSED = 20
MAX_WORST = 10

_GAP = "  "

SPLIT_BY_SLICE_WARNING = (
    "split by slice, not by patient: slices of one patient may be in both splits, so validation "
    "flatters the model; name the patients with `--patient-pattern` and write the dataset again"
)


def mebibytes(num_bytes: int) -> str:
    """Gives a size as text, without its unit."""
    return f"{num_bytes / 2**20:.1f}"


def num_bytes_of(dataset: DatasetManifest) -> int:
    """Gives the size of all shards."""
    return sum(shard.num_bytes for split in dataset.splits.values() for shard in split.shards)


def num_slices_of(dataset: DatasetManifest) -> int:
    """Gives the number of slices in all splits."""
    return sum(split.num_examples for split in dataset.splits.values())


def num_patients_of(dataset: DatasetManifest) -> int:
    """Gives the number of patients in all splits; 0 if they are not known."""
    return len({patient for split in dataset.splits.values() for patient in split.patients})


def count_findings(judged: Sequence[JudgedSlice]) -> Counter[str]:
    """Gives the number of slices by the name of a finding."""
    return Counter(finding.kind.name for entry in judged for finding in entry.findings)


def options_text(options: Mapping[str, Any]) -> str:
    """Gives options or versions in one line."""
    return ", ".join(f"{name} {printable(str(value))}" for name, value in options.items())


def describe_dataset(dataset_dir: Path, dataset: DatasetManifest) -> list[str]:
    """Tells what is in a dataset, who is in which split, and what was refused.

    Args:
        dataset_dir: folder of the dataset.
        dataset: its manifest.

    Returns:
        Lines of text.
    """
    num_shards = sum(len(split.shards) for split in dataset.splits.values())
    statistics = dataset.statistics
    return [
        f"{dataset_dir}: {num_slices_of(dataset)} slices, "
        f"patients: {num_patients_of(dataset) or 'unknown'}, shards: {num_shards}, "
        f"{mebibytes(num_bytes_of(dataset))} MiB, split by {dataset.split_by}",
        *([] if dataset.split_by == BY_PATIENT else [f"WARNING: {SPLIT_BY_SLICE_WARNING}"]),
        "",
        *_split_table(dataset),
        "",
        *_patient_table(dataset),
        *_shard_table(dataset),
        "",
        f"{TRAIN_SPLIT}: {100 * statistics.foreground_fraction:.1f} % of the pixels are lung; gray "
        f"values: mean {statistics.gray_value_mean:.1f}, "
        f"standard deviation {statistics.gray_value_std:.1f}",
        f"options: {options_text(dataset.options)}",
        f"versions: {options_text(dataset.versions)}",
        "",
        *_listed("refused files", [f"{entry.file} {entry.reason}" for entry in dataset.refused]),
        *_listed("skipped files, no images", dataset.skipped),
    ]


def describe_findings(judged: Sequence[JudgedSlice]) -> list[str]:
    """Tells how many slices have which finding, and names the worst.

    Args:
        judged: all slices, the worst first.

    Returns:
        Lines of text.
    """
    counts = count_findings(judged)
    odd = [entry for entry in judged if entry.severity]
    lines = [
        "",
        *table(
            ("finding", "slices"),
            [(kind.name, str(counts[kind.name])) for kind in KINDS if counts[kind.name]],
            right=(1,),
        ),
        "",
        f"slices to look at: {len(odd)} of {len(judged)}",
    ]
    if odd:
        rows = [
            (
                printable(entry.entry.slice_id),
                entry.entry.split,
                ", ".join(finding.kind.name for finding in entry.findings),
            )
            for entry in odd[:MAX_WORST]
        ]
        lines += table(("slice", "split", "findings"), rows)
        lines += _more(len(odd) - MAX_WORST, "slices on the page")
    return lines


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()
) -> list[str]:
    """Lines up columns.

    Args:
        header: names of the columns.
        rows: texts of the cells.
        right: indices of columns of numbers.

    Returns:
        One line for the header, and one for each row.
    """
    widths = [max(map(len, cells)) for cells in zip(header, *rows, strict=True)]
    return [
        _GAP.join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in (header, *rows)
    ]


def _split_table(dataset: DatasetManifest) -> list[str]:
    num_slices = max(1, num_slices_of(dataset))
    rows = [
        (
            name,
            str(split.num_examples),
            f"{100 * split.num_examples / num_slices:.1f} %",
            str(len(split.patients) or "unknown"),
            str(len(split.shards)),
            mebibytes(sum(shard.num_bytes for shard in split.shards)),
        )
        for name, split in dataset.splits.items()
    ]
    return table(("split", "slices", "share", "patients", "shards", "MiB"), rows, right=range(1, 6))


def _patient_table(dataset: DatasetManifest) -> list[str]:
    rows = [
        (printable(patient), name, str(num_slices))
        for name, split in dataset.splits.items()
        for patient, num_slices in split.patients.items()
    ]
    if not rows:
        return []
    return [*_cut(("patient", "split", "slices"), rows, right=(2,)), ""]


def _shard_table(dataset: DatasetManifest) -> list[str]:
    rows = [
        (printable(shard.filename), str(shard.num_examples), mebibytes(shard.num_bytes))
        for split in dataset.splits.values()
        for shard in split.shards
    ]
    return _cut(("shard", "slices", "MiB"), rows, right=(1, 2))


def _listed(title: str, entries: Sequence[str]) -> list[str]:
    if not entries:
        return [f"{title}: none"]
    return [
        f"{title}: {len(entries)}",
        *(f"{_GAP}{printable(entry)}" for entry in entries[:MAX_REFUSED]),
        *_more(len(entries) - MAX_REFUSED, f"in {FILENAME}"),
    ]


def _cut(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int]
) -> list[str]:
    return [
        *table(header, rows[:MAX_ROWS], right=right),
        *_more(len(rows) - MAX_ROWS, f"in {FILENAME}"),
    ]


def _more(num_more: int, where: str) -> list[str]:
    return [f"{_GAP}and {num_more} more {where}"] if num_more > 0 else []
