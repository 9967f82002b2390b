"""Which slice belongs to which mask."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from preprocessing.config import TfrecordsConfig
from preprocessing.errors import PreprocessingError
from preprocessing.finding import FoundFile, FoundFiles, by_unified_name, find_files, unify
from preprocessing.manifest import RefusedFile

_HOW_TO_MARK = (
    "rename one side, or say with --image-pattern or --mask-pattern what only slices or only masks "
    "have in their names, such as --mask-pattern '^mask_' or --image-pattern '_axial$'"
)

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

    skipped: tuple[str, ...]
    """What is no image and no partner of one: ``images/`` or ``masks/``, and the path."""


def find_pairs(config: TfrecordsConfig) -> Pairing:
    """Lists slices and masks and pairs those of equal names.

    A slice and a mask of equal names are a pair, whatever case and extension, once what
    `TfrecordsConfig.image_pattern` and `mask_pattern` find has been cut out. A file that is no
    image is a partner too where an image has no other: a worker refuses it with its reason.

    Raises:
        PreprocessingError: if a folder holds nothing that can be used, if two files have one name,
            or if there is no pair at all.
        OSError: if a folder cannot be read.
    """
    images, masks = _find_both(config)
    slice_name = partial(_cut, config.image_pattern)
    slices = by_unified_name(images.files, slice_name, folder=config.images)
    mask_name = partial(_mask_name, slices=slices, config=config)
    partners = by_unified_name(masks.files, mask_name, folder=config.mask_folder())
    if not slices.keys() & partners.keys():
        raise PreprocessingError(
            f"none of {len(slices)} slices (such as {images.files[0].path}) has the name of one of "
            f"{len(partners)} masks (such as {masks.files[0].path}); expected equal names, apart "
            f"from case, extension and a mark such as _mask; {_HOW_TO_MARK}"
        )
    slices_left = _add_partners(slices, partners, images.skipped, name_of=slice_name)
    masks_left = _add_partners(partners, slices, masks.skipped, name_of=mask_name)
    pairs = [
        Pair(
            slice_id=slice_name(slices[name]),
            image_path=slices[name].path,
            mask_path=partners[name].path,
            num_bytes=slices[name].num_bytes + partners[name].num_bytes,
        )
        for name in slices.keys() & partners.keys()
    ]
    skipped = [f"images/{path}" for path in slices_left] + [f"masks/{path}" for path in masks_left]
    return Pairing(
        pairs=tuple(sorted(pairs, key=lambda pair: pair.slice_id)),
        orphans=(
            *_orphans(slices, partners, name_of=slice_name, role="images"),
            *_orphans(partners, slices, name_of=mask_name, role="masks"),
        ),
        skipped=tuple(skipped),
    )


def _find_both(config: TfrecordsConfig) -> tuple[FoundFiles, FoundFiles]:
    """Lists slices and masks, from two folders or from one."""
    if config.masks is None:
        return _find_in_one_folder(config)
    if config.images.resolve() == config.masks.resolve():
        raise PreprocessingError(
            f"--images and --masks are the same folder, {config.images}; expected slices in one "
            "and masks in the other; leave --masks out if masks lie among the slices and are told "
            "by their names, such as P1_z012_mask.bmp"
        )
    return (
        find_files(config.images, flag="--images", leave_out=(config.masks, config.out)),
        find_files(config.masks, flag="--masks", leave_out=(config.images, config.out)),
    )


def _find_in_one_folder(config: TfrecordsConfig) -> tuple[FoundFiles, FoundFiles]:
    found = find_files(config.images, flag="--images", leave_out=(config.out,))

    def choose(*, masks: bool) -> FoundFiles:
        files, skipped = (
            tuple(file for file in group if (_cut(config.mask_pattern, file) != file.name) == masks)
            for group in (found.files, found.skipped)
        )
        return FoundFiles(files=files, skipped=skipped)

    images, masks = choose(masks=False), choose(masks=True)
    for chosen, kind in ((masks, "mask"), (images, "slice")):
        if not chosen.files:
            raise PreprocessingError(
                f"none of {len(found.files)} files below {config.images} is a {kind} (such as "
                f"{found.files[0].path}); expected both, told apart by --mask-pattern "
                f"{config.mask_pattern!r}; give --masks, or: {_HOW_TO_MARK}"
            )
    return images, masks


def _cut(pattern: str, file: FoundFile) -> str:
    """Gives the name of a file without its marks; one without marks stays as it is."""
    return re.sub(pattern, "", file.name).lstrip("/")


def _mask_name(file: FoundFile, *, slices: Mapping[str, FoundFile], config: TfrecordsConfig) -> str:
    """Gives the first name that a slice has: as it is, without marks of a slice, or of a mask."""
    for name in (file.name, _cut(config.image_pattern, file)):
        if unify(name) in slices:
            return name
    return _cut(config.mask_pattern, file)


def _add_partners(
    files: dict[str, FoundFile],
    others: Mapping[str, FoundFile],
    skipped: Sequence[FoundFile],
    *,
    name_of: Callable[[FoundFile], str],
) -> list[str]:
    """Adds files that are no images, but the only partners there are; gives the rest."""
    rest = []
    for file in skipped:
        name = unify(name_of(file))
        if name in others and name not in files:
            files[name] = file
        else:
            rest.append(file.path)
    return rest


def _orphans(
    files: Mapping[str, FoundFile],
    others: Mapping[str, FoundFile],
    *,
    name_of: Callable[[FoundFile], str],
    role: str,
) -> list[RefusedFile]:
    """Tells each file without a partner, and the partner that it may have been meant for."""
    kind, other_kind = ("slice", "mask") if role == "images" else ("mask", "slice")
    other_role = "masks" if role == "images" else "images"
    left_over = [others[name].path for name in sorted(others.keys() - files.keys())]
    orphans: list[RefusedFile] = []
    for name in sorted(files.keys() - others.keys()):
        file = files[name]
        is_compared = len(orphans) < _MAX_COMPARED
        nearest = _nearest(file.path, left_over[:_MAX_COMPARED]) if is_compared else ""
        meant = f" (is {other_role}/{nearest} meant?)" if nearest else ""
        reason = f"has no {other_kind} {name_of(file)}.bmp{meant}; add it or remove the {kind}"
        orphans.append(RefusedFile(file=f"{role}/{file.path}", reason=reason))
    return orphans


def _nearest(path: str, others: Sequence[str]) -> str:
    """Gives the most similar path with equal numbers; with another number it is another slice."""
    same_numbers = [other for other in others if _numbers(other) == _numbers(path)]
    return next(iter(difflib.get_close_matches(path, same_numbers, n=1)), "")


def _numbers(path: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"[0-9]+", path)]
