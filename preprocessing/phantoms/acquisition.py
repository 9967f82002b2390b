"""What scanner and reconstruction add to a patient: couch, blur, noise, gantry circle, window."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.phantoms.anatomy import PatientAnatomy
from preprocessing.phantoms.canvas import AIR_HU, Floats, Grid, Pose
from preprocessing.spec import IMAGE_SPEC

WINDOW_LOW_HU = -1350.0
WINDOW_HIGH_HU = 150.0
"""The usual window: these densities become gray values 0 and 255."""

MARGIN_PX = 8
"""Border around a slice while it is blurred."""

OUTSIDE_HU = -3024.0
"""What many scanners write outside of the circle that they reconstruct."""


@dataclass(frozen=True, kw_only=True)
class ScanSettings:
    """One scanner, and how the patient was put into it."""

    fov_mm: float
    """Field of view: height and width of the image."""

    center_x_mm: float
    """How far to the right the center of the image is of the middle of the couch."""

    center_y_mm: float
    """How far below the top of the couch the center of the image is; negative for above."""

    couch: str
    """``flat`` (a board on a cradle), ``curved`` (a cradle) or ``none``."""

    couch_hu: float
    """Density of the shell of the couch."""

    gantry_radius: float
    """Radius of the reconstructed circle, in halves of the image."""

    outside_hu: float
    """Density written outside of that circle."""

    blur_mm: float
    """Standard deviation of the point spread of the reconstruction kernel."""

    noise_hu: float
    """Standard deviation of the noise in the middle of the body, before the pixel grid averages."""

    window_low_hu: float
    """Density shown as gray value 0."""

    window_high_hu: float
    """Density shown as gray value 255."""

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


def sample_scan(rng: np.random.Generator, *, patient: PatientAnatomy) -> ScanSettings:
    """Invents a scanner, and sets its field of view to the size of a patient.

    Args:
        rng: the source of all that varies.
        patient: who lies in it.
    """
    chest_mm = 2 * patient.width_scale * (156 + patient.fat_mm)
    depth_mm = 2 * patient.depth_scale * (108 + 0.8 * patient.fat_mm)
    circle = rng.random() < 0.5
    return ScanSettings(
        fov_mm=max(chest_mm * rng.uniform(1.02, 1.45), 1.15 * depth_mm),
        center_x_mm=rng.normal(0, 8),
        center_y_mm=-depth_mm / 2 + rng.normal(0, 8),
        couch=str(rng.choice(["flat", "curved", "none"], p=[0.5, 0.4, 0.1])),
        couch_hu=rng.uniform(-500, 400),
        gantry_radius=rng.uniform(0.96, 1.04) if circle else 2.0,
        outside_hu=OUTSIDE_HU if rng.random() < 0.7 else AIR_HU,
        blur_mm=rng.uniform(0.4, 0.9),
        noise_hu=rng.uniform(6, 40),
        window_low_hu=WINDOW_LOW_HU + rng.uniform(-60, 60),
        window_high_hu=WINDOW_HIGH_HU + rng.uniform(-60, 60),
    )


def acquire(
    hu: Floats, scan: ScanSettings, *, body_distance: Floats, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Turns true densities into the slice that a viewer exports.

    Args:
        hu: [size, size] densities; the couch is added in place.
        scan: the scanner.
        body_distance: [size, size], 0 in the middle of the body, 1 at its outline, more outside.
        rng: the source of the noise.

    Returns:
        [size, size] gray values.
    """
    grid = scan.grid(hu.shape[0])
    _add_couch(hu, scan, grid=grid)
    hu = _reconstruct(hu, scan, body_distance=body_distance, pixel_mm=grid.pixel_mm, rng=rng)
    centered = (np.arange(hu.shape[0], dtype=np.float32) + 0.5) / (hu.shape[0] / 2) - 1
    radius_squared = centered[None, :] ** 2 + centered[:, None] ** 2
    hu[radius_squared > scan.gantry_radius**2] = scan.outside_hu
    return to_gray_values(hu, low_hu=scan.window_low_hu, high_hu=scan.window_high_hu)


