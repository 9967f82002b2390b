"""Other scanners and exports, simulated on slices that a model is measured on.

This is the exam and not the lesson: it shares no code with ``trainer.augmentation``, and what is
drawn at random for a slice follows from the names of scanner and slice alone, so every model is
asked the same. Each function below is one scanner or export:

    image: [height, width] uint8 gray values
    mask: [height, width] uint8 in {0, 1}
    rng: of this slice and scanner
    returns: both again, moved together, of the same shapes and types

The windows take gray values for -1350..150 HU, as those of LCTSC are; on slices that were made with
another window they are other windows than their names say.
"""

import hashlib
import io
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage
from skimage import exposure, filters, transform

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Pair = tuple[Pixels, Pixels]
Scanner = Callable[[Pixels, Pixels, np.random.Generator], Pair]

SEED = 20250501
"""Of all draws. A constant: figures of different models must be comparable."""

MIN_SIZE_PX = 8
"""Smallest height and width of a slice."""

LOWEST_HU, HIGHEST_HU = -1350.0, 150.0
"""What gray values 0 and 255 are taken for."""

_NOMINAL_SIZE_PX = 512
"""Size for which widths in pixels are given below; they scale with the slice."""

_MIN_BODY_SHARE = 0.02
"""A slice on which less is bright shows no body."""


def simulate(scanner: str, *, image: Pixels, mask: Pixels, slice_id: str) -> Pair:
    """Shows a slice as another scanner or export would have it.

    Args:
        scanner: a key of ``SCANNERS``.
        image: [height, width] uint8 gray values, at least 8x8.
        mask: same shape, uint8 in {0, 1}.
        slice_id: decides on what is drawn at random, together with the scanner.

    Returns:
        Image and mask, of the same shapes and types; those that were given are left as they are.

    Raises:
        ValueError: if there is no such scanner, or the arrays are not as they should be.
    """
    if scanner not in SCANNERS:
        raise ValueError(f"scanner is {scanner!r}; expected one of {', '.join(SCANNERS)}")
    _check(image, mask, slice_id)
    digest = hashlib.sha256(f"{scanner}/{slice_id}".encode()).digest()
    rng = np.random.default_rng([SEED, int.from_bytes(digest[:8], "big")])
    return SCANNERS[scanner](image, mask, rng)


def crop_to_body(image: Pixels, mask: Pixels, rng: np.random.Generator) -> Pair:
    """Cuts the body out tightly and stretches it over the whole slice."""
    box = _body_box(image)
    return _cut_out(image, mask, box) if box else (image.copy(), mask.copy())


def small_field_of_view(image: Pixels, mask: Pixels, rng: np.random.Generator) -> Pair:
    """Cuts the skin off at both sides, as in a scan of the heart."""
    box = _body_box(image)
    if box is None:
        return image.copy(), mask.copy()
    rows, columns = box
    width = columns.stop - columns.start
    side = rng.uniform(0.80, 0.88) * width
    center = [(part.start + part.stop) / 2 for part in (rows, columns)]
    square = [
        _segment(middle, side, length) for middle, length in zip(center, image.shape, strict=True)
    ]
    return _cut_out(image, mask, (square[0], square[1]))


def wide_field_of_view(image: Pixels, mask: Pixels, rng: np.random.Generator) -> Pair:
    """Shows the slice at 50 to 60 % of its size, somewhere in much air."""
    return _shrink(image, mask, scale=rng.uniform(0.50, 0.60), place=rng.uniform(0.3, 0.7, size=2))


def vertical_flip(image: Pixels, mask: Pixels, rng: np.random.Generator) -> Pair:
    """Puts the spine on top: a patient who lies prone, or a file stored from bottom to top."""
    return image[::-1].copy(), mask[::-1].copy()


def rotated_90(image: Pixels, mask: Pixels, rng: np.random.Generator) -> Pair:
    """Turns the slice by a quarter, to either side; one that is no square is stretched back."""
    num_turns = int(rng.choice([1, 3]))
    return _resize(np.rot90(image, num_turns), np.rot90(mask, num_turns), image.shape)


