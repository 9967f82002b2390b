"""Who a phantom is: the measures of one invented patient, and how organs change with the level.

Lengths are millimeters of a reference adult: x to the patient's left (the right of the image),
y to the back (the bottom of the image), y = 0 on the deep muscles of the back. ``width_scale`` and
``depth_scale`` turn the reference adult into the patient. Along the body, ``z`` runs from 0
(abdomen) to 1 (neck); ``lung_level`` is 0 at the base of the lungs and 1 at their apex.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.phantoms.canvas import Floats

SIDES = (-1, 1)
"""Right and left of the patient, as the sign of x."""

CARINA_LEVEL = 0.62
"""Lung level at which the trachea divides into the main bronchi."""

HILUM_LEVEL = 0.52
"""Lung level at which vessels enter the lungs."""

_LEVELS = (-0.3, 0.0, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1)
_PROFILES = {
    # Half axes of the inside of the rib cage, and its distance from the back.
    "cavity_half_width": (130, 132, 131, 124, 106, 82, 64, 56),
    "cavity_half_depth": (86, 90, 88, 82, 66, 49, 38, 32),
    "cavity_back": (28, 27, 27, 27, 30, 35, 42, 46),
    # Half axes of the trunk without its fat; the shoulders make it wide and flat.
    "body_half_width": (152, 154, 156, 154, 162, 182, 188, 186),
    "body_half_depth": (108, 111, 112, 107, 95, 83, 77, 75),
    # Muscle around the rib cage; all of the shoulders are muscle.
    "muscle_depth": (12, 15, 19, 24, 55, 120, 200, 200),
    # Center and half axes of each lung, where the rib cage does not bound it.
    "lung_x": (70, 70, 70, 68, 58, 47, 41, 41),
    "lung_half_width": (69, 69, 69, 66, 51, 34, 27, 27),
    "lung_half_depth": (112, 112, 112, 102, 72, 42, 32, 32),
    "mediastinum_half_width": (34, 32, 28, 24, 20, 22, 30, 30),
    "spine_y": (-76, -72, -67, -62, -63, -70, -74, -66),
    "vertebra_half_width": (23, 21, 18, 16, 15, 14, 13, 12),
}


def profile(name: str, level: float) -> float:
    """Gives a length of the reference adult at one level.

    Args:
        name: one of the lengths of this module, such as ``cavity_half_width``.
        level: lung level; beyond the table its ends are repeated.

    Returns:
        Millimeters.
    """
    return float(np.interp(level, _LEVELS, _PROFILES[name]))


def bulge(level: float, *, center: float, half_height: float) -> float:
    """Gives the relative size of a rounded organ at a level.

    Returns:
        1 at its center, falling like a circle to 0 at its ends and beyond.
    """
    return float(np.sqrt(max(0.0, 1.0 - ((level - center) / half_height) ** 2)))


@dataclass(frozen=True, kw_only=True, eq=False)
class VesselTree:
    """Straight pieces of the vessels of both lungs, in reference millimeters."""

    start: Floats
    """[pieces, 3] x, y, z; z counts up from the hilum."""

    end: Floats
    """[pieces, 3] as ``start``."""

    radius: Floats
    """[pieces] radius."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PatientAnatomy:
    """One invented patient."""

    width_scale: float
    """Size from left to right, relative to the reference adult."""

    depth_scale: float
    """Size from front to back, relative to the reference adult."""

    lung_height_mm: float
    """Height of the lungs from base to apex."""

    base_z: float
    """z of the base of the lungs."""

    apex_z: float
    """z of the apex of the lungs."""

    roll_degrees: float
    """Turn of the body about its long axis."""

    fat_mm: float
    """Thickness of the fat beneath the skin at the flanks."""

    breast: float
    """Size of the breasts: 0 for none, 1 for average."""

    arms: str
    """``up`` above the head, ``down`` beside the body, or ``away`` out of the picture."""

    arm_x_mm: tuple[float, float]
    """How far right and left arm are pushed out, added to their usual place."""

    lung_level_shift: tuple[float, float]
    """How much lower right and left lung are, in lung levels."""

    dome_level: tuple[float, float]
    """Lung level of the top of the right and left diaphragm."""

    heart_scale: float
    """Size of the heart, 1 for average."""

    heart_angle_degrees: float
    """Direction of the long axis of the heart: 0 points left, 90 to the front."""

    airway_scale: float
    """Bore of trachea and bronchi, 1 for average."""

    rib_phase: float
    """Where along z the ribs begin, in ribs."""

    lung_hu: float
    """Density of the lung between its vessels."""

    lung_gradient_hu: float
    """How much denser the lung is at the back than in front, where blood settles."""

    blood_hu: float
    """Density of blood: about 40, or more with a contrast agent."""

    bone_hu: float
    """Density of compact bone."""

    gas: Floats
    """[bubbles, 5] gas in stomach and bowel: x, y, half width, half depth, z of its center."""

    warp_mm: Floats
    """[levels, 2, rows, columns] shifts in x and y that bend the smooth outlines."""

    vessels: VesselTree
    """The vessels inside the lungs."""

    def lung_level(self, z: float) -> float:
        """Gives the lung level (0 base, 1 apex; below and above beyond) of a height ``z``."""
        return (z - self.base_z) / (self.apex_z - self.base_z)

    def neck_share(self, z: float) -> float:
        """Gives how far ``z`` is from the apex of the lungs (0) to the end of the neck (1)."""
        return float(np.clip((z - self.apex_z) / (1.0 - self.apex_z), 0.0, 1.0))


