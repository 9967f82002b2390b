"""A split that the user has decided on: a table, or the split of an earlier dataset."""

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from preprocessing import manifest
from preprocessing.config import BY_PATIENT
from preprocessing.errors import PreprocessingError
from preprocessing.finding import unify
from preprocessing.manifest import DatasetManifest
from preprocessing.spec import SPLITS

_SPLIT_COLUMN = "split"
_SEPARATORS = (",", ";", "\t")
_UTF16_STARTS = (b"\xff\xfe", b"\xfe\xff")
_WORKBOOK_START = b"PK\x03\x04"


@dataclass(frozen=True, kw_only=True)
class PinnedSplit:
    """Who is in which split."""

    splits: Mapping[str, str]
    """Name of the split by patient or slice, in unified spelling."""

    sha256: str
    """Hash of the file, in hexadecimal."""


def read_split_file(path: Path, *, split_by: str) -> PinnedSplit:
    """Reads who is in which split.

    Args:
        path: a table (CSV, as spreadsheets write it) with the columns ``patient_id`` and
            ``split``, or ``slice_id`` and ``split``; or the ``dataset.json`` of a dataset that was
            split by patient.
        split_by: ``patient`` or ``slice``: the column that is expected.

    Raises:
        PreprocessingError: if the file cannot be read, lacks a column, names another split than
            ``train`` and ``validation``, or names somebody twice with different ones.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PreprocessingError(
            f"--split-file {path} cannot be read ({error.strerror}); expected a table as text"
        ) from error
    text = _decode(content, path=path)
    if text.lstrip().startswith("{"):
        rows = _rows_of_dataset(text, path=path, split_by=split_by)
    else:
        rows = _rows_of_table(text, path=path, column=f"{split_by}_id")
    splits: dict[str, str] = {}
    for line, unit, split in rows:
        if split not in SPLITS or not unit:
            raise PreprocessingError(
                f"--split-file {path}, line {line}, puts {unit!r} into {split!r}; expected a name "
                f"and {' or '.join(SPLITS)}; correct the line"
            )
        if splits.setdefault(unify(unit), split) != split:
            raise PreprocessingError(
                f"--split-file {path}, line {line}, puts {unit} into {split}, and an earlier line "
                f"into {splits[unify(unit)]}; expected one split for each; remove one of them"
            )
    return PinnedSplit(splits=splits, sha256=hashlib.sha256(content).hexdigest())


def _decode(content: bytes, *, path: Path) -> str:
    if content.startswith(_WORKBOOK_START):
        raise PreprocessingError(
            f"--split-file {path} is a workbook of a spreadsheet; expected a table as text; save "
            "it as CSV"
        )
    # Spreadsheets mark UTF-8, and write UTF-16 as "Unicode text".
    encoding = "utf-16" if content.startswith(_UTF16_STARTS) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise PreprocessingError(
            f"--split-file {path} cannot be read ({error}); expected a table as UTF-8 text"
        ) from error


def _rows_of_table(text: str, *, path: Path, column: str) -> list[tuple[int, str, str]]:
    lines = text.splitlines()
    # Where the comma is for decimals, spreadsheets separate by a semicolon, and may say so.
    num_skipped = int(bool(lines) and lines[0].startswith("sep="))
    header = lines[num_skipped] if len(lines) > num_skipped else ""
    separator = max(_SEPARATORS, key=header.count)
    reader = csv.DictReader(
        lines[num_skipped:], delimiter=separator, skipinitialspace=True, strict=True
    )
    try:
        columns = [name.strip().lower() for name in reader.fieldnames or []]
    except csv.Error as error:
        raise PreprocessingError(
            f"--split-file {path}, line {num_skipped + 1}, is no row of a table ({error})"
        ) from error
    reader.fieldnames = columns
    if column not in columns or _SPLIT_COLUMN not in columns:
        by_slice = " (with --split-by slice: slice_id)" if column == "patient_id" else ""
        raise PreprocessingError(
            f"--split-file {path} has the columns {', '.join(columns) or 'none'}; expected "
            f"{column},{_SPLIT_COLUMN}{by_slice} in its first line"
        )
    try:
        return [
            (
                num_skipped + reader.line_num,
                (row[column] or "").strip(),
                (row[_SPLIT_COLUMN] or "").strip(),
            )
            for row in reader
        ]
    except csv.Error as error:
        line = num_skipped + reader.line_num + 1
        raise PreprocessingError(
            f"--split-file {path}, line {line}, is no row of a table ({error})"
        ) from error


def _rows_of_dataset(text: str, *, path: Path, split_by: str) -> list[tuple[int, str, str]]:
    try:
        dataset = DatasetManifest.from_json(text, source=f"--split-file {path}")
    except manifest.ManifestError as error:
        raise PreprocessingError(str(error)) from error
    if split_by != BY_PATIENT or dataset.split_by != BY_PATIENT:
        raise PreprocessingError(
            f"--split-file {path} is a dataset; expected one that is split by patient, and "
            "--split-by patient; give a table instead"
        )
    return [
        (1, patient, name) for name, split in dataset.splits.items() for patient in split.patients
    ]
