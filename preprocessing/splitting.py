"""Which patient a slice is of, and which patient is in which split."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from preprocessing.config import (
    AUTO_PATTERN,
    BY_PATIENT,
    BY_SLICE,
    FOLDERS_PATTERN,
    NAMES_PATTERN,
    PATIENT_GROUP,
    PATIENT_NAME_PATTERN,
    TfrecordsConfig,
)
from preprocessing.errors import PreprocessingError
from preprocessing.finding import shorten, unify
from preprocessing.spec import SPLITS, TRAIN_SPLIT, VALIDATION_SPLIT


@dataclass(frozen=True, kw_only=True)
class Patients:
    """Whose slices they are."""

    by_slice_id: Mapping[str, str]
    """``patient_id`` of every slice; empty if that is not known."""

    source: str
    """What told it, for people: ``names``, ``folders``, ``--patient-pattern``, or ``nothing``."""


def find_patients(slice_ids: Sequence[str], *, config: TfrecordsConfig) -> Patients:
    """Reads whose slice it is from each name.

    Ids that differ only in case are those of one patient, who has the first spelling.

    Raises:
        PreprocessingError: if only some names tell it, or if names and folders disagree, as a split
            could leak a patient then; or if a pattern of the user's own reads none. A split by
            slice needs no patients and goes without.
    """
    try:
        found, source = _read_patients(slice_ids, pattern=config.patient_pattern)
    except PreprocessingError:
        if config.split_by == BY_PATIENT:
            raise
        return Patients(by_slice_id={}, source="nothing")
    spellings: dict[str, str] = {}
    for slice_id in sorted(found):
        spellings.setdefault(unify(found[slice_id]), found[slice_id])
    return Patients(
        by_slice_id={key: spellings[unify(patient_id)] for key, patient_id in found.items()},
        source=source,
    )


def _read_patients(slice_ids: Sequence[str], *, pattern: str) -> tuple[dict[str, str], str]:
    """Gives ``patient_id`` by ``slice_id``, and what told it."""
    by_folder = _search_folders(slice_ids)
    if pattern == FOLDERS_PATTERN:
        _check_all(by_folder, slice_ids, pattern=pattern)
        return by_folder, FOLDERS_PATTERN
    if pattern not in (AUTO_PATTERN, NAMES_PATTERN):
        by_pattern = _search(slice_ids, pattern=pattern)
        _check_all(by_pattern, slice_ids, pattern=pattern)
        return by_pattern, "--patient-pattern"
    by_name = _search(slice_ids, pattern=PATIENT_NAME_PATTERN)
    if by_name or pattern == NAMES_PATTERN:
        _check_all(by_name, slice_ids, pattern=pattern)
        if pattern == AUTO_PATTERN:
            _check_agreement(by_name, by_folder)
        return by_name, NAMES_PATTERN
    if by_folder:
        _check_all(by_folder, slice_ids, pattern=pattern)
        return by_folder, FOLDERS_PATTERN
    return {}, "nothing"


def _search(slice_ids: Sequence[str], *, pattern: str) -> dict[str, str]:
    compiled = re.compile(pattern)
    found = {slice_id: compiled.search(slice_id) for slice_id in slice_ids}
    return {
        slice_id: match[PATIENT_GROUP]
        for slice_id, match in found.items()
        if match and match[PATIENT_GROUP]
    }


def _search_folders(slice_ids: Sequence[str]) -> dict[str, str]:
    """Gives the first folder that not all slices share; the first one cannot leak a patient."""
    folders = [slice_id.split("/")[:-1] for slice_id in slice_ids]
    num_shared = len(os.path.commonprefix(folders))
    return {
        slice_id: folder[num_shared]
        for slice_id, folder in zip(slice_ids, folders, strict=True)
        if len(folder) > num_shared
    }


def _check_all(found: Mapping[str, str], slice_ids: Sequence[str], *, pattern: str) -> None:
    unknown = [slice_id for slice_id in slice_ids if slice_id not in found]
    if unknown:
        raise PreprocessingError(
            f"{len(unknown)} of {len(slice_ids)} slices tell no patient by --patient-pattern "
            f"{pattern}: {shorten(unknown)}; expected one for each; rename them, give a "
            "--patient-pattern that reads all of them, or pass --split-by slice and do not trust "
            "the metrics"
        )


def _check_agreement(by_name: Mapping[str, str], by_folder: Mapping[str, str]) -> None:
    """Refuses to guess where one name is in several folders: series of a patient, or patients?"""
    folder_of: dict[str, str] = {}
    for slice_id, patient_id in by_name.items():
        folder = by_folder.get(slice_id, "")
        first = folder_of.setdefault(unify(patient_id), folder)
        if first != folder:
            raise PreprocessingError(
                f"names and folders tell different patients: slices named {patient_id} are in "
                f"{first or 'no folder'} and in {folder or 'no folder'}, such as {slice_id}; "
                f"expected one answer; pass --patient-pattern {NAMES_PATTERN} if {patient_id} is "
                f"one patient, or --patient-pattern {FOLDERS_PATTERN} if each folder is one"
            )


def assign_splits(
    slice_ids: Sequence[str],
    patients: Mapping[str, str],
    *,
    config: TfrecordsConfig,
    pinned: Mapping[str, str] | None = None,
) -> tuple[Mapping[str, str], str]:
    """Decides which slices are for validation.

    Patients in the order of a salted hash go to validation until it has its share; the last one
    stays in training. A threshold on the hash instead would now and then leave a split empty.

    Args:
        slice_ids: all slices.
        patients: ``patient_id`` by ``slice_id``, or empty.
        config: how large the share is, and what is kept together.
        pinned: the split of each patient (or slice), in unified spelling, if the user has decided.

    Returns:
        The split by ``slice_id``, and by what was split: ``patient`` or ``slice``.

    Raises:
        PreprocessingError: if there are fewer than two patients (or slices) to split, or if the
            user's decision leaves one of them or a whole split out.
    """
    split_by = BY_PATIENT if config.split_by == BY_PATIENT and patients else BY_SLICE
    units = patients if split_by == BY_PATIENT else {slice_id: slice_id for slice_id in slice_ids}
    slices_per_unit = Counter(units[slice_id] for slice_id in slice_ids)
    if pinned is not None:
        split_of = _look_up(slices_per_unit, pinned, config=config)
    elif len(slices_per_unit) < 2:
        raise PreprocessingError(_too_few_units(slice_ids, patients, split_by=split_by))
    else:
        split_of = _draw(slices_per_unit, config=config)
    return {slice_id: split_of[units[slice_id]] for slice_id in slice_ids}, split_by


def _draw(slices_per_unit: Counter[str], *, config: TfrecordsConfig) -> dict[str, str]:
    num_wanted = config.validation_fraction * slices_per_unit.total()
    num_taken = 0
    split_of = dict.fromkeys(slices_per_unit, TRAIN_SPLIT)
    for unit in sort_by_hash(slices_per_unit, salt=f"split {config.seed}")[:-1]:
        if num_taken >= num_wanted:
            break
        split_of[unit] = VALIDATION_SPLIT
        num_taken += slices_per_unit[unit]
    return split_of


def _look_up(
    units: Iterable[str], pinned: Mapping[str, str], *, config: TfrecordsConfig
) -> dict[str, str]:
    missing = sorted(unit for unit in units if unify(unit) not in pinned)
    if missing:
        raise PreprocessingError(
            f"--split-file {config.split_file} does not name {len(missing)} that have slices: "
            f"{shorten(missing)}; expected a line for each {config.split_by}; add them"
        )
    split_of = {unit: pinned[unify(unit)] for unit in units}
    empty = [split for split in SPLITS if split not in split_of.values()]
    if empty:
        raise PreprocessingError(
            f"--split-file {config.split_file} leaves the {empty[0]} split empty: all "
            f"{len(split_of)} that have slices are in the other one; expected some in each"
        )
    return split_of


def sort_by_hash(names: Iterable[str], *, salt: str) -> list[str]:
    """Gives an order that looks random and is the same everywhere."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{salt}\0{name}".encode()).digest())


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
