"""A folder beside the output in which a dataset grows, and how it takes the output's place.

Whoever looks at the output sees the old dataset or the new one, never a part of either.
"""

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from preprocessing import manifest
from preprocessing.errors import PreprocessingError
from preprocessing.publish import sync

REMOVE_TIMEOUT_S = 5.0
"""A worker notices within one slice that its folder is gone."""

REMOVE_PAUSE_S = 0.01

_SHARD_NAME = re.compile(r"(train|validation)-\d{5}-of-\d{5}\.tfrecord")


def check_output(out: Path, *, overwrite: bool) -> None:
    """Looks whether a dataset may be written to a folder.

    Raises:
        PreprocessingError: if the folder holds a dataset and `overwrite` is off, if it holds
            something else, or if it cannot be replaced.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise PreprocessingError(f"--out {out} is a file; expected a folder, which the job makes")
    if os.path.ismount(out):
        raise PreprocessingError(
            f"--out {out} is a mount point, which cannot be replaced as a whole; "
            f"choose a folder in it, such as {out / 'dataset'}"
        )
    names = sorted(os.listdir(out))
    strange = [name for name in names if name != manifest.FILENAME and not _is_shard(name)]
    if strange:
        raise PreprocessingError(
            f"--out {out} holds {strange[0]!r}, which is no part of a dataset; expected a new or "
            "empty folder, or a dataset of this project; choose another one"
        )
    if names and not overwrite:
        raise PreprocessingError(
            f"--out {out} holds a dataset; pass --overwrite to replace it, or choose another folder"
        )


@contextmanager
def staging_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Makes an empty folder beside `out`, and removes it when all is done or has failed.

    What a killed run left behind is cleared away.

    Raises:
        PreprocessingError: if `check_output` does, if the folder cannot be made, or if another run
            is writing to the same place.
    """
    check_output(out, overwrite=overwrite)
    staging = out.with_name(f".{out.name}.staging")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir(exist_ok=True)
        # The lock goes when its holder ends, however it ends, so a killed run locks nobody out.
        descriptor = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise PreprocessingError(
            f"--out {out} cannot be made ({error.strerror}: {error.filename}); choose another place"
        ) from error
    try:
        lock_folder(descriptor, staging, out=out)
        try:
            _restore(out)
            check_output(out, overwrite=overwrite)
            _clear(staging)
            yield staging
        finally:
            # Once it is published, a folder of this name is that of another run.
            if is_named(descriptor, staging):
                _remove(staging)
    finally:
        os.close(descriptor)


@contextmanager
def slices_folder(out: Path) -> Iterator[Path]:
    """Gives an empty folder beside `out` for slices of scans, made only when it is written to.

    It is removed when all is done or has failed, and so is what a killed run left there. Whoever
    holds the `staging_folder` of `out` is alone with it.
    """
    slices = out.with_name(f".{out.name}.slices")
    _remove(slices)
    try:
        yield slices
    finally:
        _remove(slices)


def replace_output(staging: Path, out: Path, *, filenames: Iterable[str]) -> None:
    """Gives a finished dataset its name, and removes the one that it replaces.

    Args:
        staging: folder that holds the dataset.
        out: its name from now on.
        filenames: all that belongs to it; everything else in `staging` is removed.

    Raises:
        OSError: if a rename fails; then `out` is as it was.
    """
    wanted = set(filenames)
    for path in staging.iterdir():
        if path.name not in wanted:
            path.unlink()
    sync(staging)
    old = _old(out)
    if out.exists():
        out.rename(old)
    try:
        staging.rename(out)
    except OSError:
        _restore(out)
        raise
    sync(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def lock_folder(descriptor: int, folder: Path, *, out: Path) -> None:
    """Holds a folder beside an output for this process, until the descriptor is closed.

    Args:
        descriptor: the open folder.
        folder: its path.
        out: what is being made in it.

    Raises:
        PreprocessingError: if another run holds it.
    """
    busy = f"another run is writing to {out}; wait for it, or choose another --out"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise PreprocessingError(busy) from error
    # Between the opening and the lock, another run may have published or removed this very folder.
    if not is_named(descriptor, folder):
        raise PreprocessingError(busy)


def is_named(descriptor: int, path: Path) -> bool:
    """Tells whether an open folder is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _remove(staging: Path) -> None:
    """Removes a folder to which a worker of an interrupted engine may still be writing."""
    deadline = time.monotonic() + REMOVE_TIMEOUT_S
    while staging.exists() and time.monotonic() < deadline:
        shutil.rmtree(staging, ignore_errors=True)
        time.sleep(REMOVE_PAUSE_S)


def _is_shard(name: str) -> bool:
    return _SHARD_NAME.fullmatch(name) is not None


def _old(out: Path) -> Path:
    return out.with_name(f".{out.name}.old")


def _restore(out: Path) -> None:
    """Mends what a run left that was killed between two renames."""
    old = _old(out)
    if not old.exists():
        return
    if out.exists():
        shutil.rmtree(old)
    else:
        old.rename(out)


def _clear(staging: Path) -> None:
    for path in staging.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
