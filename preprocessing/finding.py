"""Which files of a folder are slices or masks, and under which name each is known."""

import os
import re
import sys
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path, PurePosixPath

from preprocessing.errors import PreprocessingError
from preprocessing.images.reading import IMAGE_SUFFIXES, MAGIC_BYTES, is_image
from preprocessing.spec import DICOM_SUFFIXES, NIFTI_SUFFIXES

_NUM_SHOWN = 3
_VOLUME_SUFFIXES = (*DICOM_SUFFIXES, *NIFTI_SUFFIXES, ".mha", ".nrrd")
_OTHER_SUFFIX = re.compile(r"\.[a-z][a-z0-9]{0,4}", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class FoundFile:
    """A file below a folder."""

    path: str
    """Path below the folder, with ``/``."""

    num_bytes: int
    """Size of the file."""

    @property
    def name(self) -> str:
        """The path without its extension."""
        suffix = PurePosixPath(self.path).suffix
        # What follows the last dot of 1.2.840.113619 is no extension.
        is_suffix = suffix.lower() in IMAGE_SUFFIXES or _OTHER_SUFFIX.fullmatch(suffix)
        return self.path.removesuffix(suffix) if is_suffix else self.path


@dataclass(frozen=True, kw_only=True)
class FoundFiles:
    """What a folder holds."""

    files: tuple[FoundFile, ...]
    """All that may be slices or masks, in the order of their paths."""

    skipped: tuple[FoundFile, ...]
    """Files that are no images by name and content, and links to folders that were read already;
    not hidden files."""


def find_files(folder: Path, *, flag: str, leave_out: Collection[Path]) -> FoundFiles:
    """Lists the slices or the masks of a folder and its subfolders.

    A file with the extension of an image is one, whatever it holds; a worker looks into it. A file
    with another extension, or none, is one if it begins like one.

    Args:
        folder: where to look.
        flag: the option that named it, for messages.
        leave_out: subfolders that are not looked at: masks may lie below the slices.

    Raises:
        PreprocessingError: if there is no such folder, or if it holds no image.
        OSError: if a folder cannot be read.
    """
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise PreprocessingError(f"{flag} {folder} {found}; expected a folder of image files")
    if sys.getfilesystemencoding() != "utf-8":
        raise PreprocessingError(
            f"this system reads file names as {sys.getfilesystemencoding()}; expected UTF-8, so "
            "that names are the same on every machine; set PYTHONUTF8=1 or a UTF-8 locale"
        )
    files: list[FoundFile] = []
    skipped: list[FoundFile] = []
    for path in walk_files(folder, leave_out=leave_out, skipped=skipped):
        relative = path.relative_to(folder).as_posix()
        _check_name(relative, folder=folder)
        # A link to nowhere counts as 0 bytes here; the worker that reads it says what it is.
        num_bytes = path.stat().st_size if path.exists() else 0
        file = FoundFile(path=relative, num_bytes=num_bytes)
        if is_image_file(path):
            files.append(file)
        else:
            skipped.append(file)
    if not files:
        raise PreprocessingError(
            f"{flag} {folder} holds no BMP, PNG, TIFF or JPEG file ({_describe(skipped)}); "
            f"{_mend(skipped)}"
        )
    by_path = attrgetter("path")
    return FoundFiles(
        files=tuple(sorted(files, key=by_path)), skipped=tuple(sorted(skipped, key=by_path))
    )


def unify(name: str) -> str:
    """Gives what all spellings of a name share: letters differ in case from disk to disk."""
    return unicodedata.normalize("NFC", name).casefold()


def by_unified_name(
    files: Iterable[FoundFile], name_of: Callable[[FoundFile], str], *, folder: Path
) -> dict[str, FoundFile]:
    """Gives the files by name, in whatever case it is written.

    Args:
        files: slices, or masks.
        name_of: gives the name of a file.
        folder: where they are, for messages.

    Raises:
        PreprocessingError: if two files have one name; both are told.
    """
    found: dict[str, FoundFile] = {}
    twice: list[str] = []
    for file in files:
        first = found.setdefault(unify(name_of(file)), file)
        if first is not file:
            twice.append(f"{first.path} and {file.path}")
    if twice:
        raise PreprocessingError(
            f"{folder} holds files that differ in nothing but extension or case: {shorten(twice)}; "
            "expected one file of each name; remove or rename one of each"
        )
    return found


def shorten(names: Sequence[str]) -> str:
    """Gives the first names, and says how many more there are."""
    shown = ", ".join(names[:_NUM_SHOWN])
    num_more = len(names) - _NUM_SHOWN
    return f"{shown} and {num_more} more" if num_more > 0 else shown


def printable(text: str) -> str:
    """Gives a text from outside, such as a file name, as it can be shown.

    Control characters, line ends, marks that turn the direction of writing and undecodable bytes
    become escapes, such as a backslash and ``x1b``.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def walk_files(
    folder: Path, *, leave_out: Collection[Path], skipped: list[FoundFile] | None = None
) -> Iterable[Path]:
    """Gives all files that are not hidden. Links are followed, but no folder is read twice.

    Args:
        folder: where to look.
        leave_out: subfolders that are not looked at.
        skipped: takes the links to folders that were read already.

    Raises:
        OSError: if a folder cannot be read.
    """
    left_out = {path.resolve() for path in leave_out}
    seen = {_identity(folder)}

    def fail(error: OSError) -> None:
        raise error

    for root, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        here = Path(root)
        kept = []
        for name in sorted(folders):
            path = here / name
            if name.startswith(".") or path.resolve() in left_out:
                continue
            if _identity(path) in seen:
                if skipped is not None:
                    link = path.relative_to(folder).as_posix()
                    skipped.append(FoundFile(path=f"{link}/", num_bytes=0))
            else:
                seen.add(_identity(path))
                kept.append(name)
        folders[:] = kept
        yield from (here / name for name in sorted(names) if not name.startswith("."))


def _identity(folder: Path) -> tuple[int, int]:
    """Gives what is the same for all links to a folder."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def is_image_file(path: Path) -> bool:
    """Tells from its name, or else from its first bytes, whether a file means to be an image."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    if not path.is_file():
        return False  # a pipe, which nobody may be writing to
    try:
        with path.open("rb") as file:
            return is_image(file.read(MAGIC_BYTES))
    except PermissionError:
        return False


def _check_name(relative: str, *, folder: Path) -> None:
    try:
        relative.encode()
    except UnicodeEncodeError as error:
        raise PreprocessingError(
            f"{folder} holds a file whose name is not UTF-8: {relative!r}; rename it"
        ) from error


def _describe(skipped: Sequence[FoundFile]) -> str:
    paths = sorted(file.path for file in skipped)
    return f"it holds {shorten(paths)}" if paths else "it is empty"


def _mend(skipped: Sequence[FoundFile]) -> str:
    if any(file.path.lower().endswith(_VOLUME_SUFFIXES) for file in skipped):
        return "slices and masks are of one kind: both volumes, or both images"
    return "point it to the folder that does"
