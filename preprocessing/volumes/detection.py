"""Whether a folder holds volumes or slices, told from names and first bytes. No DICOM library.

This is a contract: ``serving`` tells its inputs apart with it too.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from preprocessing.errors import PreprocessingError
from preprocessing.finding import is_image_file, walk_files
from preprocessing.spec import (
    DICOM_MAGIC,
    DICOM_MAGIC_OFFSET,
    DICOM_SUFFIXES,
    NIFTI_SUFFIXES,
    READ_AUTO,
    READ_VOLUMES,
)


@dataclass(frozen=True, kw_only=True)
class VolumeFile:
    """A file below a folder."""

    path: str
    """Path below the folder, with ``/``."""

    is_dicom: bool
    """Whether it begins like a DICOM file, or is named as one."""

    is_nifti: bool
    """Whether it is named as a NIfTI file."""


def find_volume_files(
    folder: Path, *, leave_out: Collection[Path], paths: Sequence[Path] | None = None
) -> Iterator[VolumeFile]:
    """Gives all files of a folder and its subfolders but hidden ones, in the order of their paths.

    Args:
        folder: where to look.
        leave_out: subfolders that are not looked at.
        paths: files below it, if not all of them are wanted.

    Raises:
        PreprocessingError: if there is no such folder.
        OSError: if a folder cannot be read.
    """
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise PreprocessingError(f"{folder} {found}; expected a folder of DICOM or NIfTI files")
    for path in sorted(walk_files(folder, leave_out=leave_out) if paths is None else paths):
        is_nifti = path.name.lower().endswith(NIFTI_SUFFIXES)
        is_dicom = not is_nifti and is_dicom_file(path)
        yield VolumeFile(
            path=path.relative_to(folder).as_posix(), is_dicom=is_dicom, is_nifti=is_nifti
        )


def is_dicom_file(path: Path) -> bool:
    """Tells from its name, or else from its first bytes, whether a file means to be DICOM."""
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(DICOM_MAGIC_OFFSET + len(DICOM_MAGIC)).endswith(DICOM_MAGIC)
    except PermissionError:
        return False


def holds_volumes(inputs: Sequence[Path], *, read: str, leave_out: Collection[Path]) -> bool:
    """Decides whether inputs are read as volumes or as slices.

    Args:
        inputs: folders and files; what is not there holds nothing.
        read: ``slices``, ``volumes``, or ``auto``: what they hold.
        leave_out: subfolders that are not looked at.

    Raises:
        PreprocessingError: if they hold both, and ``read`` does not tell.
        OSError: if a folder cannot be read.
    """
    if read != READ_AUTO:
        return read == READ_VOLUMES
    volumes, images = [], []
    for each in inputs:
        for path in walk_files(each, leave_out=leave_out) if each.is_dir() else [each]:
            if is_image_file(path):
                images.append(path)
            elif path.name.lower().endswith(NIFTI_SUFFIXES) or is_dicom_file(path):
                volumes.append(path)
    if volumes and images:
        raise PreprocessingError(
            f"{' '.join(map(str, inputs))} holds both, {len(volumes)} DICOM or NIfTI files (such "
            f"as {min(volumes)}) and {len(images)} images (such as {min(images)}); expected one "
            "kind; say --read volumes or --read slices, and the others are left out"
        )
    return bool(volumes)
