"""From the reports of the workers to ``dataset.json``."""

import math
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from preprocessing import manifest
from preprocessing.finding import shorten
from preprocessing.manifest import DatasetManifest, RefusedFile, Split, Statistics
from preprocessing.planning import ShardPlan
from preprocessing.publish import write_text
from preprocessing.shards import (
    SHARED_FOLDERS,
    FailedShard,
    PixelSums,
    ShardReport,
    ShardWriteError,
    describe_write_error,
)
from preprocessing.spec import SPLITS, TRAIN_SPLIT, VALIDATION_SPLIT

_FAILURE_FILENAME = "failure.txt"
_WARNINGS_FILENAME = "warnings.txt"
_VERSIONED = ("apache-beam", "numpy", "pillow", "zlib-ng")


def write_manifest(
    keyed_reports: tuple[str, Iterable[ShardReport | FailedShard]],
    *,
    folder: str,
    refused: Sequence[RefusedFile],
    skipped: Sequence[str],
    options: Mapping[str, Any],
    split_by: str,
) -> None:
    """Writes ``dataset.json`` from what all workers report, in whatever order.

    If a shard could not be written, or there is no room for ``dataset.json``, it writes the reason
    instead. On a worker that does not see the folder it writes nothing, which `read_outcome` tells.

    Raises:
        ShardWriteError: if it cannot even write the reason; an engine then fails with it.
    """
    if not Path(folder).is_dir():
        return
    reports = list(keyed_reports[1])
    failed = [report for report in reports if isinstance(report, FailedShard)]
    if failed:
        _write_failure(Path(folder), min(failed, key=lambda report: report.filename).reason)
        return
    whole = [report for report in reports if isinstance(report, ShardReport)]
    ordered = sorted(whole, key=lambda report: report.shard.filename)
    splits = {name: [report for report in ordered if report.split == name] for name in SPLITS}
    found = [entry for report in ordered for entry in report.refused]
    dataset = DatasetManifest(
        splits={name: _split(members) for name, members in splits.items()},
        statistics=_statistics([report.sums for report in splits[TRAIN_SPLIT]]),
        refused=tuple(sorted([*refused, *found], key=lambda entry: (entry.file, entry.reason))),
        skipped=tuple(skipped),
        options=options,
        versions={
            **{name: version(name) for name in _VERSIONED},
            "python": platform.python_version(),
        },
        split_by=split_by,
    )
    warnings = [
        *_warnings(ordered, validation=splits[VALIDATION_SPLIT]),
        *filter(None, [_equal_slices(ordered), _unknown_labels(ordered, options)]),
    ]
    text = "".join(f"{line}\n" for line in warnings)
    try:
        (Path(folder) / _WARNINGS_FILENAME).write_text(text, encoding="utf-8")
        write_text(Path(folder) / manifest.FILENAME, dataset.to_json())
    except OSError as error:
        _write_failure(Path(folder), describe_write_error(manifest.FILENAME, folder, error))


def read_outcome(folder: Path) -> DatasetManifest:
    """Reads what `write_manifest` wrote.

    Raises:
        ShardWriteError: if a shard could not be written, or if there is no outcome at all.
        ManifestError: if the outcome cannot be read.
    """
    failure = folder / _FAILURE_FILENAME
    if failure.exists():
        raise ShardWriteError(failure.read_text(encoding="utf-8"))
    if not (folder / manifest.FILENAME).exists():
        raise ShardWriteError(
            f"the engine ended, but no worker wrote to {folder}, which is on this machine; "
            f"{SHARED_FOLDERS}"
        )
    return DatasetManifest.load(folder)


def check_outcome(dataset: DatasetManifest, plans: Sequence[ShardPlan], *, folder: Path) -> None:
    """Looks whether all that was planned is here; an engine may lose results without a word.

    Raises:
        ShardWriteError: if a shard is not in the manifest, or not whole in the folder.
    """
    shards = {shard.filename: shard for split in dataset.splits.values() for shard in split.shards}
    for plan in plans:
        shard, path = shards.get(plan.filename), folder / plan.filename
        if shard is None:
            raise ShardWriteError(
                f"the engine lost what a worker reported of {plan.filename}: "
                f"dataset.json lists {len(shards)} of {len(plans)} planned shards; no dataset was "
                "published; run again, with another --runner if it happens again"
            )
        if not path.exists() or path.stat().st_size != shard.num_bytes:
            raise ShardWriteError(
                f"a worker wrote {plan.filename} with {shard.num_bytes} bytes, but {folder} on "
                f"this machine does not hold it so; {SHARED_FOLDERS}"
            )


