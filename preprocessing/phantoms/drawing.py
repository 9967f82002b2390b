"""Chest-like CT phantoms: slices and lung masks of invented patients, as BMP files.

They let everybody drive the whole road with no data at hand. ``painting`` draws a slice, and tells
in what order to read; ``teaching`` draws slices of the widest variety in memory, to train on.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from preprocessing.errors import PreprocessingError
from preprocessing.phantoms.painting import MAX_IMAGE_SIZE, MIN_IMAGE_SIZE, draw_slice
from preprocessing.phantoms.patient import sample_patient
from preprocessing.phantoms.scanner import sample_scan
from preprocessing.publish import whole_folder
from preprocessing.spec import MASK_FILE_FOREGROUND

SETTINGS_FILENAME = "phantoms.json"
"""The configuration that made a folder of phantoms, written beside them."""


@dataclass(frozen=True, kw_only=True)
class PhantomsConfig:
    """What phantoms to make, and where to."""

    out: Path
    """Folder to make: OUT/images/NAME.bmp and OUT/masks/NAME.bmp; must be new or empty."""

    num_patients: int = 20
    """Number of invented patients."""

    slices_per_patient: int = 12
    """Number of slices of each patient, from abdomen to neck."""

    image_size: int = 512
    """Height and width of a slice, in pixels."""

    seed: int = 0
    """Another seed invents other patients; the same seed makes the same files."""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: if a number is out of its range.
        """
        _check_range("num_patients", self.num_patients, low=1, high=9999)
        _check_range("slices_per_patient", self.slices_per_patient, low=1, high=1000)
        _check_range("image_size", self.image_size, low=MIN_IMAGE_SIZE, high=MAX_IMAGE_SIZE)
        _check_range("seed", self.seed, low=0, high=2**63 - 1)


def _check_range(name: str, value: int, *, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; expected {low} to {high}")


def slice_name(*, patient_index: int, slice_index: int) -> str:
    """Gives the file name without its ending; the patient id is all before ``_z``.

    Args:
        patient_index: counts from 0.
        slice_index: counts from 0, at the abdomen.
    """
    return f"phantom-{patient_index + 1:04d}_z{slice_index:03d}"


def slice_level(slice_index: int, *, slices_per_patient: int) -> float:
    """Gives z of a slice: evenly from 0 (abdomen) to 1 (neck), or 0.5 for a single slice."""
    return slice_index / (slices_per_patient - 1) if slices_per_patient > 1 else 0.5


def write_phantoms(config: PhantomsConfig) -> int:
    """Writes slices and masks; the folder appears whole or not at all.

    Args:
        config: what to make.

    Returns:
        Number of pairs of slice and mask.

    Raises:
        PreprocessingError: if ``config.out`` is there and is anything but an empty folder, or if it
            cannot be written.
    """
    try:
        _make_way(config.out)
        with whole_folder(config.out) as folder:
            _write_all(folder, config)
    except OSError as error:
        raise PreprocessingError(
            f"--out {config.out} cannot be written: {error.strerror or error}; choose another"
        ) from error
    return config.num_patients * config.slices_per_patient


def _make_way(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise PreprocessingError(
            f"{out} is a file; expected the name of a new folder; choose another"
        )
    if any(out.iterdir()):
        raise PreprocessingError(
            f"{out} is a folder with files in it; expected a new or an empty one, as phantoms "
            "replace nothing; choose another one or remove it first"
        )
    out.rmdir()


def _write_all(folder: Path, config: PhantomsConfig) -> None:
    for subfolder in ("images", "masks"):
        (folder / subfolder).mkdir()
    patients = range(config.num_patients)
    for patient_index in tqdm(patients, desc="phantoms", unit="patient", disable=None):
        _write_patient(folder, config, patient_index=patient_index)
    _write_settings(folder / SETTINGS_FILENAME, config)


def _write_patient(folder: Path, config: PhantomsConfig, *, patient_index: int) -> None:
    # One generator for each patient and one for each slice: no patient depends on how many there
    # are, nor the noise of a slice on what was drawn before.
    patient_rng = _rng(config.seed, patient_index)
    patient = sample_patient(patient_rng)
    scan = sample_scan(patient_rng, patient=patient)
    for slice_index in range(config.slices_per_patient):
        image, mask = draw_slice(
            patient,
            scan,
            z=slice_level(slice_index, slices_per_patient=config.slices_per_patient),
            image_size=config.image_size,
            rng=_rng(config.seed, patient_index, slice_index),
        )
        name = slice_name(patient_index=patient_index, slice_index=slice_index) + ".bmp"
        Image.fromarray(image).save(folder / "images" / name)
        mask_file = mask * np.uint8(MASK_FILE_FOREGROUND)
        Image.fromarray(mask_file).save(folder / "masks" / name)


def _rng(seed: int, *key: int) -> np.random.Generator:
    # `spawn_key` and no list of numbers: lists that differ only in zeros at the end are one seed.
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _write_settings(path: Path, config: PhantomsConfig) -> None:
    """Writes the configuration without the folder, so that equal phantoms are equal files."""
    settings = dataclasses.asdict(config)
    del settings["out"]
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
