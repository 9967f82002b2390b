"""``dataset.json``: what a dataset holds, from what it was made, and with which hashes.

It is written last, so a folder without it is not a dataset. Readers take the list of shards from it
and never from a glob. This is a contract: ``trainer`` reads it too. Standard library only.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from preprocessing.spec import IMAGE_SPEC, SPLITS, ImageSpec

FILENAME = "dataset.json"
FORMAT = "lung-ct-segmentation-dataset"
SCHEMA_VERSION = 1
"""Goes up when a reader of the older version would misread a dataset of the newer one."""


class ManifestError(ValueError):
    """A dataset cannot be used: no ``dataset.json``, or one that this version cannot read."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One TFRecord file."""

    filename: str
    """Name inside the dataset's folder, such as ``train-00000-of-00002.tfrecord``."""

    num_examples: int
    """Number of records."""

    num_bytes: int
    """Size of the file."""

    sha256: str
    """Hash of the file, in hexadecimal."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """The shards of one split, and who is in it."""

    num_examples: int
    """Number of records in all shards."""

    patients: Mapping[str, int]
    """Number of records of each patient, by ``patient_id``."""

    shards: tuple[Shard, ...]
    """In the order of their names."""


@dataclass(frozen=True, kw_only=True)
class RefusedFile:
    """An input that is not in the dataset, and why."""

    file: str
    """``images/`` or ``masks/``, and the path below that folder."""

    reason: str
    """What was received, what was expected, and the mend."""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Figures over the pixels of the training split."""

    gray_value_mean: float
    """Mean gray value, 0 to 255."""

    gray_value_std: float
    """Standard deviation of the gray values."""

    foreground_fraction: float
    """Share of mask pixels that are lung, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class DatasetManifest:
    """All of ``dataset.json``."""

    splits: Mapping[str, Split]
    """By name: ``train`` and ``validation``."""

    statistics: Statistics
    """Pixel statistics of the training split."""

    refused: tuple[RefusedFile, ...]
    """Inputs that were left out."""

    skipped: tuple[str, ...] = ()
    """Files beside the inputs that are no images, and links to folders that were read already."""

    options: Mapping[str, Any]
    """The configuration that made the dataset."""

    versions: Mapping[str, str]
    """Versions of the libraries that made the dataset."""

    split_by: str
    """``patient``, or ``slice`` when no patient id could be derived."""

    spec: ImageSpec = IMAGE_SPEC
    """What the pixels of a record are."""

    def to_json(self) -> str:
        """Gives the text of ``dataset.json``; equal manifests give equal text."""
        document = {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            **dataclasses.asdict(self),
        }
        return json.dumps(document, indent=2, sort_keys=True) + "\n"

    def data_sha256(self) -> str:
        """Gives one hash of all records: the SHA-256 of the sorted hashes of the shards.

        Datasets of equal records in equal shards have the same, wherever they lie.
        """
        hashes = sorted(shard.sha256 for split in self.splits.values() for shard in split.shards)
        return hashlib.sha256("\n".join(hashes).encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str, *, source: str) -> Self:
        """Reads the text of ``dataset.json``.

        Args:
            text: the whole text.
            source: where it is from, for messages.

        Raises:
            ManifestError: if the text is not a manifest of this schema version.
        """
        try:
            document = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ManifestError(
                f"{source} is not JSON ({error}); write the dataset again with `make tfrecords`"
            ) from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ManifestError(
                f"{source} is not a dataset of this project: expected format {FORMAT!r}; "
                "point to the folder that `make tfrecords` wrote"
            )
        if document.get("schema_version") != SCHEMA_VERSION:
            raise ManifestError(
                f"{source} has schema version {document.get('schema_version')!r}; this version of "
                f"the project reads {SCHEMA_VERSION}; write the dataset again with `make tfrecords`"
            )
        try:
            _check_types(document)
            return cls(
                splits={name: _split(document["splits"][name]) for name in SPLITS},
                statistics=Statistics(**document["statistics"]),
                refused=tuple(RefusedFile(**entry) for entry in document["refused"]),
                skipped=tuple(document["skipped"]),
                options=document["options"],
                versions=document["versions"],
                split_by=document["split_by"],
                spec=ImageSpec(**document["spec"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ManifestError(
                f"{source} lacks or has too much of something ({error!r}); "
                "write the dataset again with `make tfrecords`"
            ) from error

    @classmethod
    def load(cls, dataset_dir: Path) -> Self:
        """Reads the manifest of a dataset.

        Raises:
            ManifestError: if the folder holds no manifest that this version can read.
        """
        path = dataset_dir / FILENAME
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            found = f"holds no {FILENAME}" if dataset_dir.exists() else "does not exist"
            raise ManifestError(
                f"{dataset_dir} {found}, so it is not a whole dataset; "
                "write one with `make tfrecords IMAGES=… MASKS=… OUT=…`"
            ) from error
        except OSError as error:
            raise ManifestError(f"{path} cannot be read: {error}") from error
        return cls.from_json(text, source=str(path))


def _check_types(document: Mapping[str, Any]) -> None:
    """Looks whether all parts are of the types that readers count on.

    Raises:
        TypeError: if one is not; it is named.
        KeyError: if one is missing.
    """
    _check_type(document, "options", dict)
    _check_type(document, "versions", dict)
    _check_type(document, "split_by", str)
    _check_type(document, "skipped", list)
    for name in document["statistics"]:
        _check_type(document["statistics"], name, (int, float))
    for split in SPLITS:
        part = document["splits"][split]
        _check_type(part, "num_examples", int)
        _check_type(part, "patients", dict)
        for patient in part["patients"]:
            _check_type(part["patients"], patient, int)
        for shard in part["shards"]:
            for key, kind in (("filename", str), ("num_bytes", int), ("num_examples", int)):
                _check_type(shard, key, kind)
            if "/" in shard["filename"]:
                raise TypeError(f"{shard['filename']!r} is no name of a file in its folder")


def _check_type(part: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> None:
    if not isinstance(part[key], kind) or isinstance(part[key], bool):
        raise TypeError(f"{key} is {part[key]!r}")


def _split(document: dict[str, Any]) -> Split:
    return Split(
        num_examples=document["num_examples"],
        patients=document["patients"],
        shards=tuple(Shard(**shard) for shard in document["shards"]),
    )
