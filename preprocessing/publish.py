"""How an output appears whole or not at all: write aside, fsync, rename.

This is a contract: ``trainer`` and ``serving`` publish their files the same way. Standard library
only.
"""

import fcntl
import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def sync(path: Path) -> None:
    """Waits until a file or the entries of a folder are on the disk.

    Raises:
        OSError: if the disk refuses, for example because it is full.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a path to write to; the file takes its real name when the block ends well.

    The file aside has a name that nobody else uses, so two writers of one file do not mix, and the
    same ending as the real one, because libraries choose a format by it.

    Args:
        path: where the file is to stand; its folder is made. An older file is replaced.

    Yields:
        The path aside, in the same folder.

    Raises:
        OSError: if the file cannot be written; then an older file is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.partial{path.suffix}")
    try:
        yield aside
        sync(aside)
        os.replace(aside, path)
        sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all.

    Raises:
        OSError: if the file cannot be written.
    """
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a binary file, whole or not at all.

    Raises:
        OSError: if the file cannot be written.
    """
    with whole_file(path) as aside:
        aside.write_bytes(content)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Gives an empty folder to fill; it takes its real name when the block ends well.

    What an earlier, killed process left aside is removed; what another process is filling is not.

    Args:
        path: where the folder is to stand; it must not exist yet. Parents are made.

    Yields:
        The folder aside, next to ``path``. Its name is no number, so TensorFlow Serving does not
        take it for a version of a model.

    Raises:
        FileExistsError: if ``path`` exists, or appears in the meantime.
        OSError: if the folder cannot be written.
    """
    _refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    aside.mkdir()
    lock = os.open(aside, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until this process ends, however it ends
        yield aside
        for entry in sorted(aside.rglob("*")):
            sync(entry)
        sync(aside)
        _refuse_existing(path)
        os.rename(aside, path)
        sync(path.parent)
    finally:
        os.close(lock)
        shutil.rmtree(aside, ignore_errors=True)


def _refuse_existing(path: Path) -> None:
    # An empty folder is nothing to lose: the rename replaces it.
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(f"{path} exists already; choose another path or remove it first")


def _remove_abandoned(path: Path) -> None:
    for aside in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        lock = os.open(aside, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(aside)
        except BlockingIOError:
            continue  # somebody is at work there
        finally:
            os.close(lock)
