"""What a model is measured on: a split of a dataset, or plain folders, one slice at a time."""

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from preprocessing.folders import MAX_REFUSED_FRACTION, SliceFolders, list_folders
from preprocessing.manifest import DatasetManifest, RefusedFile
from preprocessing.spec import SPLITS, VALIDATION_SPLIT
from trainer.config import TrainerConfig
from trainer.evaluation.config import ALL_SPLITS, EvaluationConfig
from trainer.failures import explained
from trainer.input_pipeline import read_examples
from trainer.run_folder import load_manifest

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LabeledSlice:
    """One slice with its reference mask."""

    slice_id: str
    """Which slice it is."""

    patient_id: str
    """Whose slice it is; empty if that is not known."""

    image: npt.NDArray[np.uint8]
    """[height, width] gray values."""

    mask: npt.NDArray[np.uint8]
    """[height, width] in {0, 1}; 1 is lung."""


class Slices(Protocol):
    """Slices that can be read again and again, always in the same order."""

    num_slices: int
    """How many there are, refused ones too."""

    patients_unknown: str
    """Why it is not known whose slices they are; empty if it is."""

    refused: list[RefusedFile]
    """Files that were left out so far, and why."""

    def origin(self) -> dict[str, Any]:
        """Gives what they are, for ``evaluation.json``."""

    def read(self, only: Collection[str] = ()) -> Iterator[LabeledSlice]:
        """Gives all slices, or only those with these ids, without keeping any."""


def open_dataset(
    config: EvaluationConfig, *, path: Path, run_config: TrainerConfig | None
) -> "DatasetSlices":
    """Opens the dataset that a configuration names, or that of the run.

    In a dataset with the patient that the run held out, the validation split is that patient, and
    the training split all others.

    Args:
        config: may name a dataset and a split.
        path: of the model, for messages.
        run_config: of the run that the model is of, if that is known.

    Raises:
        ManifestError: if there is no dataset.
    """
    if run_config is not None:
        data, manifest = load_manifest(path, run_config, config.data)
    elif config.data is not None:
        data, manifest = config.data, DatasetManifest.load(config.data)
    else:
        raise ValueError(f"{path} names no dataset to measure it on; give --data")
    hold_out = run_config.hold_out if run_config is not None else None
    return DatasetSlices(data, manifest, config.split, hold_out=hold_out)


def open_folders(config: EvaluationConfig) -> "FolderSlices":
    """Opens the plain folders that a configuration names.

    Raises:
        ValueError: if there are none, or they hold no pair that can be used.
    """
    if config.images is None:
        raise ValueError("there are no slices to measure on; give --images")
    folders = list_folders(
        images=config.images,
        masks=config.masks,
        out=config.out,
        image_pattern=config.image_pattern,
        mask_pattern=config.mask_pattern,
        patient_pattern=config.patient_pattern,
        mask_foreground=config.mask_foreground,
    )
    return FolderSlices(folders, allow_orphans=config.allow_orphans)