def soft_tissue_window(image: Pixels, mask: Pixels, rng: np.random.Generator) -> Pair:
    """Shows -160..240 HU: lungs are as black as the air around the body."""
    return _window(image, -160, 240), mask.copy()


def narrow_window(image: Pixels, mask: Pixels, rng: np.random.Generator) -> Pair:
    """Shows -1050..-450 HU: all that is no lung is white."""
    return _window(image, -1050, -450), mask.copy()


def wide_window(image: Pixels, mask: Pixels, rng: np.random.Generator) -> Pair:
    """Shows -1024..2000 HU: lungs are almost black, and nothing is bright."""
    return _window(image, -1024, 2000), mask.copy()


def clahe(image: Pixels, mask: Pixels, rng: np.random.Generator) -> Pair:
    """Equalizes the contrast of each neighborhood (CLAHE), strongly.

    Source: Zuiderveld, Graphics Gems IV, 1994; ``skimage.exposure.equalize_adapthist``.
    """
    if image.min() == image.max():
        return image.copy(), mask.copy()
    equalized = exposure.equalize_adapthist(image, clip_limit=rng.uniform(0.03, 0.06))
    return _to_gray(255 * equalized), mask.copy()


def dark_gamma(image: Pixels, mask: Pixels, rng: np.random.Generator) -> Pair:
    """Darkens what is between black and white: exponent 1.8 to 2.4."""
    return _gamma(image, rng.uniform(1.8, 2.4)), mask.copy()


def bright_gamma(image: Pixels, mask: Pixels, rng: np.random.Generator) -> Pair:
    """Brightens what is between black and white: exponent 0.4 to 0.55."""
    return _gamma(image, rng.uniform(0.40, 0.55)), mask.copy()


def low_resolution(image: Pixels, mask: Pixels, rng: np.random.Generator) -> Pair:
    """Keeps a fifth to a seventh of the pixels in each axis; the mask keeps all."""
    return _coarsen(image, rng.uniform(5, 7)), mask.copy()


def strong_noise(image: Pixels, mask: Pixels, rng: np.random.Generator) -> Pair:
    """Adds grainy noise with a standard deviation of 130 to 200 HU, as in a scan of little dose."""
    return _add_noise(image, rng, deviation_hu=rng.uniform(130, 200), grain_px=1.0), mask.copy()


def sharp_kernel(image: Pixels, mask: Pixels, rng: np.random.Generator) -> Pair:
    """Reconstructs with a bone kernel: edges overshoot, and the noise is fine and strong."""
    width_px = max(0.7, 2.0 * _pixel_scale(image))
    smooth = ndimage.gaussian_filter(image.astype(np.float64), width_px)
    sharpened = image + rng.uniform(1.5, 2.5) * (image - smooth)
    return _add_noise(sharpened, rng, deviation_hu=80, grain_px=0.0), mask.copy()


def gantry_circle(image: Pixels, mask: Pixels, rng: np.random.Generator) -> Pair:
    """Blackens what is outside of a circle, which may cut arms, skin and couch off."""
    height, width = image.shape
    rows, columns = np.ogrid[:height, :width]
    radius = rng.uniform(0.88, 0.98)
    distance = np.hypot(
        (rows - (height - 1) / 2) / (height / 2), (columns - (width - 1) / 2) / (width / 2)
    )
    return _blacken(image, mask, distance > radius)


def black_background(image: Pixels, mask: Pixels, rng: np.random.Generator) -> Pair:
    """Blackens all that is not body: air, couch, tubes and blankets."""
    body = _find_body(image)
    if body is None:
        return image.copy(), mask.copy()
    # Some millimeters around it stay, so that no lung at the edge of a thin body is lost.
    margin = max(1, round(3 * _pixel_scale(image)))
    near = ndimage.distance_transform_edt(~body) <= margin
    return _blacken(image, mask, ~near)


