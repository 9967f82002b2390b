"""Paints the head: skull, brain or face, and the air in nose, mouth and throat; no lung at all."""

import numpy as np

from preprocessing.phantoms.anatomy import SIDES
from preprocessing.phantoms.canvas import AIR_HU, Canvas
from preprocessing.phantoms.section import FAT_HU, Section, arms
from preprocessing.phantoms.shapes import smooth_min, superellipse

HEAD_Z = 1.05
"""z from which on the head is painted instead of the neck."""

BRAIN_Z = 1.18
"""z from which on the skull holds the brain, and below which there is a face."""


def paint_head(canvas: Canvas, section: Section) -> None:
    """Paints all that this level of the head shows, and arms that are held up."""
    patient, bone = section.patient, section.patient.bone_hu
    middle_y = -95.0
    size = 1 - 0.4 * max(0.0, section.z - BRAIN_Z) / 0.12
    half_axes = 74 * size, 92 * size
    dy = canvas.y - np.float32(middle_y)
    outline = superellipse(canvas.x, dy, half_axes=half_axes, power=2.15)
    for center, arm in arms(section, neck=1.0):
        shape = superellipse(
            canvas.x - np.float32(center[0]), canvas.y - np.float32(center[1]), half_axes=arm
        )
        outline = smooth_min(outline, shape, rounding_mm=2)
    canvas.paint(canvas.coverage(outline), 25.0)
    canvas.paint(canvas.coverage(outline + 2), FAT_HU)
    canvas.paint(canvas.coverage(outline + 5), patient.muscle_hu + 8 * section.texture)
    for center, arm in arms(section, neck=1.0):
        radius = 0.3 * min(arm)
        canvas.ellipse(center, (radius, radius), bone)
        canvas.ellipse(center, (radius - 3, radius - 3), section.marrow_hu())
    if section.z > BRAIN_Z:
        canvas.ellipse((0, middle_y), (half_axes[0] - 5, half_axes[1] - 5), bone)
        canvas.ellipse((0, middle_y), (half_axes[0] - 11, half_axes[1] - 11), 32.0)
        for side in SIDES:
            canvas.ellipse((side * 12, middle_y), (5, 22), 8.0, angle_degrees=12 * side)
        return
    canvas.ellipse((0, middle_y + 38), (58, 46), bone)
    canvas.ellipse((0, middle_y + 38), (53, 41), 32.0)
    for side in SIDES:
        canvas.capsule((side * 44, middle_y - 10), (side * 12, middle_y - 72), 7, bone)
        canvas.ellipse((side * 62, middle_y + 25), (9, 12), -600 + 300 * section.texture)
        sinus = 13 - 60 * abs(section.z - 1.13)
        canvas.ellipse((side * 26, middle_y - 48), (sinus + 2, sinus + 4), bone)
        canvas.ellipse(
            (side * 26, middle_y - 48), (sinus, sinus + 2), AIR_HU, bumps_mm=section.texture
        )
    canvas.ellipse((0, middle_y - 18), (12, 8), AIR_HU, bumps_mm=2 * section.texture)
