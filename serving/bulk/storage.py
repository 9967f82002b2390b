"""Folders and buckets alike: Beam's file systems, with files that appear whole or not at all."""

import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from preprocessing.finding import walk_files
from preprocessing.publish import write_bytes
from preprocessing.spec import DICOM_MAGIC, DICOM_MAGIC_OFFSET
from serving.errors import InputError


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file below a folder or bucket."""

    path: str
    """Path below it, with ``/``."""

    num_bytes: int
    """Size."""

    changed_s: float
    """When it was changed, in seconds since 1970."""


def is_local(root: str) -> bool:
    """Tells whether a folder is of this machine's file system."""
    return FileSystems.get_scheme(root) is None


def absolute(root: str) -> str:
    """Gives the address of a folder or bucket that is the same wherever a worker runs."""
    return str(Path(root).resolve()) if is_local(root) else root.rstrip("/")


def join(root: str, path: str) -> str:
    """Gives the address of a path below a folder or bucket."""
    return FileSystems.join(root, *path.split("/")) if path else root


def list_files(root: str) -> list[StoredFile]:
    """Lists all files below a folder or bucket but hidden ones, by path.

    Raises:
        InputError: if it cannot be listed.
        OSError: if a folder of this machine cannot be read.
    """
    if is_local(root):
        return _list_local(Path(root))
    prefix = root.rstrip("/") + "/"
    if any(character in root for character in "*?["):
        raise InputError(
            f"{root} holds a character that Beam reads as a pattern; expected a name without *, ? "
            "and ["
        )
    try:
        (match,) = FileSystems.match([f"{prefix}**"])
    except (BeamIOError, ValueError, OSError) as error:
        scheme = FileSystems.get_scheme(root)
        raise InputError(
            f"{root} cannot be listed: {error}; for {scheme}:// Beam needs its extra, such as "
            "apache-beam[gcp] or apache-beam[aws]"
        ) from error
    files = [
        StoredFile(
            path=each.path.removeprefix(prefix),
            num_bytes=each.size_in_bytes,
            changed_s=each.last_updated_in_seconds or 0.0,
        )
        for each in match.metadata_list
    ]
    visible = [file for file in files if not any(p.startswith(".") for p in file.path.split("/"))]
    return sorted(visible, key=lambda file: file.path)


def _list_local(root: Path) -> list[StoredFile]:
    if not root.is_dir():
        found = "is a file" if root.exists() else "does not exist"
        raise InputError(f"{root} {found}; expected a folder")
    files = []
    for path in walk_files(root, leave_out=()):
        if path.is_file():
            status = path.stat()
            name = path.relative_to(root).as_posix()
            files.append(StoredFile(path=name, num_bytes=status.st_size, changed_s=status.st_mtime))
    return sorted(files, key=lambda file: file.path)


def begins_like_dicom(address: str) -> bool:
    """Tells from its first bytes whether a file is a DICOM file.

    Raises:
        OSError: if it cannot be read.
    """
    try:
        with FileSystems.open(address, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            return bytes(file.read(DICOM_MAGIC_OFFSET + len(DICOM_MAGIC))).endswith(DICOM_MAGIC)
    except (FileNotFoundError, PermissionError):
        return False


def read(address: str) -> bytes:
    """Reads a file.

    Raises:
        OSError: if it cannot be read.
    """
    with FileSystems.open(address, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        return bytes(file.read())


def publish(address: str, content: bytes) -> None:
    """Writes a file, whole or not at all; an older one is replaced.

    Raises:
        OSError: if it cannot be written.
    """
    if is_local(address):
        write_bytes(Path(address), content)
        return
    # An object of a bucket appears when it is closed; other file systems get it by its new name.
    aside = f"{address}.{uuid.uuid4().hex}.partial"
    with FileSystems.create(aside, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(content)
    if FileSystems.exists(address):
        FileSystems.delete([address])
    FileSystems.rename([aside], [address])


def remove(addresses: Sequence[str]) -> None:
    """Removes files; those that are not there do not matter.

    Raises:
        OSError: if one cannot be removed.
    """
    for address in filter(is_local, addresses):
        Path(address).unlink(missing_ok=True)
    remote = [address for address in addresses if not is_local(address)]
    there = [address for address in remote if FileSystems.exists(address)]
    if there:
        FileSystems.delete(there)


@contextmanager
def local_copies(root: str, paths: Sequence[str]) -> Iterator[Mapping[str, Path]]:
    """Gives files by their paths as files of this machine; those of a bucket for the block only.

    Raises:
        OSError: if one cannot be read.
    """
    if is_local(root):
        yield {path: Path(root) / path for path in paths}
        return
    with tempfile.TemporaryDirectory() as folder:
        copies = {path: Path(folder) / path for path in paths}
        for path, copy in copies.items():
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(read(join(root, path)))
        yield copies


@contextmanager
def local_folder(address: str, names: Sequence[str], *, last: str) -> Iterator[Path]:
    """Gives a folder of this machine to fill; what a bucket is to hold goes there at the end.

    Args:
        address: of the folder.
        names: of all files that it may hold; those that are not written go.
        last: name of the file that says that all others are there; an older one goes first.

    Raises:
        OSError: if it cannot be written.
    """
    remove([join(address, last)])
    if is_local(address):
        yield Path(address)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield folder
        remove([join(address, each) for each in names if not (folder / each).exists()])
        for path in sorted(folder.iterdir(), key=lambda path: (path.name == last, path.name)):
            publish(join(address, path.name), path.read_bytes())
