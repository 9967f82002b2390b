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
    """Path of the slice below the folder, without extension and without its mark."""

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

    A slice and a mask of equal names are a pair, whatever case and extension, once what
    `TfrecordsConfig.image_pattern` and `mask_pattern` find has been cut out.

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
    slice_names = {unify(_slice_name(file, config=config)) for file in images.files}
    mask_names = {
        file.path: file.name
        if unify(file.name) in slice_names
        else _cut(config.mask_pattern, file.name)
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
        name = _cut(config.mask_pattern, file.name)
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


def _slice_name(file: FoundFile, *, config: TfrecordsConfig) -> str:
    return _cut(config.image_pattern, file.name)


def _cut(pattern: str, name: str) -> str:
    """Gives a name without its marks; one without marks stays as it is."""
    return re.sub(pattern, "", name).lstrip("/")


def _pair(
    images: Sequence[FoundFile],
    masks: Sequence[FoundFile],
    *,
    mask_names: Mapping[str, str],
    config: TfrecordsConfig,
    skipped: Mapping[Path, tuple[str, ...]],
) -> Pairing:
    slice_names = {file.path: _slice_name(file, config=config) for file in images}
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
            slice_id=slice_names[slices[name].path],
            image_path=slices[name].path,
            mask_path=partners[name].path,
            num_bytes=slices[name].num_bytes + partners[name].num_bytes,
        )
        for name in both
    ]
    return Pairing(
        pairs=tuple(sorted(pairs, key=lambda pair: pair.slice_id)),
        orphans=(
            *_orphans(slices, partners, names=slice_names, role="images"),
            *_orphans(partners, slices, names=mask_names, role="masks"),
        ),
        skipped=skipped,
    )


def _orphans(
    files: Mapping[str, FoundFile],
    others: Mapping[str, FoundFile],
    *,
    names: Mapping[str, str],
    role: str,
) -> list[RefusedFile]:
    """Tells each file without a partner, and the partner that it may have been meant for."""
    kind, other_kind = ("slice", "mask") if role == "images" else ("mask", "slice")
    other_role = "masks" if role == "images" else "images"
    left_over = [others[name].path for name in sorted(others.keys() - files.keys())]
    orphans = []
    for name in sorted(files.keys() - others.keys()):
        path = files[name].path
        nearest = difflib.get_close_matches(path, left_over[:_MAX_COMPARED], n=1)
        meant = f" (is {other_role}/{nearest[0]} meant?)" if nearest else ""
        reason = f"has no {other_kind} {names[path]}.bmp{meant}; add it or remove the {kind}"
        orphans.append(RefusedFile(file=f"{role}/{path}", reason=reason))
    return orphans
