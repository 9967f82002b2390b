"""Which patient a slice is of, and which patient is in which split."""

import hashlib
import re
from collections import Counter, defaultdict
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

_FIRST_FOLDER = rf"^(?P<{PATIENT_GROUP}>[^/]+)/"
_SECOND_FOLDER = rf"^[^/]+/(?P<{PATIENT_GROUP}>[^/]+)/"

MAX_OVER_SHARE = 2
"""Validation takes a patient only up to so many times its share, if there are others."""


@dataclass(frozen=True, kw_only=True)
class Patients:
    """Whose slices they are."""

    by_slice_id: Mapping[str, str]
    """``patient_id`` of every slice; empty if that is not known."""

    source: str
    """What told it, for people: ``names``, ``folders``, ``--patient-pattern``, or ``nothing``."""


def find_patients(slice_ids: Sequence[str], *, config: TfrecordsConfig) -> Patients:
    """Reads whose slice it is from each name, for a split.

    Raises:
        PreprocessingError: as `read_patients`. A split by slice needs no patients and goes without.
    """
    try:
        return read_patients(slice_ids, pattern=config.patient_pattern)
    except PreprocessingError as error:
        if config.split_by == BY_PATIENT:
            raise PreprocessingError(
                f"{error}; or pass --split-by slice and do not trust the metrics"
            ) from error
        return Patients(by_slice_id={}, source="nothing")


def read_patients(slice_ids: Sequence[str], *, pattern: str) -> Patients:
    """Reads whose slice it is from each name, by `TfrecordsConfig.patient_pattern`.

    Ids that differ only in case are those of one patient, who has the first spelling.

    Raises:
        PreprocessingError: if only some names tell it, or if names and folders disagree, as a split
            could leak a patient then; or if a pattern of the user's own reads none.
    """
    found, source = _search(slice_ids, pattern=pattern)
    spellings: dict[str, str] = {}
    for slice_id in sorted(found):
        spellings.setdefault(unify(found[slice_id]), found[slice_id])
    return Patients(
        by_slice_id={key: spellings[unify(patient_id)] for key, patient_id in found.items()},
        source=source,
    )


def _search(slice_ids: Sequence[str], *, pattern: str) -> tuple[dict[str, str], str]:
    """Gives ``patient_id`` by ``slice_id``, and what told it."""
    if pattern == FOLDERS_PATTERN:
        return _search_all(slice_ids, _FIRST_FOLDER, name=pattern), FOLDERS_PATTERN
    if pattern == NAMES_PATTERN:
        return _search_all(slice_ids, PATIENT_NAME_PATTERN, name=pattern), NAMES_PATTERN
    if pattern != AUTO_PATTERN:
        return _search_all(slice_ids, pattern, name=pattern), "--patient-pattern"
    if any(re.search(PATIENT_NAME_PATTERN, slice_id) for slice_id in slice_ids):
        by_name = _search_all(slice_ids, PATIENT_NAME_PATTERN, name=pattern)
        _check_agreement(by_name)
        return by_name, NAMES_PATTERN
    levels = _folder_levels(slice_ids)
    if len({_groups(level) for level in levels}) > 1:
        raise PreprocessingError(_which_folder(slice_ids, levels))
    if not levels or len(set(levels[0].values())) == 1:
        return {}, "nothing"
    return _search_all(slice_ids, _FIRST_FOLDER, name=pattern), FOLDERS_PATTERN


def _search_all(slice_ids: Sequence[str], pattern: str, *, name: str) -> dict[str, str]:
    """Searches in every name; one that tells nothing is an error."""
    matches = {slice_id: re.search(pattern, slice_id) for slice_id in slice_ids}
    found = {key: match[PATIENT_GROUP] for key, match in matches.items() if match}
    unknown = [slice_id for slice_id in slice_ids if not found.get(slice_id)]
    if unknown:
        raise PreprocessingError(
            f"{len(unknown)} of {len(slice_ids)} slices tell no patient by --patient-pattern "
            f"{name}: {shorten(unknown)}; expected one for each; rename them, or give "
            "a --patient-pattern that reads all of them"
        )
    return found


def _folder_levels(slice_ids: Iterable[str]) -> list[dict[str, str]]:
    """Gives, for each number of folders, the path of so many folders of each slice.

    A slice that lies less deep has its whole path.
    """
    folders = {slice_id: slice_id.split("/")[:-1] for slice_id in slice_ids}
    depth = max(map(len, folders.values()))
    return [
        {slice_id: "/".join(parts[:level]) for slice_id, parts in folders.items()}
        for level in range(1, depth + 1)
    ]


def _groups(names: Mapping[str, str]) -> frozenset[frozenset[str]]:
    """Gives which slices belong together, whatever the name of a group."""
    members = defaultdict(set)
    for slice_id, name in names.items():
        members[name].add(slice_id)
    return frozenset(map(frozenset, members.values()))


def _check_agreement(by_name: Mapping[str, str]) -> None:
    """Refuses to guess where folders group slices in another way than names do.

    ``P1/a_z1`` and ``P2/a_z1`` may be two patients, or two visits of one; ``P1/a_z1`` and
    ``P1/b_z1`` two patients of one place, or two series of one.
    """
    levels = _folder_levels(by_name)
    groups = _groups({slice_id: unify(name) for slice_id, name in by_name.items()})
    found = {_groups(level) for level in levels}
    is_one_folder = found == {frozenset({frozenset(by_name)})}
    if not levels or is_one_folder or groups in found:
        return
    shown = shorten(sorted({f"{level}: {by_name[key]}" for key, level in levels[-1].items()}))
    raise PreprocessingError(
        f"names and folders tell different patients ({shown}); expected one answer; pass "
        f"--patient-pattern {NAMES_PATTERN} if names are right, --patient-pattern "
        f"{FOLDERS_PATTERN} if each of {_first(levels[0].values())} is a patient, or a "
        "regular expression"
    )


def _which_folder(slice_ids: Sequence[str], levels: Sequence[Mapping[str, str]]) -> str:
    second = {path.split("/")[1] for path in levels[1].values() if "/" in path}
    return (
        f"--patient-pattern {AUTO_PATTERN} cannot tell which folders are patients: slices lie in "
        f"folders of folders, such as {slice_ids[0]}; expected one folder for each; pass "
        f"--patient-pattern {FOLDERS_PATTERN} if each of {_first(levels[0].values())} is a "
        f"patient, or --patient-pattern '{_SECOND_FOLDER}' if each of {_first(second)} is one"
    )


def _first(names: Iterable[str]) -> str:
    return shorten(sorted(set(names)))


def assign_splits(
    slice_ids: Sequence[str],
    patients: Mapping[str, str],
    *,
    config: TfrecordsConfig,
    pinned: Mapping[str, str] | None = None,
) -> tuple[Mapping[str, str], str]:
    """Decides which slices are for validation.

    Patients in the order of a salted hash go to validation until it has its share, without those
    that would make it far too large; one at least stays in training. A threshold on the hash
    instead would now and then leave a split empty.

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
    split_of = dict.fromkeys(slices_per_unit, TRAIN_SPLIT)
    order = sort_by_hash(slices_per_unit, salt=f"split {config.seed}")
    fitting = [unit for unit in order if slices_per_unit[unit] <= MAX_OVER_SHARE * num_wanted]
    # The others come last, the smallest of them first.
    large = sorted(set(order) - set(fitting), key=lambda unit: (slices_per_unit[unit], unit))
    num_taken = 0
    for unit in [*fitting, *large][:-1]:
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
