"""How many refused files a job bears, and how the user learns of them."""

from collections.abc import Sequence
from pathlib import Path

from preprocessing.config import TfrecordsConfig
from preprocessing.errors import PreprocessingError
from preprocessing.finding import printable, shorten
from preprocessing.images.reading import NOT_BINARY
from preprocessing.manifest import DatasetManifest, RefusedFile
from preprocessing.publish import write_text
from preprocessing.spec import TRAIN_SPLIT


def refused_list(out: Path) -> Path:
    """Gives the file in which a failed job lists all that was refused."""
    return out.with_name(f"{out.name}.refused.txt")


def describe_refused(entry: RefusedFile, config: TfrecordsConfig) -> str:
    """Gives one line with the file's path as the user knows it, and the reason."""
    role, _, relative = entry.file.partition("/")
    folder = config.images if role == "images" else config.mask_folder()
    return printable(f"{folder / relative} {entry.reason}")


def check_orphans(orphans: Sequence[RefusedFile], *, config: TfrecordsConfig, out: Path) -> None:
    """Ends the job if a slice has no mask or a mask no slice, and lists them in `refused_list`.

    Raises:
        PreprocessingError: if there is one and `TfrecordsConfig.allow_orphans` is off.
        OSError: if the list cannot be written.
    """
    if not orphans or config.allow_orphans:
        return
    path = refused_list(out)
    lines = [describe_refused(entry, config) for entry in orphans]
    write_text(path, "".join(f"{line}\n" for line in lines))
    raise PreprocessingError(
        f"files without a partner: {len(orphans)}, so nothing was written; first: {lines[0]}; all "
        f"are listed in {path}; mend them, or pass --allow-orphans to leave them out"
    )


def check_refused(
    refused: Sequence[RefusedFile],
    num_refused: int,
    *,
    config: TfrecordsConfig,
    out: Path,
    num_slices: int,
) -> None:
    """Ends the job if too many slices are refused, and lists all of them in `refused_list`.

    Args:
        refused: the files, with their reasons.
        num_refused: number of slices; a pair of two bad files counts once.
        config: says how many may be refused.
        out: folder of the dataset.
        num_slices: number of all slices.

    Raises:
        PreprocessingError: if there are too many.
        OSError: if the list cannot be written.
    """
    if num_refused <= config.max_refused_fraction * num_slices:
        return
    path = refused_list(out)
    lines = [describe_refused(entry, config) for entry in refused]
    write_text(path, "".join(f"{line}\n" for line in lines))
    share = 100 * num_refused / num_slices
    others = shorten([entry.file for entry in refused[1:]])
    # Not all: a black slice passes for a mask, and one file may be damaged too.
    num_no_masks = sum(entry.reason.startswith(NOT_BINARY) for entry in refused)
    are_swapped = num_no_masks > num_slices / 2
    raise PreprocessingError(
        f"{num_refused} of {num_slices} slices are refused ({share:.1f} %), more than "
        f"--max-refused-fraction {config.max_refused_fraction:g} allows; no dataset was written; "
        + ("are --images and --masks swapped? If not, " if are_swapped else "")
        + f"mend the files listed in {path}, or allow more. "
        f"First: {lines[0]}" + (f". Also: {others}" if others else "")
    )


def check_splits(dataset: DatasetManifest, *, config: TfrecordsConfig) -> None:
    """Ends the job if nothing can be learned from its masks, or a split has lost all slices.

    Raises:
        PreprocessingError: if all training masks are empty or full, or a split has no slice.
    """
    for name, split in dataset.splits.items():
        if not split.num_examples:
            raise PreprocessingError(
                f"all slices of the {name} split were refused, such as {dataset.refused[0].file}, "
                f"which {dataset.refused[0].reason}; no dataset was written; mend the files, or "
                "pass another --seed for another split"
            )
    num_slices = dataset.splits[TRAIN_SPLIT].num_examples
    foreground_fraction = dataset.statistics.foreground_fraction
    if foreground_fraction in (0, 1):
        found = "empty" if foreground_fraction == 0 else "lung everywhere"
        foreground = config.mask_foreground
        lung = f"--mask-foreground {','.join(map(str, foreground))}" if foreground else "255 (or 1)"
        raise PreprocessingError(
            f"the masks of all {num_slices} training slices are {found}; expected masks in which "
            f"lung is {lung} and background is not; no dataset was written; look whether --masks "
            "is the folder of masks and which values they hold, or export them again"
        )
