"""The measures of an adult from abdomen to neck, and how much they vary between people.

Lengths are millimeters of a reference adult: x to the patient's left (the right of the image),
y to the back (the bottom of the image), y = 0 on the deep muscles of the back. ``width_scale`` and
``depth_scale`` turn the reference adult into the patient. Along the body, ``z`` runs from 0
(abdomen) to 1 (neck); ``lung_level`` is 0 at the base of the lungs and 1 at their apex.
"""

from typing import Literal

import numpy as np

from preprocessing.phantoms.shapes import Floats

Variety = Literal["usual", "wide"]
"""``usual``: healthy adults, as in one hospital; ``wide``: all that a scanner may come to see."""

SIDES = (-1, 1)
"""Right and left of the patient, as the sign of x."""

CARINA_LEVEL = 0.62
"""Lung level at which the trachea divides into the main bronchi."""

HILUM_LEVEL = 0.52
"""Lung level at which vessels enter the lungs."""

LEVELS = (-0.3, 0.0, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1)
PROFILES = {
    # Half axes of the inside of the rib cage, and its distance from the back.
    "cavity_half_width": (130, 132, 131, 124, 106, 82, 64, 56),
    "cavity_half_depth": (90, 95, 95, 91, 76, 54, 39, 32),
    "cavity_back": (24, 23, 22, 22, 26, 33, 41, 46),
    # Half axes of the trunk without its fat; the shoulders make it wide and flat.
    "body_half_width": (152, 154, 156, 154, 162, 182, 188, 186),
    "body_half_depth": (112, 117, 118, 114, 103, 87, 77, 75),
    # Muscle around the rib cage; all of the shoulders are muscle.
    "muscle_depth": (12, 15, 19, 24, 55, 120, 200, 200),
    # Center and half axes of each lung, where the rib cage does not bound it.
    "lung_x": (70, 70, 70, 68, 58, 47, 41, 41),
    "lung_half_width": (69, 69, 69, 66, 51, 34, 27, 27),
    "lung_half_depth": (116, 116, 116, 110, 86, 50, 35, 33),
    "mediastinum_half_width": (34, 30, 23, 18, 16, 20, 30, 30),
    "spine_y": (-76, -72, -67, -62, -63, -70, -74, -66),
    "vertebra_half_width": (23, 21, 18, 16, 15, 14, 13, 12),
}


def stretched_profiles(rng: np.random.Generator, *, variety: Variety) -> dict[str, Floats]:
    """Invents the profiles of one patient.

    Rib cage, trunk and lungs are stretched together, so that each stays within the other.

    Args:
        rng: the source of all that varies.
        variety: how far people differ.

    Returns:
        ``PROFILES``, each stretched level by level.
    """
    deviation = 0.06 if variety == "wide" else 0.025
    width, depth = _curve(rng, deviation), _curve(rng, deviation)
    factors = {
        "cavity_half_width": width,
        "body_half_width": np.maximum(width, 0.94) * rng.uniform(1.0, 1.05),
        "cavity_half_depth": depth,
        "body_half_depth": np.maximum(depth, 0.94) * rng.uniform(1.0, 1.05),
        "muscle_depth": np.full(len(LEVELS), rng.uniform(0.6, 1.4)),
        "lung_x": width * _curve(rng, deviation / 2),
        "lung_half_width": width * _curve(rng, deviation),
        "lung_half_depth": depth * _curve(rng, deviation),
        "mediastinum_half_width": _curve(rng, 5 * deviation),
        "vertebra_half_width": np.full(len(LEVELS), rng.uniform(0.88, 1.12)),
    }
    return {name: np.asarray(row) * factors.get(name, 1.0) for name, row in PROFILES.items()}


def _curve(rng: np.random.Generator, deviation: float) -> Floats:
    """Draws factors near 1, one for each level, that change slowly along the body."""
    slow = np.interp(LEVELS, (-0.3, 0.2, 0.65, 1.1), rng.normal(0, deviation, size=4))
    return np.clip(1 + rng.normal(0, deviation) * 0.6 + slow, 0.7, 1.3)


def bulge(level: float, *, center: float, half_height: float) -> float:
    """Gives the relative size of a rounded organ at a level.

    Returns:
        1 at its center, falling like a circle to 0 at its ends and beyond.
    """
    return float(np.sqrt(max(0.0, 1.0 - ((level - center) / half_height) ** 2)))