def to_gray_values(hu: Floats, *, low_hu: float, high_hu: float) -> NDArray[np.uint8]:
    """Shows densities through a window.

    Args:
        hu: any shape.
        low_hu: becomes gray value 0, as all that is less dense.
        high_hu: becomes gray value 255, as all that is denser.
    """
    span = IMAGE_SPEC.gray_max - IMAGE_SPEC.gray_min
    share = np.clip((hu - np.float32(low_hu)) / np.float32(high_hu - low_hu), 0, 1)
    return np.rint(share * span + IMAGE_SPEC.gray_min).astype(np.uint8)


def _add_couch(hu: Floats, scan: ScanSettings, *, grid: Grid) -> None:
    """Adds the couch where air is, beneath the patient."""
    if scan.couch == "none":
        return
    x, y = grid.axes()
    if scan.couch == "flat":
        board = np.maximum(np.abs(y - 13) - 12, np.abs(x) - 265)
        cradle = _arc(x, y, top_mm=76, radius_mm=520, half_width_mm=225)
        shapes = [(board, scan.couch_hu - 150), (cradle, scan.couch_hu)]
    else:
        shapes = [(_arc(x, y, top_mm=4, radius_mm=430, half_width_mm=215), scan.couch_hu)]
    for distance, shell_hu in shapes:
        shell = np.clip(0.5 - (np.abs(distance) - 1.2) / grid.pixel_mm, 0, 1)
        foam = np.clip(0.5 - distance / grid.pixel_mm, 0, 1)
        couch = AIR_HU + 40 * foam + shell * (shell_hu - AIR_HU - 40)
        hu[...] = np.where(y > 0, np.maximum(hu, couch), hu)


def _arc(x: Floats, y: Floats, *, top_mm: float, radius_mm: float, half_width_mm: float) -> Floats:
    """Measures the distance to a trough 25 mm thick, hollow side up."""
    radius = np.sqrt(x * x + (y - np.float32(top_mm + 12.5 - radius_mm)) ** 2)
    thick = np.abs(radius - np.float32(radius_mm)) - np.float32(12.5)
    return np.maximum(thick, np.abs(x) - np.float32(half_width_mm))


def _reconstruct(
    hu: Floats,
    scan: ScanSettings,
    *,
    body_distance: Floats,
    pixel_mm: float,
    rng: np.random.Generator,
) -> Floats:
    """Blurs, and adds the noise that filtered back-projection leaves.

    Noise of a white spectrum in the projections gets a spectrum that rises with the frequency (the
    ramp filter) and falls with the kernel. It is strongest where the most tissue is in the way.

    Source: Riederer, Pelc, Chesler, "The noise power spectrum in computed X-ray tomography",
    Physics in Medicine and Biology 23(3), 1978.
    """
    # The Fourier transform wraps around: what it carries over a border lands in the margin.
    hu, body_distance = (np.pad(a, MARGIN_PX, mode="edge") for a in (hu, body_distance))
    size = hu.shape[0]
    across = np.fft.rfftfreq(size, pixel_mm).astype(np.float32)
    along = np.fft.fftfreq(size, pixel_mm).astype(np.float32)
    squared = along[:, None] ** 2 + across[None, :] ** 2
    fall = 2 * np.pi**2 * scan.blur_mm**2
    blur = np.exp(np.float32(-fall) * squared)
    # The deviation of ramp-filtered white noise, from the integral of f^2 exp(-2 fall f^2).
    unit = pixel_mm * np.sqrt(np.pi) / (2 * fall)
    strength = np.float32(scan.noise_hu / unit) * (0.2 + 0.8 * np.exp(-(body_distance**2)))
    white = rng.standard_normal((size, size), dtype=np.float32) * strength
    spectrum = np.fft.rfft2(hu) + np.fft.rfft2(white) * np.sqrt(squared)
    blurred = np.fft.irfft2(spectrum * blur, s=(size, size))
    return blurred[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
