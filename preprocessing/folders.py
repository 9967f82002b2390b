"""Plain folders of slices and masks: paired, told whose they are, and read, as `tfrecords` does.

This is a contract: ``trainer`` measures models on such folders too. Neither Beam nor TensorFlow.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocessing.config import (
    AUTO_PATTERN,
    DEFAULT_IMAGE_PATTERN,
    DEFAULT_MASK_PATTERN,
    TfrecordsConfig,
)
from preprocessing.errors import PreprocessingError
from preprocessing.images.reading import (
    NOT_BINARY,
    UnreadableImageError,
    read_labels,
    read_mask,
    read_slice,
)
from preprocessing.manifest import RefusedFile
from preprocessing.pairing import Pair, find_pairs
from preprocessing.refusals import describe_refused
from preprocessing.splitting import read_patients

MAX_REFUSED_FRACTION = TfrecordsConfig.max_refused_fraction
"""A job fails if a larger share of the slices is refused, unless its user says otherwise."""

DEFAULT_PATIENT_PATTERN = AUTO_PATTERN

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class SliceFolders:
    """Slices that have a mask, and those that have none."""

    config: TfrecordsConfig
    """Says where they are and how masks are read."""

    pairs: tuple[Pair, ...]
    """In the order of their ``slice_id``."""

    orphans: tuple[RefusedFile, ...]
    """Slices without a mask and masks without a slice, with the reason."""

    patients: Mapping[str, str]
    """``patient_id`` of every slice by ``slice_id``; empty if that is not known."""

    patients_unknown: str
    """Why it is not known; empty if it is."""

    def read(self, pair: Pair) -> tuple[Pixels | None, Pixels | None, list[RefusedFile]]:
        """Reads a slice and its mask, as `read_pair`."""
        return read_pair(
            pair,
            images=self.config.images,
            masks=self.config.mask_folder(),
            read_mask=self._read_mask,
        )

    def describe(self, refused: RefusedFile) -> str:
        """Gives one line with the file's path as the user knows it, and the reason."""
        return describe_refused(refused, self.config)

    @staticmethod
    def are_swapped(refused: Sequence[RefusedFile]) -> bool:
        """Tells whether all of these were refused as masks for looking like slices."""
        return all(entry.reason.startswith(NOT_BINARY) for entry in refused)

    def _read_mask(self, path: Path) -> Pixels:
        foreground = self.config.mask_foreground
        if foreground is None:
            return read_mask(path)
        return np.isin(read_labels(path), foreground).view(np.uint8)


def list_folders(
    *,
    images: Path,
    masks: Path | None,
    out: Path,
    image_pattern: str | None = None,
    mask_pattern: str | None = None,
    patient_pattern: str = DEFAULT_PATIENT_PATTERN,
    mask_foreground: tuple[int, ...] | None = None,
) -> SliceFolders:
    """Pairs the slices and masks of folders and reads whose they are from their names.

    Names that do not tell it are no error unless a pattern was given that should have read it.

    Args:
        images: folder of slices.
        masks: folder of masks; None: they lie among the slices.
        out: folder of the results, which is not looked into.
        image_pattern: as `TfrecordsConfig.image_pattern`; None: its default.
        mask_pattern: as `TfrecordsConfig.mask_pattern`; None: its default.
        patient_pattern: as `TfrecordsConfig.patient_pattern`.
        mask_foreground: as `TfrecordsConfig.mask_foreground`.

    Raises:
        ValueError: if a setting cannot be used.
        PreprocessingError: if there is no pair, if two files have one name, or if a pattern other
            than ``auto`` does not read a patient from every name.
        OSError: if a folder cannot be read.
    """
    config = TfrecordsConfig(
        images=images,
        masks=masks,
        out=out,
        image_pattern=DEFAULT_IMAGE_PATTERN if image_pattern is None else image_pattern,
        mask_pattern=DEFAULT_MASK_PATTERN if mask_pattern is None else mask_pattern,
        patient_pattern=patient_pattern,
        mask_foreground=mask_foreground,
    )
    found = find_pairs(config)
    patients: Mapping[str, str] = {}
    unknown = "no name or folder tells whose slice it is"
    try:
        patients = read_patients(
            [pair.slice_id for pair in found.pairs], pattern=patient_pattern
        ).by_slice_id
    except PreprocessingError as error:
        if patient_pattern != AUTO_PATTERN:
            raise
        unknown = str(error)
    return SliceFolders(
        config=config,
        pairs=found.pairs,
        orphans=found.orphans,
        patients=patients,
        patients_unknown="" if patients else unknown,
    )


def read_pair(
    pair: Pair, *, images: Path, masks: Path, read_mask: Callable[[Path], Pixels]
) -> tuple[Pixels | None, Pixels | None, list[RefusedFile]]:
    """Reads a slice and its mask, both, so that the reasons of both are told at once.

    Args:
        pair: which files.
        images: folder of the slices.
        masks: folder of the masks.
        read_mask: gives a mask, [height, width] uint8 in {0, 1}, or raises UnreadableImageError.

    Returns:
        The slice, [height, width] uint8 gray values, the mask, and why one of them is refused;
        neither is to be used if one is.
    """
    refused = []
    image, mask = None, None
    try:
        image = read_slice(images / pair.image_path)
    except UnreadableImageError as error:
        refused.append(RefusedFile(file=f"images/{pair.image_path}", reason=error.reason))
    try:
        mask = read_mask(masks / pair.mask_path)
    except UnreadableImageError as error:
        refused.append(RefusedFile(file=f"masks/{pair.mask_path}", reason=error.reason))
    if image is not None and mask is not None and image.shape != mask.shape:
        reason = (
            f"is {_describe_size(mask)}, but its slice {pair.image_path} is "
            f"{_describe_size(image)}; expected equal sizes; export the mask again at the size of "
            "its slice"
        )
        refused.append(RefusedFile(file=f"masks/{pair.mask_path}", reason=reason))
    return image, mask, refused


def _describe_size(pixels: Pixels) -> str:
    height, width = pixels.shape
    return f"{width} x {height} px"
