"""Whether a folder holds volumes or slices, told from names and first bytes. No DICOM library."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from preprocessing.config import READ_AUTO, READ_VOLUMES, TfrecordsConfig
from preprocessing.errors import PreprocessingError
from preprocessing.finding import is_image_file, walk_files
from preprocessing.spec import DICOM_MAGIC, DICOM_MAGIC_OFFSET, NIFTI_SUFFIXES

_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")


@dataclass(frozen=True, kw_only=True)
class VolumeFile:
    """A file below a folder."""

    path: str
    """Path below the folder, with ``/``."""

    is_dicom: bool
    """Whether it begins like a DICOM file, or is named as one."""

    is_nifti: bool
    """Whether it is named as a NIfTI file."""


def find_volume_files(folder: Path, *, leave_out: Collection[Path]) -> Iterator[VolumeFile]:
    """Gives all files of a folder and its subfolders but hidden ones, in the order of their paths.

    Args:
        folder: where to look.
        leave_out: subfolders that are not looked at.

    Raises:
        PreprocessingError: if there is no such folder.
        OSError: if a folder cannot be read.
    """
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise PreprocessingError(f"{folder} {found}; expected a folder of DICOM or NIfTI files")
    for path in sorted(walk_files(folder, leave_out=leave_out)):
        is_nifti = path.name.lower().endswith(NIFTI_SUFFIXES)
        is_dicom = not is_nifti and (path.suffix.lower() in _DICOM_SUFFIXES or is_dicom_file(path))
        yield VolumeFile(
            path=path.relative_to(folder).as_posix(), is_dicom=is_dicom, is_nifti=is_nifti
        )


def is_dicom_file(path: Path) -> bool:
    """Tells from its first bytes whether a file is a DICOM file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(DICOM_MAGIC_OFFSET + len(DICOM_MAGIC)).endswith(DICOM_MAGIC)


def holds_volumes(config: TfrecordsConfig) -> bool:
    """Decides whether `TfrecordsConfig.images` is read as volumes or as slices.

    Raises:
        PreprocessingError: if it holds both, and `TfrecordsConfig.read` does not tell.
        OSError: if a folder cannot be read.
    """
    if config.read != READ_AUTO or not config.images.is_dir():
        return config.read == READ_VOLUMES
    leave_out = [config.out, *([config.masks] if config.masks else [])]
    volumes, images = [], []
    for path in walk_files(config.images, leave_out=leave_out):
        if is_image_file(path):
            images.append(path)
        elif path.name.lower().endswith(NIFTI_SUFFIXES) or is_dicom_file(path):
            volumes.append(path)
    if volumes and images:
        raise PreprocessingError(
            f"--images {config.images} holds both, {len(volumes)} DICOM or NIfTI files (such as "
            f"{min(volumes)}) and {len(images)} images (such as {min(images)}); expected one kind; "
            "say --read volumes or --read slices, and the others are left out"
        )
    return bool(volumes)
