"""What scanner and reconstruction add to a patient: couch, blur, noise, streaks, circle, window."""

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from preprocessing.phantoms.couch import add_blanket, add_couch
from preprocessing.phantoms.scanner import ScanSettings
from preprocessing.phantoms.shapes import Floats, smooth_field
from preprocessing.spec import IMAGE_SPEC

MARGIN_PX = 8
"""Border around a slice while it is blurred."""

METAL_LIMIT_HU = 2800.0
"""What is denser throws streaks."""

SCANNER_MAX_HU = 3071.0
"""The largest number that 12 bits hold when the smallest is -1024."""


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
    add_blanket(hu, scan.couch, pixel_mm=grid.pixel_mm)
    add_couch(hu, scan.couch, grid=grid)
    _add_metal_streaks(hu, pixel_mm=grid.pixel_mm, rng=rng)
    strength = np.float32(0.2) + np.float32(0.8) * np.exp(-body_distance * body_distance)
    hu = _reconstruct(hu, scan, strength=strength, pixel_mm=grid.pixel_mm, rng=rng)
    if scan.streaks_hu:
        rows = rng.standard_normal((hu.shape[0], 5), dtype=np.float32)
        hu += smooth_field(rows, hu.shape) * np.float32(scan.streaks_hu) * strength
    low_hu, high_hu = scan.window_low_hu, scan.window_high_hu
    if scan.fit_window:
        low_hu, high_hu = float(hu.min()), float(hu.max())
    outside = outside_circle(scan, hu.shape[0])
    if outside is not None:
        hu[outside] = scan.outside_hu
    return to_gray_values(hu, low_hu=low_hu, high_hu=high_hu)


def outside_circle(scan: ScanSettings, image_size: int) -> NDArray[np.bool_] | None:
    """Tells the pixels [size, size] that a scanner does not reconstruct; None where it does all."""
    if scan.gantry_radius >= 2**0.5:
        return None
    centered = (np.arange(image_size, dtype=np.float32) + 0.5) / (image_size / 2) - 1
    return centered[None, :] ** 2 + centered[:, None] ** 2 > scan.gantry_radius**2


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


def _add_metal_streaks(hu: Floats, *, pixel_mm: float, rng: np.random.Generator) -> None:
    """Throws bright and dark rays from metal, and keeps densities to what scanners show."""
    rows, columns = np.nonzero(hu > METAL_LIMIT_HU)
    if not len(rows):
        return
    reach_mm = np.float32(12 + 3 * pixel_mm * len(rows) ** 0.5)
    across = np.arange(hu.shape[1], dtype=np.float32)[None, :] - np.float32(columns.mean())
    along = np.arange(hu.shape[0], dtype=np.float32)[:, None] - np.float32(rows.mean())
    # Most rays are faint, a few strong.
    rays = rng.standard_normal(360, dtype=np.float32)
    rays *= np.abs(rays) * np.float32(rng.uniform(15, 120))
    angle = np.arctan2(along, across) * np.float32(180 / np.pi) + 180
    away_mm = np.sqrt(across * across + along * along) * np.float32(pixel_mm)
    hu += rays[angle.astype(np.int16) % 360] * np.exp(-away_mm / (3 * reach_mm))
    np.minimum(hu, np.float32(SCANNER_MAX_HU), out=hu)


def _reconstruct(
    hu: Floats,
    scan: ScanSettings,
    *,
    strength: Floats,
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
    size = fft.next_fast_len(hu.shape[0] + 2 * MARGIN_PX, real=True)
    before = (size - hu.shape[0]) // 2
    margins = (before, size - hu.shape[0] - before)
    across = fft.rfftfreq(size, pixel_mm).astype(np.float32)
    along = fft.fftfreq(size, pixel_mm).astype(np.float32)
    squared = along[:, None] ** 2 + across[None, :] ** 2
    kernel = np.exp(np.float32(-2 * np.pi**2 * scan.blur_mm**2) * squared)
    if scan.sharpening:
        # Raises what is finer than about 4 mm.
        kernel *= 1 + np.float32(scan.sharpening) * (1 - np.exp(np.float32(-40) * squared))
    ramp = np.sqrt(squared)
    # White noise of deviation 1 leaves the filter with the root of its mean square.
    shaped = ramp * kernel
    shaped *= np.float32(scan.noise_hu) / np.sqrt(np.mean(shaped * shaped))
    white = rng.standard_normal((size, size), dtype=np.float32) * np.pad(strength, margins, "edge")
    spectrum = fft.rfft2(np.pad(hu, margins, "edge")) * kernel + fft.rfft2(white) * shaped
    inside = slice(before, before + hu.shape[0])
    return fft.irfft2(spectrum, s=(size, size))[inside, inside]
