"""The options of the verb ``tfrecords``; flags and fields have the same names."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preprocessing.records import ENCODINGS, PNG_ENCODING
from preprocessing.spec import DEFAULT_RUNNER, MAX_PIXELS, READ_AUTO, READ_CHOICES, READ_VOLUMES
from preprocessing.volumes.windowing import Window

PATIENT_GROUP = "patient_id"
"""The group of a regular expression that is the ``patient_id``."""

PATIENT_NAME_PATTERN = rf"(?:^|/)(?P<{PATIENT_GROUP}>[^/]+?)_[zZ]_?\d+$"
"""Reads ``<patient>_z<slice>`` and ``<patient>_Z_<slice>``, such as ``ID_0001_Z_0142``."""

NAMES_PATTERN = "names"
FOLDERS_PATTERN = "folders"
AUTO_PATTERN = "auto"
"""Patients are read from names, or from folders if no name tells one."""

DEFAULT_IMAGE_PATTERN = (
    r"(?i)(?:^|/)(?:images?|imgs?|slices?|ct)(?=/)|[ ._-](?:image|img|slice|ct)$"
)
"""Finds what sets slices apart from masks in ``P1/images/012`` or ``P1_z012_ct``."""

DEFAULT_MASK_PATTERN = (
    r"(?i)(?:^|/)(?:masks?|segs?|segmentations?|labels?)(?=/)"
    r"|[ ._-](?:lung[ ._-]?)?(?:mask|seg|segmentation|label)$"
)
"""Finds what sets masks apart in ``P1/masks/012``, ``P1_z012_mask`` or ``P1_z012-Seg``."""

BY_PATIENT = "patient"
BY_SLICE = "slice"
SPLIT_BY_CHOICES = (BY_PATIENT, BY_SLICE)

SALT_SUFFIX = ".salt"
"""The salt of pseudonyms stands beside a dataset in a file of its name and this suffix."""


@dataclass(frozen=True, kw_only=True)
class TfrecordsConfig:
    """From where, to where, and how."""

    images: Path
    """Folder of slices (BMP, PNG, TIFF or JPEG) or of scans (DICOM series, NIfTI), in subfolders
    too."""

    masks: Path | None = None
    """Folder of masks with the names of their slices; None: they lie among the slices."""

    out: Path
    """Folder of the dataset, made by the job."""

    read: str = READ_AUTO
    """``slices``, ``volumes`` (DICOM and NIfTI), or ``auto``: what the folder holds."""

    window_level_hu: float = -600.0
    """Of volumes: center of the window through which they are looked at, in Hounsfield units."""

    window_width_hu: float = 1500.0
    """Of volumes: what is between black and white, in Hounsfield units."""

    structure: str = "(?i)lung"
    """Of volumes: regular expression that finds the segments of a DICOM SEG, or the structures of
    an RTSTRUCT, that are the mask."""

    salt_file: Path | None = None
    """Of volumes: file of the secret from which pseudonyms of patients are made; made if it is not
    there. None: `out` with `SALT_SUFFIX`."""

    image_pattern: str = DEFAULT_IMAGE_PATTERN
    """Regular expression that finds, in the path of a slice without its extension, what its mask's
    path does not have."""

    mask_pattern: str = DEFAULT_MASK_PATTERN
    """Regular expression that finds, in the path of a mask without its extension, what its slice's
    path does not have; where `masks` is None, it tells masks from slices."""

    mask_foreground: tuple[int, ...] | None = None
    """Gray values that are lung, 0 to 255, all others being background; None: a mask holds 0 and
    255, or 0 and 1, and nothing else."""

    allow_orphans: bool = False
    """Leave slices without a mask and masks without a slice out, instead of ending the job."""

    validation_fraction: float = 0.15
    """At least this share of the slices goes to validation; above 0, below 1."""

    split_by: str = BY_PATIENT
    """``patient`` keeps all slices of a patient in one split; ``slice`` does not."""

    split_file: Path | None = None
    """Table with the columns ``patient_id`` (or ``slice_id``) and ``split``, or an earlier
    ``dataset.json``, that says who is in which split; None: drawn by `seed`."""

    patient_pattern: str = AUTO_PATTERN
    """``auto``, ``names``, ``folders``, or a regular expression with the group ``patient_id``,
    searched in a slice's path without its extension."""

    seed: int = 0
    """Another seed gives another split and another order of records."""

    max_refused_fraction: float = 0.01
    """The job fails if a larger share of the slices is refused; 0 to 1.

    The default lets a large archive have a damaged file here and there; a wrong folder, a failed
    copy or a wrong export soon refuses more.
    """

    encoding: str = PNG_ENCODING
    """``png`` stores slices small and without loss, ``raw`` as pixels that need no decoding."""

    image_size: int | None = None
    """Height and width of the records, in pixels; None: as the slices come."""

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
        _check_choice("split_by", self.split_by, SPLIT_BY_CHOICES)
        _check_choice("encoding", self.encoding, ENCODINGS)
        _check_choice("read", self.read, READ_CHOICES)
        Window(self.window_level_hu, self.window_width_hu)
        _check_pattern("structure", self.structure, example=TfrecordsConfig.structure)
        self._check_shares()
        self._check_numbers()
        if any(option.split("=")[0] == "--runner" for option in self.beam_options):
            raise ValueError(
                "received --runner among Beam's own options; name the engine before the `--`"
            )
        _check_mark("image_pattern", self.image_pattern, example=DEFAULT_IMAGE_PATTERN)
        _check_mark("mask_pattern", self.mask_pattern, example=DEFAULT_MASK_PATTERN)
        if self.patient_pattern not in (AUTO_PATTERN, NAMES_PATTERN, FOLDERS_PATTERN):
            _check_patient_pattern(self.patient_pattern)

    def _check_shares(self) -> None:
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"received validation_fraction {self.validation_fraction}; expected a share above "
                "0 and below 1, such as 0.15, so that both splits have slices"
            )
        if self.split_file and self.validation_fraction != TfrecordsConfig.validation_fraction:
            raise ValueError(
                f"received split_file {self.split_file} and validation_fraction "
                f"{self.validation_fraction}; expected one of them, as the file decides the share"
            )
        if not 0 <= self.max_refused_fraction <= 1:
            raise ValueError(
                f"received max_refused_fraction {self.max_refused_fraction}; expected a share from "
                "0 (none may be refused) to 1"
            )

    def _check_numbers(self) -> None:
        foreground = self.mask_foreground
        if foreground is not None and (
            not foreground or not all(0 < value <= 255 for value in foreground)
        ):
            raise ValueError(
                f"received mask_foreground {list(foreground)}; expected gray values from 1 to 255 "
                "that are lung, such as 1,2"
            )
        if self.image_size is not None and not (
            self.image_size >= 1 and self.image_size**2 <= MAX_PIXELS
        ):
            raise ValueError(
                f"received image_size {self.image_size}; expected height and width in pixels, such "
                f"as 256, of at most {MAX_PIXELS} pixels in all"
            )
        if self.num_shards is not None and self.num_shards < 1:
            raise ValueError(
                f"received num_shards {self.num_shards}; expected at least 1, or leave it out"
            )

    def mask_folder(self) -> Path:
        """Gives the folder below which masks are found."""
        return self.images if self.masks is None else self.masks

    def window(self) -> Window:
        """Gives the window through which volumes are looked at."""
        return Window(self.window_level_hu, self.window_width_hu)

    def salt_path(self) -> Path:
        """Gives the file of the salt of pseudonyms."""
        return self.salt_file or self.out.with_name(f"{self.out.name}{SALT_SUFFIX}")

    def volume_options(self) -> dict[str, Any]:
        """Gives the options that decide, besides, what a dataset from volumes holds."""
        return {
            "read": READ_VOLUMES,
            "structure": self.structure,
            "window_level_hu": self.window_level_hu,
            "window_width_hu": self.window_width_hu,
        }

    def dataset_options(self) -> dict[str, Any]:
        """Gives the options that decide what the dataset holds.

        Without folders, engine and ``overwrite``: the same slices give the same ``dataset.json``
        wherever they lie and whatever engine runs.
        """
        return {
            "allow_orphans": self.allow_orphans,
            "encoding": self.encoding,
            "image_pattern": self.image_pattern,
            "image_size": self.image_size,
            "mask_foreground": self.mask_foreground and list(self.mask_foreground),
            "mask_pattern": self.mask_pattern,
            "max_refused_fraction": self.max_refused_fraction,
            "num_shards": self.num_shards,
            "patient_pattern": self.patient_pattern,
            "seed": self.seed,
            "split_by": self.split_by,
            "validation_fraction": self.validation_fraction,
        }


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"received {name} {value!r}; expected {' or '.join(choices)}")


def _check_pattern(name: str, pattern: str, *, example: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"received {name} {pattern!r}, which is no regular expression ({error}); expected "
            f"something like {example!r}"
        ) from error


def _check_mark(name: str, pattern: str, *, example: str) -> None:
    if _check_pattern(name, pattern, example=example).search(""):
        raise ValueError(
            f"received {name} {pattern!r}, which finds nothing in any name; expected something "
            f"like {example!r}"
        )


def _check_patient_pattern(patient_pattern: str) -> None:
    pattern = _check_pattern("patient_pattern", patient_pattern, example=PATIENT_NAME_PATTERN)
    if PATIENT_GROUP not in pattern.groupindex:
        raise ValueError(
            f"received patient_pattern {patient_pattern!r}, which has no group named "
            f"{PATIENT_GROUP}; expected {AUTO_PATTERN}, {NAMES_PATTERN}, {FOLDERS_PATTERN}, or "
            f"something like '(?P<{PATIENT_GROUP}>[^/]+)/'"
        )
