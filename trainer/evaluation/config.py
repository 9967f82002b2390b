"""What is measured, on what, and how; flags and fields have the same names."""

import math
from dataclasses import dataclass
from pathlib import Path

from preprocessing.folders import DEFAULT_PATIENT_PATTERN
from preprocessing.spec import SPLITS, VALIDATION_SPLIT
from trainer.test_time import DEFAULT_FLIPS, DEFAULT_POSTPROCESS, check_flips

ALL_SPLITS = "all"
SPLIT_CHOICES = (*SPLITS, ALL_SPLITS)
"""A split of a dataset, or all of them."""

_OF_FOLDERS = (
    *("masks", "image_pattern", "mask_pattern", "patient_pattern", "mask_foreground"),
    "allow_orphans",
)
"""Settings that say how ``images`` are read, and nothing without them."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Settings of ``python -m trainer evaluate``.

    One of ``run``, ``checkpoint`` and ``model`` is measured, on a split of a dataset or on plain
    folders.
    """

    run: Path | None = None
    """Folder of a training run, of which the best epoch is measured."""

    checkpoint: Path | None = None
    """Folder of one checkpoint, such as ``RUN/checkpoints/latest/step-00000123``."""

    model: Path | None = None
    """Folder of a SavedModel, or of its numbered versions, of which the highest is measured."""

    out: Path
    """Folder for ``evaluation.json`` and ``predictions.png``."""

    data: Path | None = None
    """Dataset to measure on; ``None``: that of the run, unless folders are given."""

    split: str = VALIDATION_SPLIT
    """``train``, ``validation`` or ``all`` of the dataset."""

    images: Path | None = None
    """Folder of slices to measure on, instead of a dataset."""

    masks: Path | None = None
    """Folder of their masks; ``None``: they lie among the slices and are told by their names."""

    image_pattern: str | None = None
    """What sets the names of slices apart from those of masks; ``None``: as in preprocessing."""

    mask_pattern: str | None = None
    """What sets the names of masks apart from those of slices; ``None``: as in preprocessing."""

    patient_pattern: str = DEFAULT_PATIENT_PATTERN
    """How the name of a slice in ``images`` tells its patient, as in preprocessing."""

    mask_foreground: tuple[int, ...] | None = None
    """Gray values that are lung in ``masks``; ``None``: they hold 0 and 255, or 0 and 1."""

    allow_orphans: bool = False
    """Leave out slices in ``images`` without a mask and masks without a slice, and list them."""

    flips: str = DEFAULT_FLIPS
    """Which flips of a slice are segmented too and averaged: a name in ``FLIP_SETS``."""

    postprocess: bool = DEFAULT_POSTPROCESS
    """Clean predicted masks: drop specks, fill small holes."""

    scanner: str | None = None
    """Simulated scanner through which the slices are seen, a key of
    ``trainer.simulated_scanners.SCANNERS``; ``all``: the slices as they are, and then each scanner;
    ``None``: as they are."""

    scanner_every: int = 1
    """Simulated scanners are measured on each n-th slice only: neighbors are alike."""

    pixel_spacing_mm: float | None = None
    """Width and height of a pixel, in millimeters, for distances; ``None``: they are in pixels."""

    write_masks: bool = False
    """Also write each predicted mask as ``predicted_masks/SLICE_ID.png``."""

    def __post_init__(self) -> None:
        """Checks values.

        Raises:
            ValueError: if settings do not go together, or one cannot work.
        """
        self._check_what()
        self._check_on_what()
        check_flips(self.flips)
        check_scanner_every(self.scanner_every)
        if self.scanner is None and self.scanner_every != 1:
            raise ValueError(
                f"received --scanner-every {self.scanner_every} without --scanner; expected both, "
                "or no --scanner-every"
            )
        spacing = self.pixel_spacing_mm
        if spacing is not None and not 0 < spacing < math.inf:
            raise ValueError(
                f"--pixel-spacing-mm is {spacing}; expected the width of a pixel in millimeters, "
                "such as 0.7"
            )

    def _check_what(self) -> None:
        given = [
            flag
            for flag, value in (
                ("--run", self.run),
                ("--checkpoint", self.checkpoint),
                ("--model", self.model),
            )
            if value is not None
        ]
        if len(given) != 1:
            raise ValueError(
                f"received {' and '.join(given) or 'nothing to measure'}; expected exactly one of "
                "--run (its best epoch), --checkpoint and --model (a SavedModel)"
            )

    def _check_on_what(self) -> None:
        if self.split not in SPLIT_CHOICES:
            raise ValueError(
                f"--split is {self.split!r}; expected one of {', '.join(SPLIT_CHOICES)}"
            )
        if self.images is None:
            for name in _OF_FOLDERS:
                if getattr(self, name) != getattr(EvaluationConfig, name):
                    flag = f"--{name.replace('_', '-')}"
                    raise ValueError(
                        f"received {flag} without --images; expected both, to measure on plain "
                        f"folders, or no {flag}"
                    )
            if self.model is not None and self.data is None:
                raise ValueError(
                    "received --model and nothing to measure it on; a SavedModel does not know its "
                    "dataset, so expected --data, or --images and --masks"
                )
            return
        if self.data is not None:
            raise ValueError("received --data and --images; expected one of them")
        if self.split != VALIDATION_SPLIT:
            raise ValueError(
                f"received --split {self.split} and --images; expected no --split, as plain "
                "folders have none: all their slices are measured"
            )


def check_scanner_every(number: int) -> None:
    """Checks how many slices are left out for simulated scanners.

    Raises:
        ValueError: if it is no count.
    """
    if number < 1:
        raise ValueError(f"--scanner-every is {number}; expected at least 1: each slice")