def read_warnings(folder: Path) -> list[str]:
    """Reads what `write_manifest` found strange in a dataset that it wrote.

    Raises:
        OSError: if it wrote none.
    """
    return (folder / _WARNINGS_FILENAME).read_text(encoding="utf-8").splitlines()


def _write_failure(folder: Path, reason: str) -> None:
    """Leaves the reason for the driver.

    The disk may be full, and nothing will be published: all that is there makes room.
    """
    try:
        for path in folder.iterdir():
            path.unlink()
        (folder / _FAILURE_FILENAME).write_text(reason, encoding="utf-8")
    except OSError as error:
        raise ShardWriteError(reason) from error


def _warnings(reports: Sequence[ShardReport], *, validation: Sequence[ShardReport]) -> list[str]:
    found = []
    num_slices = sum(report.shard.num_examples for report in reports)
    if num_slices and num_slices == sum(report.sums.num_like_masks for report in reports):
        found.append(
            f"SLICES THAT LOOK LIKE MASKS: none of {num_slices} slices holds more than two gray "
            "values; expected CT slices; look whether --images is the folder of slices"
        )
    num_validation = sum(report.shard.num_examples for report in validation)
    if num_validation and not any(report.sums.num_lung_pixels for report in validation):
        found.append(
            f"NO LUNG IN VALIDATION: the masks of all {num_validation} validation slices are "
            "empty, so validation tells nothing of how lungs are found; look at the masks, or "
            "pass another --seed for another split"
        )
    return found


def _equal_slices(reports: Sequence[ShardReport]) -> str:
    """Tells of slices that are equal pixel by pixel, though they are of two patients."""
    first: dict[int, tuple[str, str, str]] = {}
    twins = []
    num_across = 0
    for report in reports:
        for number, slice_id, patient_id in report.fingerprints:
            other, owner, split = first.setdefault(
                number, (slice_id, patient_id or slice_id, report.split)
            )
            if owner != (patient_id or slice_id):
                twins.append(f"{slice_id} and {other}")
                num_across += split != report.split
    if not twins:
        return ""
    return (
        f"EQUAL SLICES OF TWO PATIENTS: {len(twins)} slices equal those of another patient pixel "
        f"by pixel, {num_across} of them across training and validation: "
        f"{shorten(sorted(twins))}; expected each patient under one id; remove the copies, or put "
        "both into one split with --split-file"
    )


def _unknown_labels(reports: Sequence[ShardReport], options: Mapping[str, Any]) -> str:
    """Tells of labels that were named as lung and occur nowhere."""
    wanted = options.get("mask_foreground") or []
    found = sorted(set().union(*(report.labels for report in reports)))
    missing = [label for label in wanted if label not in found]
    if not missing:
        return ""
    return (
        f"--mask-foreground {','.join(map(str, wanted))}: no mask holds {missing}; the masks hold "
        f"{found}; correct the labels"
    )


def _split(reports: Sequence[ShardReport]) -> Split:
    patients: Counter[str] = Counter()
    for report in reports:
        patients.update(report.patients)
    return Split(
        num_examples=sum(report.shard.num_examples for report in reports),
        patients=dict(sorted(patients.items())),
        shards=tuple(report.shard for report in reports),
    )


def _statistics(sums: Sequence[PixelSums]) -> Statistics:
    """Gives mean, standard deviation and share of lung; zeros where nothing was written.

    The division comes after all sums, which are whole numbers: any engine gives equal figures.
    """
    total = sum(sums, start=PixelSums())
    count = max(1, total.num_pixels)
    # The variance times count squared, exactly; it cannot be negative.
    scaled_variance = count * total.gray_value_square_sum - total.gray_value_sum**2
    return Statistics(
        gray_value_mean=total.gray_value_sum / count,
        gray_value_std=math.sqrt(scaled_variance / count**2),
        foreground_fraction=total.num_lung_pixels / count,
    )
