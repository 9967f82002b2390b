"""Which slice belongs to which mask and patient, and which patient to which split."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from preprocessing.config import (
    BY_PATIENT,
    BY_SLICE,
    DEFAULT_PATIENT_PATTERN,
    PATIENT_GROUP,
    TfrecordsConfig,
)
from preprocessing.errors import PreprocessingError
from preprocessing.images.reading import IMAGE_SUFFIXES
from preprocessing.manifest import RefusedFile
from preprocessing.spec import TRAIN_SPLIT, VALIDATION_SPLIT

_NUM_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class FoundFile:
    """A file below a folder."""

    path: str
    """Path below the folder, with ``/``."""

    num_bytes: int
    """Size of the file."""


@dataclass(frozen=True, kw_only=True)
class FoundFiles:
    """What a folder holds."""

    by_slice_id: Mapping[str, FoundFile]
    """By path without extension, in order."""

    skipped: tuple[str, ...]
    """Files that are no BMP or PNG by their name, and links to folders; not hidden files."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One slice and its mask, not yet read."""

    slice_id: str
    """Path below the folder, without extension."""

    image_path: str
    """Path below the folder of slices."""

    mask_path: str
    """Path below the folder of masks."""

    num_bytes: int
    """Size of both files."""


def find_files(folder: Path, *, flag: str, leave_out: Path) -> FoundFiles:
    """Lists the slices or the masks of a folder and its subfolders.

    Args:
        folder: where to look.
        flag: the option that named it, for messages.
        leave_out: a subfolder that is not looked at: masks may lie below the slices.

    Raises:
        PreprocessingError: if there is no such folder, if it holds no BMP or PNG, or if two of its
            files differ in nothing but their extension.
        OSError: if a folder cannot be read.
    """
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise PreprocessingError(f"{flag} {folder} {found}; expected a folder of BMP files")
    by_slice_id: dict[str, FoundFile] = {}
    skipped: list[str] = []
    for path in _walk(folder, leave_out=leave_out, skipped=skipped):
        relative = path.relative_to(folder).as_posix()
        _check_name(relative, folder=folder)
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            skipped.append(relative)
            continue
        slice_id = relative.removesuffix(path.suffix)
        if slice_id in by_slice_id:
            raise PreprocessingError(
                f"{folder} holds both {by_slice_id[slice_id].path} and {relative}; expected one "
                "file of each name, whatever its extension; remove or rename one of them"
            )
        # A link to nowhere counts as 0 bytes here; the worker that reads it says what it is.
        num_bytes = path.stat().st_size if path.exists() else 0
        by_slice_id[slice_id] = FoundFile(path=relative, num_bytes=num_bytes)
    if not by_slice_id:
        raise PreprocessingError(
            f"{flag} {folder} holds no BMP or PNG file ({_describe(skipped)}); "
            "point it to the folder that does"
        )
    return FoundFiles(by_slice_id=dict(sorted(by_slice_id.items())), skipped=tuple(sorted(skipped)))


def pair_files(
    images: FoundFiles, masks: FoundFiles
) -> tuple[tuple[Pair, ...], tuple[RefusedFile, ...]]:
    """Pairs slices and masks of equal names.

    Returns:
        The pairs in the order of their ``slice_id``, and the slices and masks that are left over.

    Raises:
        PreprocessingError: if there is no pair at all.
    """
    image_ids, mask_ids = set(images.by_slice_id), set(masks.by_slice_id)
    if not image_ids & mask_ids:
        image = next(iter(images.by_slice_id.values())).path
        mask = next(iter(masks.by_slice_id.values())).path
        raise PreprocessingError(
            f"none of {len(image_ids)} slices (such as {image}) has the name of one of "
            f"{len(mask_ids)} masks (such as {mask}); expected equal names below both folders, "
            "apart from the extension; rename one side"
        )
    pairs = tuple(
        Pair(
            slice_id=slice_id,
            image_path=images.by_slice_id[slice_id].path,
            mask_path=masks.by_slice_id[slice_id].path,
            num_bytes=images.by_slice_id[slice_id].num_bytes
            + masks.by_slice_id[slice_id].num_bytes,
        )
        for slice_id in sorted(image_ids & mask_ids)
    )
    refused = [
        RefusedFile(
            file=f"images/{images.by_slice_id[slice_id].path}",
            reason=f"has no mask {slice_id}.bmp below --masks; add it or remove the slice",
        )
        for slice_id in sorted(image_ids - mask_ids)
    ] + [
        RefusedFile(
            file=f"masks/{masks.by_slice_id[slice_id].path}",
            reason=f"has no slice {slice_id}.bmp below --images; add it or remove the mask",
        )
        for slice_id in sorted(mask_ids - image_ids)
    ]
    return pairs, tuple(refused)


