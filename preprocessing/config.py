"""The options of the verb ``tfrecords``; flags and fields have the same names."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENT_GROUP = "patient_id"
"""The group of `TfrecordsConfig.patient_pattern` that is the ``patient_id``."""

DEFAULT_PATIENT_PATTERN = rf"(?:^|/)(?P<{PATIENT_GROUP}>[^/]+?)_[zZ]_?\d+$"
"""Reads ``<patient>_z<slice>`` and ``<patient>_Z_<slice>``, such as ``ID_0001_Z_0142``.

Folders are no part of the id: the same name in two folders is taken for the same patient, which can
cost variety in a split but never leaks a patient.
"""

BY_PATIENT = "patient"
BY_SLICE = "slice"
SPLIT_BY_CHOICES = (BY_PATIENT, BY_SLICE)

DEFAULT_RUNNER = "FnApiRunner"


@dataclass(frozen=True, kw_only=True)
class TfrecordsConfig:
    """From where, to where, and how."""

    images: Path
    """Folder of slices: BMP or PNG, in subfolders too."""

    masks: Path
    """Folder of masks with the same names."""

    out: Path
    """Folder of the dataset, made by the job."""

    validation_fraction: float = 0.15
    """At least this share of the slices goes to validation; above 0, below 1."""

    split_by: str = BY_PATIENT
    """``patient`` keeps all slices of a patient in one split; ``slice`` does not."""

    patient_pattern: str = DEFAULT_PATIENT_PATTERN
    """Regular expression with the group ``patient_id``, searched in a slice's path without its
    extension."""

    seed: int = 0
    """Another seed gives another split and another order of records."""

    max_refused_fraction: float = 0.01
    """The job fails if a larger share of the slices is refused; 0 to 1.

    The default lets a large archive have a damaged file here and there; a wrong folder, a failed
    copy or a wrong export soon refuses more.
    """

    num_shards: int | None = None
    """Number of files of the training split, validation in proportion; None: from the sizes."""

    overwrite: bool = False
    """Replace the dataset that `out` holds."""

    runner: str = DEFAULT_RUNNER
    """Beam's name of the engine."""

    beam_options: tuple[str, ...] = ()
    """Beam's own options, such as ``--direct_num_workers=4``; on the command line after ``--``."""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: if a value is out of its range or cannot be used.
        """
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"received validation_fraction {self.validation_fraction}; expected a share above "
                "0 and below 1, such as 0.15, so that both splits have slices"
            )
        if not 0 <= self.max_refused_fraction <= 1:
            raise ValueError(
                f"received max_refused_fraction {self.max_refused_fraction}; expected a share from "
                "0 (none may be refused) to 1"
            )
        if self.split_by not in SPLIT_BY_CHOICES:
            raise ValueError(
                f"received split_by {self.split_by!r}; expected {' or '.join(SPLIT_BY_CHOICES)}"
            )
        if self.num_shards is not None and self.num_shards < 1:
            raise ValueError(
                f"received num_shards {self.num_shards}; expected at least 1, or leave it out"
            )
        if any(option.split("=")[0] == "--runner" for option in self.beam_options):
            raise ValueError(
                "received --runner among Beam's own options; name the engine before the `--`"
            )
        _check_patient_pattern(self.patient_pattern)

    def dataset_options(self) -> dict[str, Any]:
        """Gives the options that decide what the dataset holds.

        Without folders, engine and ``overwrite``: the same slices give the same ``dataset.json``
        wherever they lie and whatever engine runs.
        """
        return {
            "max_refused_fraction": self.max_refused_fraction,
            "num_shards": self.num_shards,
            "patient_pattern": self.patient_pattern,
            "seed": self.seed,
            "split_by": self.split_by,
            "validation_fraction": self.validation_fraction,
        }


def _check_patient_pattern(patient_pattern: str) -> None:
    try:
        pattern = re.compile(patient_pattern)
    except re.error as error:
        raise ValueError(
            f"received patient_pattern {patient_pattern!r}, which is no regular expression "
            f"({error}); expected something like {DEFAULT_PATIENT_PATTERN!r}"
        ) from error
    if PATIENT_GROUP not in pattern.groupindex:
        raise ValueError(
            f"received patient_pattern {patient_pattern!r}, which has no group named "
            f"{PATIENT_GROUP}; expected something like '(?P<{PATIENT_GROUP}>[^/]+)/'"
        )
