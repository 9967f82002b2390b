"""What the painters of organs share about the level that is painted."""

from dataclasses import dataclass

import numpy as np

from preprocessing.phantoms.anatomy import SIDES, PatientAnatomy, bulge, profile
from preprocessing.phantoms.canvas import Canvas, Floats, smooth_field, superellipse

FAT_HU = -100.0
MUSCLE_HU = 50.0
MARROW_HU = 105.0
"""Densities that differ little from patient to patient."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """One level of one patient."""

    patient: PatientAnatomy
    """Who."""

    z: float
    """0 (abdomen) to 1 (neck)."""

    level: float
    """The same as a lung level."""

    cavity: Floats
    """[height, width] signed distance to the inside of the rib cage."""

    cavity_y: float
    """y of the center of the rib cage."""

    spine_y: float
    """y of the center of the vertebra."""

    texture: Floats
    """[height, width] smooth, of mean 0 and deviation about 1; unevenness of tissue."""

    def heart_y(self) -> float:
        """Gives y of the great vessels in front of the windpipe."""
        return self.cavity_y - 0.28 * profile("cavity_half_depth", self.level)


def cut_section(
    canvas: Canvas, patient: PatientAnatomy, *, z: float, rng: np.random.Generator
) -> Section:
    """Works out what the painters need.

    Args:
        canvas: an empty canvas.
        patient: who.
        z: 0 (abdomen) to 1 (neck).
        rng: the source of the texture of tissues.
    """
    level = patient.lung_level(z)
    half_axes = profile("cavity_half_width", level), profile("cavity_half_depth", level)
    cavity_y = -(profile("cavity_back", level) + half_axes[1])
    size = canvas.hu.shape[0]
    texture = smooth_field(rng.normal(0, 1, (10, 10)).astype(np.float32), size)
    texture = texture + smooth_field(rng.normal(0, 1, (36, 36)).astype(np.float32), size)
    return Section(
        patient=patient,
        z=z,
        level=level,
        cavity=superellipse(
            canvas.x, canvas.y - np.float32(cavity_y), half_axes=half_axes, power=2.3
        ),
        cavity_y=cavity_y,
        spine_y=profile("spine_y", level),
        texture=texture,
    )


def arms(section: Section, *, neck: float) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Lists center and half axes of the shoulder or arm that is cut on each side."""
    patient, level = section.patient, section.level
    shoulder = bulge(level, center=0.98, half_height=0.2)
    found = []
    for side, push in zip(SIDES, patient.arm_x_mm, strict=True):
        if patient.arms == "up" and level > 0.9:
            thickness = 44 + 0.3 * patient.fat_mm
            center = (side * (160 + push + 25 * neck), -88 - 30 * neck)
            found.append((center, (thickness * 1.15, thickness)))
        elif patient.arms == "down" and level < 0.85:
            beside = profile("body_half_width", min(level, 0.7)) + patient.fat_mm
            thickness = 36 + 0.4 * patient.fat_mm
            found.append(((side * (beside + thickness + 6 + push), -62.0), (thickness, 44.0)))
        elif level > 0.75 and shoulder > 0.1 and neck < 0.6:
            found.append(((side * 172.0, -72.0), (54 * shoulder, 50 * shoulder)))
    return found
