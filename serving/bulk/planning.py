"""Which slices or scans make which shard, before anything is read."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from preprocessing.images.reading import IMAGE_SUFFIXES
from preprocessing.spec import DICOM_SUFFIXES, NIFTI_SUFFIXES, READ_AUTO, READ_VOLUMES
from serving.bulk.storage import StoredFile
from serving.errors import InputError

SLICES, SCANS = "slices", "scans"
SHARD_SUFFIX = ".jsonl.gz"
_NUM_DIGITS = 16


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """What one worker does at a time."""

    name: str
    """Of the shard, without its suffix: ``slices-`` or ``scans-``, and a hash of all that decides
    what it holds. So a shard that is there is finished, whatever has changed elsewhere."""

    kind: str
    """``slices`` or ``scans``."""

    paths: tuple[str, ...]
    """Files, below the input: slices, a NIfTI volume, or all files of a folder of DICOM."""

    @property
    def filename(self) -> str:
        """Name of the shard."""
        return f"{self.name}{SHARD_SUFFIX}"

    def to_json(self) -> bytes:
        """Gives the plan as a file."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def from_json(cls, content: bytes) -> "ShardPlan":
        """Reads the plan from its file."""
        document = json.loads(content)
        return cls(**document | {"paths": tuple(document["paths"])})


def plan_shards(
    files: Sequence[StoredFile],
    *,
    read: str,
    slices_per_shard: int,
    settings: Mapping[str, Any],
    is_dicom: Callable[[StoredFile], bool],
) -> tuple[list[ShardPlan], list[str]]:
    """Plans the shards of an input.

    Args:
        files: all of its files.
        read: ``slices``, ``volumes``, or ``auto``: what it holds.
        slices_per_shard: of slices; a shard of scans has the scans of one folder, or one NIfTI
            volume.
        settings: on which results depend; plain JSON.
        is_dicom: looks into a file whose name does not tell.

    Returns:
        The shards, and the paths of files that are left out.

    Raises:
        InputError: if there is nothing to segment, or both kinds and ``read`` does not tell.
        OSError: if a file cannot be looked into.
    """
    images, niftis, dicoms, others = [], [], [], []
    for file in files:
        if _has_suffix(file, IMAGE_SUFFIXES):
            images.append(file)
        elif _has_suffix(file, NIFTI_SUFFIXES):
            niftis.append(file)
        elif _has_suffix(file, DICOM_SUFFIXES) or is_dicom(file):
            dicoms.append(file)
        else:
            others.append(file)
    volumes = [*niftis, *dicoms]
    if read == READ_AUTO and images and volumes:
        raise InputError(
            f"the input holds both, {len(volumes)} DICOM or NIfTI files (such as "
            f"{volumes[0].path}) and {len(images)} images (such as {images[0].path}); say --read "
            "volumes or --read slices"
        )
    if read == READ_VOLUMES or (read == READ_AUTO and volumes):
        kind, left_out = SCANS, [*images, *others]
        groups = [[file] for file in niftis] + _by_folder(dicoms)
    else:
        starts = range(0, len(images), slices_per_shard)
        groups = [images[start : start + slices_per_shard] for start in starts]
        kind, left_out = SLICES, [*volumes, *others]
    if not groups:
        raise InputError(
            f"there is nothing to segment among {len(files)} files; expected "
            f"{', '.join(IMAGE_SUFFIXES)}, DICOM or NIfTI"
        )
    plans = [_plan(kind, group, settings) for group in groups]
    return plans, sorted(file.path for file in left_out)


def _by_folder(files: Sequence[StoredFile]) -> list[list[StoredFile]]:
    groups: dict[str, list[StoredFile]] = {}
    for file in files:
        groups.setdefault(str(PurePosixPath(file.path).parent), []).append(file)
    return [groups[folder] for folder in sorted(groups)]


def _plan(kind: str, group: Sequence[StoredFile], settings: Mapping[str, Any]) -> ShardPlan:
    stamps = [[file.path, file.num_bytes, file.changed_s] for file in group]
    digest = hashlib.sha256(json.dumps([dict(settings), stamps]).encode()).hexdigest()
    return ShardPlan(
        name=f"{kind}-{digest[:_NUM_DIGITS]}",
        kind=kind,
        paths=tuple(file.path for file in group),
    )


def _has_suffix(file: StoredFile, suffixes: tuple[str, ...]) -> bool:
    return file.path.lower().endswith(suffixes)
