"""Which files a run segments, and what their results are called."""

import glob
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from preprocessing.images.reading import IMAGE_SUFFIXES
from serving.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SliceFile:
    """A slice to segment."""

    path: Path
    """Where it is."""

    name: Path
    """Name of its results without suffix, below ``masks`` and ``overlays``."""


def find_slices(inputs: Sequence[Path], *, results: Sequence[Path]) -> list[SliceFile]:
    """Lists the slices of files, folders and patterns, sorted by path, each once.

    A folder is searched for files named as images. What lies in the folders of results is left
    out, so that a second run does not segment the masks of the first. Results are named below the
    folder that all inputs share.

    Args:
        inputs: files, folders, and patterns such as ``P1/*.bmp`` or ``**/*.png``.
        results: folders that results go to.

    Raises:
        InputError: if there is no slice, if a folder cannot be read, or if masks would replace
            slices.
    """
    resolved = [folder.resolve() for folder in results]
    sources = [source for each in inputs for source in _matches(each, leave_out=resolved)]
    paths: dict[Path, Path] = {}
    for source in sources:
        if _is_inside(source, resolved):
            raise InputError(
                f"{source} lies where results go, in "
                f"{' or '.join(str(folder) for folder in results)}; give another --out"
            )
        for path in _slices_of(source, leave_out=resolved):
            paths.setdefault(_absolute(path), path)
    folders = [source if source.is_dir() else source.parent for source in sources]
    root = os.path.commonpath([_absolute(folder) for folder in folders])
    places = sorted(paths)
    names = [place.relative_to(root) for place in places]
    stems = [name.with_suffix("") for name in names]
    # a.bmp beside a.png: all keep their suffix. If only these two did, a.bmp.bmp would clash.
    names = stems if len(set(stems)) == len(stems) else names
    return [
        SliceFile(path=paths[place], name=name) for place, name in zip(places, names, strict=True)
    ]


def _absolute(path: Path) -> Path:
    """Gives a path without ``..``: a result named by that would lie outside of its folder."""
    return Path(os.path.abspath(path))


def _matches(source: Path, *, leave_out: Sequence[Path]) -> list[Path]:
    """Gives a file or folder itself, and of a pattern all that it matches."""
    if source.exists() or not glob.has_magic(str(source)):
        return [source]
    matches = [Path(match) for match in glob.glob(str(source), recursive=True)]
    found = [match for match in matches if not _is_inside(match, leave_out)]
    if not found:
        raise InputError(f"{source} matches no file; expected slices, or folders of slices")
    return found


def _is_inside(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.resolve().is_relative_to(folder) for folder in folders)


def _slices_of(source: Path, *, leave_out: Sequence[Path]) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        found = "is neither a file nor a folder" if source.exists() else "does not exist"
        raise InputError(f"{source} {found}; expected a slice, or a folder of slices")
    paths = [
        path
        for path in _walk(source, leave_out=leave_out)
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    ]
    if not paths:
        raise InputError(
            f"{source} holds no file named {', '.join(f'*{suffix}' for suffix in IMAGE_SUFFIXES)}; "
            "expected slices"
        )
    return paths


def _walk(folder: Path, *, leave_out: Sequence[Path]) -> Iterator[Path]:
    """Gives all files of a folder; links to folders are not followed but told.

    Raises:
        InputError: if a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise InputError(
            f"{error.filename} cannot be read: {error.strerror}; check its rights"
        ) from error

    links: list[str] = []
    for root, folders, names in os.walk(folder, onerror=fail):
        here = Path(root)
        links.extend(str(here / name) for name in folders if (here / name).is_symlink())
        folders[:] = [name for name in folders if (here / name).resolve() not in leave_out]
        yield from (here / name for name in names)
    if links:
        logger.warning(
            "links to folders are not followed: %s; give each as INPUT", ", ".join(sorted(links))
        )
