"""How many refused files a job bears, and how the user learns of them."""

from collections.abc import Sequence
from pathlib import Path

from preprocessing.config import TfrecordsConfig
from preprocessing.errors import PreprocessingError
from preprocessing.manifest import DatasetManifest, RefusedFile
from preprocessing.pairing import shorten
from preprocessing.publish import write_text


def refused_list(out: Path) -> Path:
    """Gives the file in which a failed job lists all that was refused."""
    return out.with_name(f"{out.name}.refused.txt")


def describe_refused(entry: RefusedFile, config: TfrecordsConfig) -> str:
    """Gives one line with the file's path as the user knows it, and the reason."""
    role, _, relative = entry.file.partition("/")
    folder = config.images if role == "images" else config.masks
    return f"{folder / relative} {entry.reason}"


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
    raise PreprocessingError(
        f"{num_refused} of {num_slices} slices are refused ({share:.1f} %), more than "
        f"--max-refused-fraction {config.max_refused_fraction:g} allows; no dataset was written; "
        f"mend the files listed in {path}, or allow more. "
        f"First: {lines[0]}" + (f". Also: {others}" if others else "")
    )


def check_splits(dataset: DatasetManifest) -> None:
    """Ends the job if a split has lost all of its slices.

    Raises:
        PreprocessingError: if one has.
    """
    for name, split in dataset.splits.items():
        if not split.num_examples:
            raise PreprocessingError(
                f"all slices of the {name} split were refused, such as {dataset.refused[0].file}, "
                f"which {dataset.refused[0].reason}; no dataset was written; mend the files, or "
                "pass another --seed for another split"
            )
