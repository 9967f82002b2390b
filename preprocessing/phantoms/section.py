"""What the painters of organs share about the level that is painted."""

from dataclasses import dataclass

import numpy as np

from preprocessing.phantoms.anatomy import SIDES, bulge
from preprocessing.phantoms.canvas import Canvas
from preprocessing.phantoms.patient import PatientAnatomy
from preprocessing.phantoms.shapes import Floats, smooth_field, superellipse

FAT_HU = -100.0
MUSCLE_HU = 50.0
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

    slice_mm: float
    """Thickness of the slice."""

    rng: np.random.Generator
    """The source of patterns in tissues."""

    cavity: Floats
    """[height, width] signed distance to the inside of the rib cage."""

    cavity_y: float
    """y of the center of the rib cage."""

    spine_y: float
    """y of the center of the vertebra."""

    texture: Floats
    """[height, width] smooth, of mean 0 and deviation about 1; unevenness of tissue."""

    @property
    def edge_mm(self) -> float:
        """Width of the edges that slant through the slice, as those of the lungs do."""
        return 1.5 + 0.6 * self.slice_mm

    def marrow_hu(self) -> float:
        """Gives the density of spongy bone."""
        return 40 + 0.25 * self.patient.bone_hu

    def heart_y(self) -> float:
        """Gives y of the great vessels in front of the windpipe."""
        return self.cavity_y - 0.28 * self.patient.length("cavity_half_depth", self.level)

    def trunk_half_axes(self) -> tuple[float, float]:
        """Gives half width and half depth of the trunk with its fat; narrow at the neck."""
        patient, neck = self.patient, self.patient.neck_share(self.z)
        ease = neck * neck * (3 - 2 * neck)
        fat_mm = 0.5 * patient.fat_mm if self.level > 0.8 else patient.fat_mm
        half_width = patient.length("body_half_width", self.level) + fat_mm
        half_depth = patient.length("body_half_depth", self.level) + 0.75 * fat_mm
        return half_width + ease * (62 - half_width), half_depth + ease * (74 - half_depth)

    def front_y(self, x: float) -> float:
        """Gives y of the skin on the front of the trunk, about."""
        half_width, half_depth = self.trunk_half_axes()
        share = float(np.sqrt(max(0.0, 1 - (x / half_width) ** 2)))
        return 0.5 * self.patient.fat_mm - half_depth * (0.95 + share)


def cut_section(
    canvas: Canvas,
    patient: PatientAnatomy,
    *,
    z: float,
    rng: np.random.Generator,
    slice_mm: float = 3.0,
) -> Section:
    """Works out what the painters need.

    Args:
        canvas: an empty canvas.
        patient: who.
        z: 0 (abdomen) to 1 (neck).
        rng: the source of the texture of tissues.
        slice_mm: thickness of the slice.
    """
    level = patient.lung_level(z)
    half_axes = (
        patient.length("cavity_half_width", level),
        patient.length("cavity_half_depth", level),
    )
    cavity_y = -(patient.length("cavity_back", level) + half_axes[1])
    shape = canvas.hu.shape
    texture = smooth_field(rng.standard_normal((10, 10), dtype=np.float32), shape)
    texture = texture + smooth_field(rng.standard_normal((36, 36), dtype=np.float32), shape)
    return Section(
        patient=patient,
        z=z,
        level=level,
        slice_mm=slice_mm,
        rng=rng,
        cavity=superellipse(
            canvas.x, canvas.y - np.float32(cavity_y), half_axes=half_axes, power=2.3
        ),
        cavity_y=cavity_y,
        spine_y=patient.length("spine_y", level),
        texture=texture,
    )


def arms(section: Section, *, neck: float) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Lists center and half axes of the shoulder or arm that is cut on each side."""
    patient, level = section.patient, section.level
    shoulder = bulge(level, center=0.98, half_height=0.2)
    found: list[tuple[tuple[float, float], tuple[float, float]]] = []
    pushes = zip(SIDES, patient.arm_x_mm, patient.arm_y_mm, patient.arm_stretch, strict=True)
    for side, push, down, stretch in pushes:
        if patient.arms == "up" and level > 0.9:
            thickness = 44 + 0.3 * patient.fat_mm
            center = (side * (160 + push + 25 * neck), down - 88 - 30 * neck)
            found.append((center, (thickness * 1.15, thickness * stretch)))
        elif patient.arms == "down" and level < 0.85:
            beside = patient.length("body_half_width", min(level, 0.7)) + patient.fat_mm
            thickness = 36 + 0.4 * patient.fat_mm
            found.append(((side * (beside + thickness + 6 + push), -62.0), (thickness, 44.0)))
        elif level > 0.75 and shoulder > 0.1 and neck < 0.6:
            found.append(((side * 172.0, -72.0), (54 * shoulder, 50 * shoulder)))
    return found