def hollow_couch(image: Pixels, mask: Pixels, rng: np.random.Generator) -> Pair:
    """Puts the patient on a couch with a bright shell around dark foam, which looks like lung."""
    image, mask = _shrink(image, mask, scale=0.75, place=np.array([0.1, rng.uniform(0.4, 0.6)]))
    body = _find_body(image)
    if body is None:
        return image, mask
    height, width = image.shape
    rows, columns = np.nonzero(body)
    scale = _pixel_scale(image)
    thickness = max(3.0, rng.uniform(35, 50) * scale)
    # A bow: lowest in the middle, below the back of the patient.
    x = (np.arange(width) - columns.mean()) / (0.40 * width)
    top = rows.max() + 2 * scale - rng.uniform(10, 30) * scale * x**2
    depth = (np.arange(height)[:, np.newaxis] - top) / thickness
    # The body stays in front of it, and so does the patient's old couch between the two.
    couch = (depth >= 0) & (depth <= 1) & (np.abs(x) <= 1) & ~body & (mask == 0)
    shell = couch & ~ndimage.binary_erosion(couch, iterations=max(1, round(3 * scale)))
    pixels = image.copy()
    pixels[couch] = _gray_of(rng.uniform(-930, -850))
    pixels[shell] = _gray_of(rng.uniform(-100, 100))
    return pixels, mask


def old_scanner(image: Pixels, mask: Pixels, rng: np.random.Generator) -> Pair:
    """Combines coarse pixels, coarse noise, a narrow window and the circle of the gantry."""
    pixels = _add_noise(_coarsen(image, 4.0), rng, deviation_hu=90, grain_px=2.0)
    return gantry_circle(_window(pixels, -1100, -100), mask, rng)


def journal_figure(image: Pixels, mask: Pixels, rng: np.random.Generator) -> Pair:
    """Combines a tight cut, much contrast, coarse pixels and JPEG: a figure taken from a paper."""
    image, mask = crop_to_body(image, mask, rng)
    pixels = _coarsen(_gamma(_window(image, -1000, 100), 0.7), 2.5)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=int(rng.integers(15, 30)))
    with Image.open(file) as decoded:
        return np.array(decoded, np.uint8), mask


def prone_low_dose(image: Pixels, mask: Pixels, rng: np.random.Generator) -> Pair:
    """Combines a patient who lies prone, a wide field of view, noise and a wide window."""
    image, mask = vertical_flip(image, mask, rng)
    scale, place = rng.uniform(0.65, 0.75), rng.uniform(0.3, 0.7, size=2)
    image, mask = _shrink(image, mask, scale=scale, place=place)
    noisy = _add_noise(image, rng, deviation_hu=100, grain_px=1.0)
    return _window(noisy, -1200, 600), mask


SCANNERS: Mapping[str, Scanner] = {
    scanner.__name__: scanner
    for scanner in (
        *(crop_to_body, small_field_of_view, wide_field_of_view, vertical_flip, rotated_90),
        *(soft_tissue_window, narrow_window, wide_window, clahe, dark_gamma, bright_gamma),
        *(low_resolution, strong_noise, sharp_kernel),
        *(gantry_circle, black_background, hollow_couch),
        *(old_scanner, journal_figure, prone_low_dose),
    )
}
"""The fixed set, by name: geometry, gray values, sharpness and noise, surroundings, and all of them
together. One that is changed needs another name: figures of the two cannot be compared."""


def _check(image: Pixels, mask: Pixels, slice_id: str) -> None:
    if image.ndim != 2 or min(image.shape) < MIN_SIZE_PX or image.dtype != np.uint8:
        raise ValueError(
            f"slice {slice_id} has shape {list(image.shape)} and type {image.dtype}; expected "
            f"uint8 [height, width] of at least {MIN_SIZE_PX} pixels each"
        )
    if mask.shape != image.shape or mask.dtype != np.uint8 or mask.max() > 1:
        raise ValueError(
            f"the mask of slice {slice_id} has shape {list(mask.shape)}, type {mask.dtype} and "
            f"values up to {mask.max()}; expected {list(image.shape)}, uint8, 0 and 1"
        )


def _find_body(image: Pixels) -> npt.NDArray[np.bool_] | None:
    """Gives the largest bright part with all that it encloses; None where nothing stands out.

    Source: the threshold between dark and bright is that of Otsu, IEEE TSMC 9(1), 1979.
    """
    if image.min() == image.max():
        return None
    bright = image > filters.threshold_otsu(image)
    # Skin that touches the couch is torn from it.
    opened = ndimage.binary_opening(bright, iterations=max(1, round(3 * _pixel_scale(image))))
    labels, num_parts = ndimage.label(opened)
    if not num_parts:
        return None
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    if areas.max() < _MIN_BODY_SHARE * image.size:
        return None
    body: npt.NDArray[np.bool_] = ndimage.binary_fill_holes(labels == areas.argmax())
    return body