class DatasetSlices:
    """A split of a dataset, or all of them."""

    def __init__(
        self, data: Path, manifest: DatasetManifest, split: str, *, hold_out: str | None = None
    ) -> None:
        """Sets up the reading; nothing is read yet.

        Args:
            data: folder of the dataset.
            manifest: of that dataset.
            split: ``train``, ``validation`` or ``all``.
            hold_out: patient who makes up the validation split, if the dataset has such a one.
        """
        self._data, self._manifest, self._split = data, manifest, split
        self._names = tuple(SPLITS) if split == ALL_SPLITS else (split,)
        self._patients: set[str] | None = None
        everyone = {patient for each in manifest.splits.values() for patient in each.patients}
        self._hold_out = hold_out if hold_out is not None and hold_out in everyone else None
        if self._hold_out is not None and split != ALL_SPLITS:
            self._names = tuple(SPLITS)
            held_out = {self._hold_out}
            self._patients = held_out if split == VALIDATION_SPLIT else everyone - held_out
        # A split of which nothing is wanted is not read: it may be empty.
        self._names = tuple(name for name in self._names if self._count(name)) or self._names
        self.num_slices = sum(self._count(name) for name in self._names)
        is_known = any(manifest.splits[name].patients for name in self._names)
        self.patients_unknown = "" if is_known else "the dataset does not tell whose slices it has"
        self.refused: list[RefusedFile] = []

    def origin(self) -> dict[str, Any]:
        """Gives the dataset, its hash and the split."""
        return {
            "data": str(self._data),
            "data_sha256": self._manifest.data_sha256(),
            "split": self._split,
            "hold_out": self._hold_out,
        }

    def read(self, only: Collection[str] = ()) -> Iterator[LabeledSlice]:
        """Gives all slices, or only those with these ids, without keeping any.

        Raises:
            ManifestError: if a shard is missing or damaged.
        """
        with explained(self._data, self._manifest):
            for name in self._names:
                examples = read_examples(self._data, self._manifest, name)
                for key, wanted in (("slice_id", only), ("patient_id", self._patients)):
                    if wanted:
                        examples = _keep(examples, key, wanted)
                for example in examples.prefetch(2).as_numpy_iterator():
                    yield LabeledSlice(
                        slice_id=example["slice_id"].decode(),
                        patient_id=example["patient_id"].decode(),
                        image=example["image"][:, :, 0],
                        mask=example["mask"][:, :, 0],
                    )

    def _count(self, name: str) -> int:
        split = self._manifest.splits[name]
        if self._patients is None:
            return split.num_examples
        return sum(split.patients.get(patient, 0) for patient in self._patients)


def _keep(examples: tf.data.Dataset, key: str, wanted: Collection[str]) -> tf.data.Dataset:
    values = tf.constant(sorted(wanted))
    return examples.filter(lambda example: tf.reduce_any(example[key] == values))


class FolderSlices:
    """Plain folders of slices and masks."""

    def __init__(self, folders: SliceFolders, *, allow_orphans: bool) -> None:
        """Looks at the pairs; nothing is read yet.

        Args:
            folders: what they hold.
            allow_orphans: leave files without a partner out, instead of ending the job.

        Raises:
            ValueError: if there are files without a partner that may not be left out.
        """
        if folders.orphans and not allow_orphans:
            raise ValueError(
                f"files without a partner: {len(folders.orphans)}, so nothing was measured; "
                f"first: {folders.describe(folders.orphans[0])}; mend them, or pass "
                "--allow-orphans to leave them out"
            )
        self._folders = folders
        self._refused_ids: set[str] = set()
        self.num_slices = len(folders.pairs)
        self.patients_unknown = folders.patients_unknown
        self.refused = list(folders.orphans)

    def origin(self) -> dict[str, Any]:
        """Gives the folders and how they are read."""
        config = self._folders.config
        return {
            "images": str(config.images),
            "masks": str(config.mask_folder()),
            "mask_foreground": config.mask_foreground and list(config.mask_foreground),
        }

    def read(self, only: Collection[str] = ()) -> Iterator[LabeledSlice]:
        """Gives all slices, or only those with these ids, without keeping any.

        A file that cannot be used is told and left out.

        Raises:
            ValueError: as soon as more slices are refused than a job bears.
        """
        for pair in self._folders.pairs:
            if (only and pair.slice_id not in only) or pair.slice_id in self._refused_ids:
                continue
            image, mask, refused = self._folders.read(pair)
            if image is None or mask is None or refused:
                self._refuse(pair.slice_id, refused)
                continue
            yield LabeledSlice(
                slice_id=pair.slice_id,
                patient_id=self._folders.patients.get(pair.slice_id, ""),
                image=image,
                mask=mask,
            )

    def _refuse(self, slice_id: str, refused: list[RefusedFile]) -> None:
        lines = [self._folders.describe(entry) for entry in refused]
        for line in lines:
            logger.warning("refused: %s", line)
        self.refused.extend(refused)
        self._refused_ids.add(slice_id)
        if len(self._refused_ids) > MAX_REFUSED_FRACTION * self.num_slices:
            swapped = self._folders.are_swapped(self.refused)
            raise ValueError(
                f"{len(self._refused_ids)} of {self.num_slices} slices are refused already, "
                f"more than {100 * MAX_REFUSED_FRACTION:g} %: the figures would be those of other "
                "slices, so nothing was written; "
                + ("are --images and --masks swapped? If not, " if swapped else "")
                + f"mend or remove the refused files. Last: {lines[0]}"
            )
