"""Changes the density inside a lung as its diseases do; the outline of the lung stays."""

from dataclasses import dataclass

import numpy as np

from preprocessing.phantoms.lung_anatomy import Disease
from preprocessing.phantoms.shapes import Floats, smooth_field


@dataclass(frozen=True, kw_only=True, eq=False)
class LungRegion:
    """The part of a slice in which a lung lies; the arrays are [height, width] of that part."""

    x: Floats
    """Reference millimeters to the left."""

    y: Floats
    """Reference millimeters to the back."""

    depth_mm: Floats
    """Distance from the pleura, positive inside the lung."""

    back: Floats
    """-1 at the front of the chest, 1 at its back."""

    below_fissure_mm: Floats
    """How far behind the oblique fissure a pixel is; negative in front of it."""

    z_mm: float
    """Height of the slice above the hilum."""

    pixel_mm: float
    """Height and width of a pixel."""

    rng: np.random.Generator
    """The source of patterns."""

    def noise(self, cell_mm: float) -> Floats:
        """Draws a smooth field of mean 0 and deviation about 0.7, with spots of a given size."""
        height, width = self.x.shape
        cells = max(2.0, cell_mm / self.pixel_mm)
        rows, columns = (max(2, round(length / cells)) for length in (height, width))
        coarse = self.rng.standard_normal((rows, columns), dtype=np.float32)
        return smooth_field(coarse, (height, width))


def apply_disease(hu: Floats, disease: Disease, region: LungRegion) -> None:
    """Changes the density of a lung in place.

    Args:
        hu: [height, width] density of the region.
        disease: what is wrong.
        region: where the lung lies.
    """
    if disease.emphysema:
        holes = region.noise(9) + region.noise(40)
        _blend(hu, np.clip((holes - 1.6 + 2.2 * disease.emphysema) * 4, 0, 1), -985.0)
    if disease.fibrosis:
        # Scars run where a fine field crosses 0, most of them near the pleura.
        net = np.clip(1.2 - np.abs(region.noise(5)) * 5, 0, 1)
        near = np.clip(1.2 - region.depth_mm / (60 * disease.fibrosis), 0, 1)
        _blend(hu, net * near * np.float32(0.8 * disease.fibrosis), -100.0)
    if disease.haze:
        patches = region.noise(32) + 0.5 * region.noise(10)
        share = np.clip((patches - 1.3 + 2.6 * disease.haze) * 2.5, 0, 1)
        if disease.haze_at_pleura:
            share *= np.clip(1.6 - region.depth_mm / 25, 0, 1)
        _blend(hu, share, disease.haze_hu + 40 * region.noise(6))
    if disease.settled_mm:
        layer = disease.settled_mm * np.clip(region.back + 0.3 + 0.2 * region.noise(25), 0, 1)
        _blend(hu, np.clip((layer - region.depth_mm) / 5, 0, 1), disease.settled_hu)
    if disease.dense_lobe:
        behind = (
            region.below_fissure_mm if disease.dense_lobe == "lower" else -region.below_fissure_mm
        )
        _blend(hu, np.clip(0.5 + behind / 2, 0, 1) * 0.97, disease.dense_hu + 15 * region.noise(8))
    _add_lesions(hu, disease.lesions, region)


def _blend(hu: Floats, share: Floats, target: float | Floats) -> None:
    hu += share * (target - hu)


def _add_lesions(hu: Floats, lesions: Floats, region: LungRegion) -> None:
    """Adds the nodules and tumors that the slice cuts, with uneven outlines."""
    size = np.sqrt(np.maximum(0, 1 - ((lesions[:, 2] - region.z_mm) / lesions[:, 5]) ** 2))
    cut = lesions[size > 0.15]
    if not len(cut):
        return
    bumps = region.noise(7)
    for (x, y, _, width, depth, _, target, edge), share in zip(
        cut.tolist(), size[size > 0.15].tolist(), strict=True
    ):
        u, v = (
            (region.x - np.float32(x)) / (width * share),
            (region.y - np.float32(y)) / (depth * share),
        )
        distance = (np.sqrt(u * u + v * v) - 1) * np.float32(min(width, depth) * share)
        distance += bumps * np.float32(0.12 * min(width, depth))
        soft = np.float32(max(edge, region.pixel_mm))
        _blend(hu, np.clip(0.5 - distance / soft, 0, 1), target)
