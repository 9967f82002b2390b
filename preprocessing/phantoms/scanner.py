"""One scanner, its settings, and how a patient is put into it."""

from dataclasses import dataclass

import numpy as np

from preprocessing.phantoms.anatomy import Variety
from preprocessing.phantoms.canvas import AIR_HU, Grid, Pose
from preprocessing.phantoms.couch import Couch, sample_couch
from preprocessing.phantoms.patient import PatientAnatomy

WINDOW_LOW_HU = -1350.0
WINDOW_HIGH_HU = 150.0
"""The usual window: these densities become gray values 0 and 255."""

OUTSIDE_HU = -3024.0
"""What many scanners write outside of the circle that they reconstruct."""

LUNG_WINDOWS_HU = (
    (-1350, 150),
    (-1000, 400),
    (-1150, 350),
    (-1250, 250),
    (-1400, 200),
    (-1000, 200),
    (-1200, 600),
    (-950, 50),
)
FULL_WINDOWS_HU = ((-1024, 3071), (-1000, 1000), (-1024, 1024), (-1000, 600), (-2000, 2000))
SOFT_WINDOWS_HU = ((-160, 240), (-150, 250), (-125, 275), (-200, 300))
"""Windows in which slices are exported: for lungs, all densities, and for soft tissue."""


@dataclass(frozen=True, kw_only=True)
class ScanSettings:
    """One scanner, and how the patient was put into it."""

    fov_mm: float
    """Field of view: height and width of the image."""

    center_x_mm: float
    """How far to the right the center of the image is of the middle of the couch."""

    center_y_mm: float
    """How far below the top of the couch the center of the image is; negative for above."""

    couch: Couch
    """What the patient lies on."""

    slice_mm: float
    """Thickness of a slice."""

    gantry_radius: float
    """Radius of the reconstructed circle, in halves of the image."""

    outside_hu: float
    """Density written outside of that circle."""

    blur_mm: float
    """Standard deviation of the point spread of the reconstruction kernel."""

    sharpening: float
    """How much the kernel raises fine detail; above about 1 edges overshoot."""

    noise_hu: float
    """Standard deviation of the noise in the middle of the body."""

    streaks_hu: float
    """Standard deviation of the noise along rows where bone starves the detectors of photons."""

    window_low_hu: float
    """Density shown as gray value 0."""

    window_high_hu: float
    """Density shown as gray value 255."""

    fit_window: bool = False
    """Whether the window is stretched to the densities in each slice instead."""

    def grid(self, image_size: int) -> Grid:
        """Gives the pixels of a slice of this scan."""
        return Grid(
            image_size=image_size, fov_mm=self.fov_mm, x_mm=self.center_x_mm, y_mm=self.center_y_mm
        )


def pose(patient: PatientAnatomy) -> Pose:
    """Lays a patient on the couch."""
    return Pose(
        width_scale=patient.width_scale,
        depth_scale=patient.depth_scale,
        roll_degrees=patient.roll_degrees,
        back_mm=0.5 * patient.fat_mm,
    )


def sample_scan(
    rng: np.random.Generator, *, patient: PatientAnatomy, variety: Variety = "usual"
) -> ScanSettings:
    """Invents a scanner, and sets its field of view to the size of a patient.

    Args:
        rng: the source of all that varies.
        patient: who lies in it.
        variety: ``usual`` shows the whole chest in the window for lungs.
    """
    wide = variety == "wide"
    chest_mm = 2 * patient.width_scale * (patient.length("body_half_width", 0.4) + patient.fat_mm)
    depth_mm = 2 * patient.depth_scale * (114 + 0.8 * patient.fat_mm)
    fov_mm = chest_mm / _body_share(rng) if wide else chest_mm * rng.uniform(1.02, 1.45)
    tight = fov_mm < 1.1 * depth_mm
    circle = rng.random() < 0.5
    low_hu, high_hu = _sample_window(rng) if wide else (WINDOW_LOW_HU, WINDOW_HIGH_HU)
    jitter = 60 if not wide else 0.05 * (high_hu - low_hu)
    return ScanSettings(
        fov_mm=fov_mm if wide else max(fov_mm, 1.15 * depth_mm),
        center_x_mm=rng.normal(0, 0.03 * fov_mm),
        center_y_mm=-depth_mm / 2 + rng.normal(0, (0.03 if tight or not wide else 0.08) * fov_mm),
        couch=sample_couch(rng, variety=variety),
        slice_mm=float(np.exp(rng.uniform(np.log(0.8), np.log(10)))) if wide else 3.0,
        gantry_radius=_gantry_radius(rng, wide=wide) if circle else 2.0,
        outside_hu=_outside_hu(rng, wide=wide),
        blur_mm=rng.uniform(0.3, 1.3) if wide else rng.uniform(0.4, 0.9),
        sharpening=rng.uniform(0.2, 1.8) if wide and rng.random() < 0.4 else 0.0,
        noise_hu=float(np.exp(rng.uniform(np.log(4), np.log(110)))) if wide else rng.uniform(5, 28),
        streaks_hu=rng.uniform(10, 90) if wide and rng.random() < 0.2 else 0.0,
        window_low_hu=low_hu + rng.uniform(-jitter, jitter),
        window_high_hu=high_hu + rng.uniform(-jitter, jitter),
        fit_window=bool(wide and rng.random() < 0.06),
    )


def _body_share(rng: np.random.Generator) -> float:
    """Draws how much of the width of the image the body fills, 0.35 to 1.3."""
    kind = rng.random()
    if kind < 0.2:
        return rng.uniform(0.35, 0.6)
    return rng.uniform(0.6, 1.0) if kind < 0.72 else rng.uniform(0.98, 1.3)


def _sample_window(rng: np.random.Generator) -> tuple[float, float]:
    kind = rng.random()
    for chance, windows in (
        (0.5, LUNG_WINDOWS_HU),
        (0.68, FULL_WINDOWS_HU),
        (0.8, SOFT_WINDOWS_HU),
    ):
        if kind < chance:
            return windows[int(rng.integers(len(windows)))]
    level, width = rng.uniform(-750, -250), rng.uniform(700, 2400)
    return level - width / 2, level + width / 2


def _gantry_radius(rng: np.random.Generator, *, wide: bool) -> float:
    return rng.uniform(0.84, 1.1) if wide and rng.random() < 0.5 else rng.uniform(0.96, 1.04)


def _outside_hu(rng: np.random.Generator, *, wide: bool) -> float:
    if not wide:
        return OUTSIDE_HU if rng.random() < 0.7 else AIR_HU
    return float(
        rng.choice([OUTSIDE_HU, -2000.0, -1024.0, AIR_HU, 0.0], p=[0.4, 0.2, 0.2, 0.15, 0.05])
    )