def sample_patient(rng: np.random.Generator) -> PatientAnatomy:
    """Invents a patient.

    Args:
        rng: the source of all that varies; the same state gives the same patient.
    """
    size = rng.uniform(0.88, 1.1)
    contrast_agent = rng.random() < 0.5
    lung_height_mm = size * rng.uniform(215, 285)
    return PatientAnatomy(
        width_scale=size * rng.uniform(0.94, 1.06),
        depth_scale=size * rng.uniform(0.9, 1.12),
        lung_height_mm=lung_height_mm,
        base_z=rng.uniform(0.02, 0.085),
        apex_z=rng.uniform(0.9, 0.96),
        roll_degrees=float(np.clip(rng.normal(0, 2.5), -8, 8)),
        fat_mm=rng.uniform(4, 16) if rng.random() < 0.5 else rng.uniform(12, 45),
        breast=rng.uniform(0.6, 1.5) if rng.random() < 0.5 else 0.0,
        arms=str(rng.choice(["up", "down", "away"], p=[0.5, 0.25, 0.25])),
        arm_x_mm=(rng.uniform(-5, 25), rng.uniform(-5, 25)),
        lung_level_shift=(rng.uniform(-0.02, 0.02), rng.uniform(-0.02, 0.02)),
        dome_level=(rng.uniform(0.34, 0.48), rng.uniform(0.28, 0.42)),
        heart_scale=rng.uniform(0.85, 1.2),
        heart_angle_degrees=rng.uniform(15, 50),
        airway_scale=rng.uniform(0.8, 1.2),
        rib_phase=rng.random(),
        lung_hu=rng.uniform(-900, -780),
        lung_gradient_hu=rng.uniform(20, 110),
        blood_hu=rng.uniform(110, 300) if contrast_agent else rng.uniform(30, 55),
        bone_hu=rng.uniform(400, 900),
        gas=_sample_gas(rng),
        warp_mm=rng.normal(0, 2.2, size=(5, 2, 7, 7)).astype(np.float32),
        vessels=_grow_vessels(rng, lung_height_mm=lung_height_mm),
    )


def _sample_gas(rng: np.random.Generator) -> Floats:
    """Places the stomach bubble under the left diaphragm, and gas in the bowel below."""
    stomach = [[rng.uniform(55, 85), rng.uniform(-170, -140), rng.uniform(12, 32), 14, 0.2]]
    bowel = [
        [rng.uniform(-90, 95), rng.uniform(-175, -110), rng.uniform(4, 20), rng.uniform(4, 12), z]
        for z in rng.uniform(-0.05, 0.12, size=rng.integers(2, 9))
    ]
    return np.array(stomach + bowel, np.float32)


def _grow_vessels(
    rng: np.random.Generator, *, lung_height_mm: float, generations: int = 7, trunks: int = 30
) -> VesselTree:
    """Grows a tree of vessels from each hilum; every piece forks into two thinner, shorter ones."""
    starts, ends, radii = [], [], []
    for side in SIDES:
        heading = _unit(rng.normal(size=(trunks, 3)) * [1, 1.2, 1.5] + [0.8 * side, 0.0, 0.0])
        start = np.array([44.0 * side, -112.0, 0.0]) + rng.normal(0, 5, size=(trunks, 3))
        radius = rng.uniform(1.2, 3.2, size=trunks)
        length = lung_height_mm * rng.uniform(0.05, 0.14, size=trunks)
        for _ in range(generations):
            end = start + heading * (length * rng.uniform(0.7, 1.3, size=len(start)))[:, None]
            starts.append(start)
            ends.append(end)
            radii.append(radius)
            # Two children each; a piece that goes on turns away from its sibling.
            turn = rng.normal(0, 0.45, size=heading.shape)
            heading = _unit(np.concatenate([heading + turn, heading - turn]))
            start = np.concatenate([end, end])
            radius = np.concatenate([radius * 0.84, radius * rng.uniform(0.6, 0.8, radius.shape)])
            length = np.concatenate([length, length]) * 0.86
    return VesselTree(
        start=np.concatenate(starts).astype(np.float32),
        end=np.concatenate(ends).astype(np.float32),
        radius=np.concatenate(radii).astype(np.float32),
    )


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
