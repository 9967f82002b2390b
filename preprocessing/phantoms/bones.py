"""Paints spine, ribs, breast bone, and the bones of shoulders and arms."""

import numpy as np

from preprocessing.phantoms.anatomy import SIDES
from preprocessing.phantoms.canvas import Canvas
from preprocessing.phantoms.section import Section, arms


def paint_spine(canvas: Canvas, section: Section) -> None:
    """Paints the muscles beside the spine, then a vertebra or the disc above it."""
    y, bone = section.spine_y, section.patient.bone_hu
    width = section.patient.length("vertebra_half_width", section.level)
    depth = 0.8 * width
    for side in SIDES:
        canvas.ellipse((side * 25, y + depth + 21), (25, 19), section.patient.muscle_hu)
    canvas.capsule((0, y + depth + 6), (0, -16), 11, section.patient.muscle_hu)
    # About 25 mm from one vertebra to the next; a fifth of it is disc.
    phase = (section.z * section.patient.lung_height_mm / 21 + section.patient.rib_phase) % 1
    disc = phase < 0.2
    canal_y = y + depth + 8
    if not disc:
        for side in SIDES:
            canvas.capsule((side * 11, canal_y - 4), (side * (width + 16), canal_y + 8), 4, bone)
        canvas.capsule((0, canal_y + 9), (0, min(canal_y + 18 + 14 * phase, -9)), 3, bone)
    canvas.ellipse((0, canal_y), (15, 13), bone)
    canvas.ellipse((0, y), (width, depth), 110.0 if disc else bone)
    canvas.ellipse((0, y), (width - 2, depth - 2), 90.0 if disc else section.marrow_hu())
    canvas.ellipse((0, canal_y), (9, 8), 30)


def paint_ribs(canvas: Canvas, section: Section) -> None:
    """Paints the arcs in which the slanting ribs cross this level, and the breast bone."""
    patient, level = section.patient, section.level
    if not -0.2 < level < 1:
        return
    half_axes = (
        patient.length("cavity_half_width", level),
        patient.length("cavity_half_depth", level),
    )
    window = canvas.window(0, section.cavity_y, max(half_axes) + 25)
    x, y = canvas.x[window], canvas.y[window] - np.float32(section.cavity_y)
    # 0 at the spine, 1 at the breast bone, on both sides.
    around = np.arctan2(np.abs(x) / half_axes[0], y / half_axes[1]) / np.float32(np.pi)
    spacing_mm = 27.0
    ribs = section.z * patient.lung_height_mm / spacing_mm + patient.rib_phase
    phase = (np.float32(ribs) + 3.6 * around) % 1
    # Each cut is thickest in its middle and ends in a point.
    thickness = 4.2 * np.sqrt(np.clip(1 - ((phase - 0.5) / 0.27) ** 2, 0, 1))
    thickness *= (around > 0.1) & (around < 0.93)
    distance = np.where(thickness > 0.5, np.abs(section.cavity[window] - 5) - thickness, 9)
    # Near the breast bone ribs are cartilage.
    cortex = np.where(around > 0.74, np.float32(100), np.float32(patient.bone_hu))
    canvas.paint(canvas.coverage(distance), cortex, window=window)
    marrow = np.where(around > 0.74, np.float32(110), np.float32(section.marrow_hu()))
    canvas.paint(canvas.coverage(distance + 2), marrow, window=window)
    if 0.3 < level < 0.85:
        front_y = section.cavity_y - half_axes[1] - 4
        width = 15 + 14 * max(0.0, (level - 0.6) / 0.25)
        canvas.capsule((-width, front_y), (width, front_y), 6, patient.bone_hu)
        canvas.capsule((-width, front_y), (width, front_y), 4, section.marrow_hu())


def paint_shoulder_bones(canvas: Canvas, section: Section) -> None:
    """Paints shoulder blades, collar bones and the bones of the arms."""
    patient, level, bone = section.patient, section.level, section.patient.bone_hu
    neck = patient.neck_share(section.z)
    for side in SIDES:
        if 0.5 < level < 1.0:
            width = patient.length("cavity_half_width", level)
            tip = (side * (width + 20 + 30 * (level - 0.5)), section.cavity_y + 8)
            blade = (side * (width * 0.72), section.cavity_y + 0.78 * width**0.98)
            blade = (blade[0], min(blade[1], -16.0))
            canvas.capsule(tip, blade, 3.5, bone)
            canvas.capsule(tip, blade, 1.5, section.marrow_hu())
        if 0.84 < level < 1.0:
            front_y = section.cavity_y - patient.length("cavity_half_depth", level) - 6
            rise = (level - 0.84) / 0.16
            start = (side * (24 + 60 * rise), front_y + 4 * rise)
            canvas.capsule(start, (start[0] + side * 28, front_y + 10 + 14 * rise), 5, bone)
            canvas.capsule(
                start, (start[0] + side * 28, front_y + 10 + 14 * rise), 3, section.marrow_hu()
            )
    for center, half_axes in arms(section, neck=neck):
        radius = (20 if level > 0.9 and neck < 0.3 else 11) * min(1.0, min(half_axes) / 36)
        canvas.ellipse(center, (radius, radius), bone)
        canvas.ellipse(center, (radius - 3, radius - 3), section.marrow_hu())
