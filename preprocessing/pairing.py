"""Which slice belongs to which mask."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from preprocessing.config import TfrecordsConfig
from preprocessing.errors import PreprocessingError
from preprocessing.finding import FoundFile, by_unified_name, find_files, unify
from preprocessing.manifest import RefusedFile

_MAX_COMPARED = 200
"""Names of left-over files are compared with each other up to so many."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One slice and its mask, not yet read."""

    slice_id: str
    """Path of the slice below the folder, without extension."""

    image_path: str
    """Path below the folder of slices."""

    mask_path: str
    """Path below the folder of masks."""

    num_bytes: int
    """Size of both files."""


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """What the folders hold."""

    pairs: tuple[Pair, ...]
    """In the order of their ``slice_id``."""

    orphans: tuple[RefusedFile, ...]
    """Slices without a mask and masks without a slice."""

    skipped: Mapping[Path, tuple[str, ...]]
    """By folder, what is no image."""


def find_pairs(config: TfrecordsConfig) -> Pairing:
    """Lists slices and masks and pairs those of equal names.

    A mask has the name of its slice, or that name and what `TfrecordsConfig.mask_pattern` finds.
    Names are equal whatever their case and extension.

    Raises:
        PreprocessingError: if a folder holds nothing that can be used, if two files have one name,
            or if there is no pair at all.
        OSError: if a folder cannot be read.
    """
    if config.masks is None:
        return _pair_in_one_folder(config)
    if config.images.resolve() == config.masks.resolve():
        raise PreprocessingError(
            f"--images and --masks are the same folder, {config.images}; expected slices in one "
            "and masks in the other; leave --masks out if masks lie among the slices and are told "
            "by their names, such as P1_z012_mask.bmp"
        )
    images = find_files(config.images, flag="--images", leave_out=(config.masks, config.out))
    masks = find_files(config.masks, flag="--masks", leave_out=(config.images, config.out))
    slice_names = {unify(file.name) for file in images.files}
    mask_names = {
        file.path: file.name
        if unify(file.name) in slice_names
        else _without_mark(file.name, config=config)
        for file in masks.files
    }
    return _pair(
        images.files,
        masks.files,
        mask_names=mask_names,
        config=config,
        skipped={config.images: images.skipped, config.masks: masks.skipped},
    )


def _pair_in_one_folder(config: TfrecordsConfig) -> Pairing:
    found = find_files(config.images, flag="--images", leave_out=(config.out,))
    mask_names = {}
    for file in found.files:
        name = _without_mark(file.name, config=config)
        if name != file.name:
            mask_names[file.path] = name
    masks = [file for file in found.files if file.path in mask_names]
    slices = [file for file in found.files if file.path not in mask_names]
    if not masks or not slices:
        kind = "mask" if slices else "slice"
        raise PreprocessingError(
            f"none of {len(found.files)} files below {config.images} is a {kind} "
            f"(such as {found.files[0].path}): a mask is told by --mask-pattern "
            f"{config.mask_pattern!r}; give --masks, or a --mask-pattern that fits the names"
        )
    return _pair(
        slices,
        masks,
        mask_names=mask_names,
        config=config,
        skipped={config.images: found.skipped},
    )


def _without_mark(name: str, *, config: TfrecordsConfig) -> str:
    """Gives the name of a mask's slice; a name without the mark of a mask is left as it is."""
    return re.sub(config.mask_pattern, "", name, count=1)


def _pair(
    images: Sequence[FoundFile],
    masks: Sequence[FoundFile],
    *,
    mask_names: Mapping[str, str],
    config: TfrecordsConfig,
    skipped: Mapping[Path, tuple[str, ...]],
) -> Pairing:
    slice_names = {file.path: file.name for file in images}
    slices = by_unified_name(images, slice_names, folder=config.images)
    partners = by_unified_name(masks, mask_names, folder=config.mask_folder())
    both = slices.keys() & partners.keys()
    if not both:
        raise PreprocessingError(
            f"none of {len(slices)} slices (such as {images[0].path}) has the name of one of "
            f"{len(partners)} masks (such as {masks[0].path}); expected equal names, apart from "
            "case, extension and an ending such as _mask; rename one side, or give a --mask-pattern"
        )
    pairs = [
        Pair(
            slice_id=slices[name].name,
            image_path=slices[name].path,
            mask_path=partners[name].path,
            num_bytes=slices[name].num_bytes + partners[name].num_bytes,
        )
        for name in both
    ]
    return Pairing(
        pairs=tuple(sorted(pairs, key=lambda pair: pair.slice_id)),
        orphans=_orphans(
            [slices[name] for name in sorted(slices.keys() - both)],
            [partners[name] for name in sorted(partners.keys() - both)],
        ),
        skipped=skipped,
    )


def _orphans(images: Sequence[FoundFile], masks: Sequence[FoundFile]) -> tuple[RefusedFile, ...]:
    """Tells each file without a partner, and the partner that it may have been meant for."""
    without_mask = [
        RefusedFile(
            file=f"images/{file.path}",
            reason=f"has no mask {file.name}.bmp{_nearest(file, masks, role='masks')}; "
            "add it or remove the slice",
        )
        for file in images
    ]
    without_slice = [
        RefusedFile(
            file=f"masks/{file.path}",
            reason=f"has no slice {file.name}.bmp{_nearest(file, images, role='images')}; "
            "add it or remove the mask",
        )
        for file in masks
    ]
    return (*without_mask, *without_slice)


def _nearest(file: FoundFile, others: Sequence[FoundFile], *, role: str) -> str:
    paths = [other.path for other in others[:_MAX_COMPARED]]
    nearest = difflib.get_close_matches(file.path, paths, n=1)
    return f" (is {role}/{nearest[0]} meant?)" if nearest else ""
