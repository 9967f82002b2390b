"""Paints the trunk: skin, fat, muscles, breasts and arms."""

import numpy as np

from preprocessing.phantoms.anatomy import SIDES, bulge
from preprocessing.phantoms.canvas import Canvas
from preprocessing.phantoms.section import FAT_HU, Section, arms
from preprocessing.phantoms.shapes import Floats, smooth_max, smooth_min, superellipse

SKIN_HU = 20.0


def paint_body(canvas: Canvas, section: Section) -> None:
    """Paints skin, fat, the muscles around the rib cage, and the fat inside it."""
    patient, level = section.patient, section.level
    neck = patient.neck_share(section.z)
    outline = _trunk(canvas, section)
    outline = _with_breasts(canvas, section, outline)
    outline = _with_arms(canvas, section, outline, neck=neck)
    fat_mm = 2 + patient.fat_mm * (1 - 0.6 * bulge(level, center=0.95, half_height=0.3))
    canvas.paint(canvas.coverage(outline), SKIN_HU)
    canvas.paint(canvas.coverage(outline + 2), FAT_HU + 6 * section.texture)
    muscle_mm = patient.length("muscle_depth", level) + 150 * neck
    muscle = smooth_max(
        outline + np.float32(fat_mm), section.cavity - np.float32(muscle_mm), rounding_mm=12
    )
    # Sheets of fat run where the texture crosses 0, so muscles look like several.
    sheets = np.exp(-((section.texture / 0.08) ** 2)) * (section.cavity > 12)
    coverage = canvas.coverage(muscle)
    canvas.paint(coverage, patient.muscle_hu + 6 * section.texture - 60 * sheets)
    if patient.air_under_skin:
        gas = np.clip(section.texture * 2 - 4 + 2 * patient.air_under_skin, 0, 1)
        skin = np.clip(-outline / 4 - 1, 0, 1)
        canvas.paint(gas * skin * (section.cavity > 14), -950.0)
    canvas.paint(canvas.coverage(section.cavity + 4), FAT_HU + 45 + 25 * section.texture)


def _trunk(canvas: Canvas, section: Section) -> Floats:
    half_width, half_depth = section.trunk_half_axes()
    back_y = 0.5 * section.patient.fat_mm
    center_y = back_y - 0.95 * half_depth
    round_body = superellipse(
        canvas.x, canvas.y - np.float32(center_y), half_axes=(half_width, half_depth), power=2.35
    )
    # The couch flattens the back.
    return smooth_max(round_body, canvas.y - np.float32(back_y), rounding_mm=20)


def _with_breasts(canvas: Canvas, section: Section, outline: Floats) -> Floats:
    patient, level = section.patient, section.level
    size = bulge(level, center=0.42, half_height=0.22) * patient.breast
    if size <= 0:
        return outline
    front_y = section.cavity_y - patient.length("cavity_half_depth", level) - 0.6 * patient.fat_mm
    for side in SIDES:
        shape = superellipse(
            canvas.x - np.float32(76 * side),
            canvas.y - np.float32(front_y + 14),
            half_axes=(58 * size**0.5, 42 * size),
        )
        outline = smooth_min(outline, shape, rounding_mm=18)
    return outline


def _with_arms(canvas: Canvas, section: Section, outline: Floats, *, neck: float) -> Floats:
    for center, half_axes in arms(section, neck=neck):
        shape = superellipse(
            canvas.x - np.float32(center[0]), canvas.y - np.float32(center[1]), half_axes=half_axes
        )
        outline = smooth_min(outline, shape, rounding_mm=10)
    return outline