def _body_box(image: Pixels) -> tuple[slice, slice] | None:
    body = _find_body(image)
    if body is None:
        return None
    rows, columns = ndimage.find_objects(body.astype(np.uint8))[0]
    return rows, columns


def _segment(middle: float, length: float, limit: int) -> slice:
    """Gives a segment around a point, moved or shortened so that it lies within 0..limit."""
    size = min(limit, max(2, round(length)))
    start = min(max(0, round(middle - size / 2)), limit - size)
    return slice(start, start + size)


def _cut_out(image: Pixels, mask: Pixels, box: tuple[slice, slice]) -> Pair:
    return _resize(image[box], mask[box], image.shape)


def _shrink(image: Pixels, mask: Pixels, *, scale: float, place: Floats) -> Pair:
    """Scales a slice down and puts it into air; place 0 is top or left, 1 is bottom or right."""
    size = (max(2, round(scale * image.shape[0])), max(2, round(scale * image.shape[1])))
    small_image, small_mask = _resize(image, mask, size)
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    pixels, lung = np.full_like(image, np.median(border)), np.zeros_like(mask)
    top, left = (
        round(share * (length - part))
        for share, length, part in zip(place, image.shape, size, strict=True)
    )
    inside = slice(top, top + size[0]), slice(left, left + size[1])
    pixels[inside], lung[inside] = small_image, small_mask
    return pixels, lung


def _resize(image: Pixels, mask: Pixels, shape: tuple[int, ...]) -> Pair:
    """Scales image and mask alike; a pixel at least half of which is lung is lung."""
    if image.shape == shape:
        return image.copy(), mask.copy()
    pixels, lung = (
        transform.resize(part.astype(np.float64), shape, order=1, mode="edge", anti_aliasing=True)
        for part in (image, mask)
    )
    return _to_gray(pixels), (lung >= 0.5).astype(np.uint8)


def _coarsen(image: Pixels, factor: float) -> Pixels:
    """Scales an image down by a factor, and up again."""
    small = [max(2, round(length / factor)) for length in image.shape]
    coarse = transform.resize(image.astype(np.float64), small, order=1, anti_aliasing=True)
    return _to_gray(transform.resize(coarse, image.shape, order=1, mode="edge"))


def _window(image: Pixels, low_hu: float, high_hu: float) -> Pixels:
    hu = LOWEST_HU + image / 255 * (HIGHEST_HU - LOWEST_HU)
    return _to_gray(255 * (hu - low_hu) / (high_hu - low_hu))


def _gray_of(hu: float) -> int:
    return round(255 * (hu - LOWEST_HU) / (HIGHEST_HU - LOWEST_HU))


def _gamma(image: Pixels, exponent: float) -> Pixels:
    return _to_gray(255 * (image / 255) ** exponent)


def _add_noise(
    image: Pixels | Floats, rng: np.random.Generator, *, deviation_hu: float, grain_px: float
) -> Pixels:
    """Adds Gaussian noise that a filter of some width made grainy; 0 leaves it white."""
    noise = rng.standard_normal(image.shape)
    if grain_px:
        noise = ndimage.gaussian_filter(noise, grain_px * _pixel_scale(image))
        noise /= noise.std()
    return _to_gray(image + deviation_hu * 255 / (HIGHEST_HU - LOWEST_HU) * noise)


def _blacken(image: Pixels, mask: Pixels, outside: npt.NDArray[np.bool_]) -> Pair:
    pixels, lung = image.copy(), mask.copy()
    pixels[outside], lung[outside] = 0, 0
    return pixels, lung


def _pixel_scale(image: Pixels | Floats) -> float:
    """Gives how many pixels of this slice are as wide as one at 512x512."""
    return min(image.shape) / _NOMINAL_SIZE_PX


def _to_gray(values: Floats) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
