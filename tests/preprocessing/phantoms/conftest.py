import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from preprocessing.phantoms.canvas import Canvas, Grid, Pose
from preprocessing.phantoms.couch import Couch
from preprocessing.phantoms.lung_anatomy import Disease, Lung, Pleura
from preprocessing.phantoms.painting import draw_slice
from preprocessing.phantoms.patient import PatientAnatomy, sample_patient
from preprocessing.phantoms.scanner import ScanSettings

NO_WARP = np.zeros((2, 7, 7), np.float32)
NO_LESIONS = np.empty((0, 8), np.float32)

Draw = Callable[..., tuple[np.ndarray, np.ndarray]]


@pytest.fixture
def no_couch() -> Couch:
    return Couch(
        kind="none",
        hu=0,
        shell_mm=1,
        half_width_mm=200,
        radius_mm=400,
        cradle_top_mm=70,
        pad_mm=0,
        pad_hu=-950,
        blanket_mm=0,
    )


@pytest.fixture
def scan(no_couch: Couch) -> ScanSettings:
    """A scanner without noise, that shows -1000 to 1000 HU of a square of 420 mm."""
    return ScanSettings(
        fov_mm=420,
        center_x_mm=0,
        center_y_mm=-110,
        couch=no_couch,
        slice_mm=2.0,
        gantry_radius=2.0,
        outside_hu=-3024,
        blur_mm=0.3,
        sharpening=0,
        noise_hu=0.01,
        streaks_hu=0,
        window_low_hu=-1000,
        window_high_hu=1000,
    )


@pytest.fixture
def canvas() -> Canvas:
    """A canvas on which a pixel is a millimeter, and x = y = 0 is a corner of four pixels."""
    grid = Grid(image_size=64, fov_mm=64, x_mm=0, y_mm=0)
    pose = Pose(width_scale=1, depth_scale=1, roll_degrees=0, back_mm=0)
    return Canvas(grid=grid, pose=pose, warp_mm=NO_WARP)


@pytest.fixture
def patient() -> PatientAnatomy:
    """A healthy patient of reference size, with nothing in the lungs but vessels."""
    found = sample_patient(np.random.default_rng(3))
    return dataclasses.replace(
        found,
        width_scale=1.0,
        depth_scale=1.0,
        roll_degrees=0.0,
        mediastinum_x_mm=0.0,
        warp_mm=np.zeros_like(found.warp_mm),
        lungs=tuple(_healthy(lung) for lung in found.lungs),
        blood_hu=45.0,
    )


def _healthy(lung: Lung) -> Lung:
    return dataclasses.replace(
        lung,
        warp_mm=np.zeros_like(lung.warp_mm),
        level_shift=0.0,
        hu=-850.0,
        pleura=Pleura(),
        disease=Disease(lesions=NO_LESIONS),
    )


@pytest.fixture
def with_lungs() -> Callable[..., PatientAnatomy]:
    """Gives a patient whose lungs are changed: by fields of both lungs, or of their disease."""

    def change(
        patient: PatientAnatomy, *, disease: dict[str, Any] | None = None, **lung_fields: Any
    ) -> PatientAnatomy:
        lungs = []
        for lung in patient.lungs:
            ill = dataclasses.replace(lung.disease, **(disease or {}))
            lungs.append(dataclasses.replace(lung, disease=ill, **lung_fields))
        return dataclasses.replace(patient, lungs=tuple(lungs))

    return change


@pytest.fixture
def draw(scan: ScanSettings) -> Draw:
    """Gives densities in Hounsfield units (-1000 to 1000) and mask of a slice at a lung level."""

    def at(patient: PatientAnatomy, level: float, **changes: Any) -> tuple[np.ndarray, np.ndarray]:
        z = patient.base_z + level * (patient.apex_z - patient.base_z)
        image, mask = draw_slice(
            patient,
            dataclasses.replace(scan, **changes),
            z=z,
            image_size=210,
            rng=np.random.default_rng(9),
        )
        return image.astype(np.float64) * 2000 / 255 - 1000, mask

    return at