def find_patients(slice_ids: Sequence[str], *, config: TfrecordsConfig) -> Mapping[str, str]:
    """Reads whose slice it is from each name.

    Returns:
        ``patient_id`` by ``slice_id``; empty if the default pattern reads no name.

    Raises:
        PreprocessingError: if only some names tell it, as such a split could leak a patient; or if
            a pattern of the user's own reads none.
    """
    pattern = re.compile(config.patient_pattern)
    found = {slice_id: pattern.search(slice_id) for slice_id in slice_ids}
    patients = {key: match[PATIENT_GROUP] for key, match in found.items() if match}
    patients = {key: patient_id for key, patient_id in patients.items() if patient_id}
    is_own_pattern = config.patient_pattern != DEFAULT_PATIENT_PATTERN
    if len(patients) < len(slice_ids) and (patients or is_own_pattern):
        unknown = [slice_id for slice_id in slice_ids if slice_id not in patients]
        raise PreprocessingError(
            f"{len(unknown)} of {len(slice_ids)} slice names do not match the patient pattern "
            f"{config.patient_pattern!r}: {shorten(unknown)}; expected a match in each; "
            "rename them, or give a --patient-pattern that reads all names"
        )
    return patients


def assign_splits(
    slice_ids: Sequence[str], patients: Mapping[str, str], *, config: TfrecordsConfig
) -> tuple[Mapping[str, str], str]:
    """Decides which slices are for validation.

    Patients in the order of a salted hash go to validation until it has its share; the last one
    stays in training. A threshold on the hash instead would now and then leave a split empty.

    Returns:
        The split by ``slice_id``, and by what was split: ``patient`` or ``slice``.

    Raises:
        PreprocessingError: if there are fewer than two patients (or slices) to split.
    """
    split_by = BY_PATIENT if config.split_by == BY_PATIENT and patients else BY_SLICE
    units = patients if split_by == BY_PATIENT else {slice_id: slice_id for slice_id in slice_ids}
    slices_per_unit = Counter(units.values())
    if len(slices_per_unit) < 2:
        raise PreprocessingError(_too_few_units(slice_ids, patients, split_by=split_by))
    num_wanted = config.validation_fraction * len(slice_ids)
    validation: set[str] = set()
    num_taken = 0
    order = sort_by_hash(slices_per_unit, salt=f"split {config.seed}")
    for unit in order[:-1]:
        if num_taken >= num_wanted:
            break
        validation.add(unit)
        num_taken += slices_per_unit[unit]
    splits = {
        slice_id: VALIDATION_SPLIT if units[slice_id] in validation else TRAIN_SPLIT
        for slice_id in slice_ids
    }
    return splits, split_by


def sort_by_hash(names: Iterable[str], *, salt: str) -> list[str]:
    """Gives an order that looks random and is the same everywhere."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{salt}\0{name}".encode()).digest())


def shorten(names: Sequence[str]) -> str:
    """Gives the first names, and says how many more there are."""
    shown = ", ".join(names[:_NUM_SHOWN])
    num_more = len(names) - _NUM_SHOWN
    return f"{shown} and {num_more} more" if num_more > 0 else shown


def _walk(folder: Path, *, leave_out: Path, skipped: list[str]) -> Iterable[Path]:
    """Gives all files that are not hidden; links to folders are not followed but told."""
    left_out = leave_out.resolve()

    def fail(error: OSError) -> None:
        raise error

    for root, folders, names in os.walk(folder, onerror=fail):
        here = Path(root)
        links = [name for name in folders if (here / name).is_symlink()]
        skipped.extend(f"{(here / name).relative_to(folder).as_posix()}/" for name in links)
        folders[:] = sorted(
            name
            for name in folders
            if name not in links
            and not name.startswith(".")
            and (here / name).resolve() != left_out
        )
        yield from (here / name for name in sorted(names) if not name.startswith("."))


def _check_name(relative: str, *, folder: Path) -> None:
    try:
        relative.encode()
    except UnicodeEncodeError as error:
        raise PreprocessingError(
            f"{folder} holds a file whose name is not UTF-8: {relative!r}; rename it"
        ) from error


def _describe(skipped: Sequence[str]) -> str:
    return f"it holds {shorten(sorted(skipped))}" if skipped else "it is empty"


def _too_few_units(slice_ids: Sequence[str], patients: Mapping[str, str], *, split_by: str) -> str:
    if split_by == BY_SLICE:
        return (
            f"there is {len(slice_ids)} slice with a mask; expected at least 2, one for training "
            "and one for validation; add slices"
        )
    return (
        f"all {len(slice_ids)} slices are of one patient, {next(iter(patients.values()))!r}; "
        "expected at least 2 patients, so that validation shows how the model does on somebody "
        "it has not seen; add patients, correct --patient-pattern, or pass --split-by slice and "
        "do not trust its metrics"
    )
