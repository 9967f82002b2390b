"""Paints what lies between the lungs: fat, heart, great vessels, windpipe and bronchi."""

import numpy as np

from preprocessing.phantoms.anatomy import CARINA_LEVEL, HILUM_LEVEL, SIDES, bulge
from preprocessing.phantoms.canvas import AIR_HU, Canvas
from preprocessing.phantoms.section import FAT_HU, MUSCLE_HU, Section

AIRWAY_WALL_HU = 10.0


def paint_mediastinum(canvas: Canvas, section: Section) -> None:
    """Paints the fat between the lungs."""
    level = section.level
    if not 0 < level < 1:
        return
    half_axes = (
        section.patient.length("mediastinum_half_width", level),
        section.patient.length("cavity_half_depth", level) + 4,
    )
    with canvas.shifted(section.patient.mediastinum_x_mm):
        canvas.ellipse((0, section.cavity_y), half_axes, FAT_HU + 10, bumps_mm=3 * section.texture)
        _paint_fat_pads(canvas, section)


def _paint_fat_pads(canvas: Canvas, section: Section) -> None:
    """Paints the fat that lies beside the heart on the diaphragm."""
    size = bulge(section.level, center=0.05, half_height=0.35)
    front_y = section.cavity_y - section.patient.length("cavity_half_depth", section.level)
    for side, pad_mm in zip(SIDES, section.patient.fat_pad_mm, strict=True):
        canvas.ellipse(
            (side * 40, front_y + 0.6 * pad_mm),
            (pad_mm * size, 0.8 * pad_mm * size),
            FAT_HU,
            edge_mm=section.edge_mm,
            bumps_mm=2 * section.texture,
            within=section.cavity,
        )


def paint_heart_and_tubes(canvas: Canvas, section: Section) -> None:
    """Paints heart, great vessels, windpipe and bronchi where the mediastinum is drawn to."""
    with canvas.shifted(section.patient.mediastinum_x_mm):
        _paint_heart(canvas, section)
        _paint_great_vessels(canvas, section)
        _paint_gullet(canvas, section)
        _paint_airway(canvas, section)


def _paint_heart(canvas: Canvas, section: Section) -> None:
    """Paints the heart in its fat; its chambers show when there is a contrast agent."""
    patient = section.patient
    size = bulge(section.level, center=0.31, half_height=0.26) * patient.heart_scale
    if size <= 0:
        return
    x, y = 20.0, section.cavity_y - 34
    for half_width, half_depth, hu in (
        (63 * size + 3, 50 * size + 3, FAT_HU + 40),
        (63 * size, 50 * size, MUSCLE_HU),
    ):
        canvas.ellipse(
            (x, y),
            (half_width, half_depth),
            hu,
            angle_degrees=patient.heart_angle_degrees,
            edge_mm=3,
            within=section.cavity,
        )
    for dx, dy, half_width, half_depth in ((12, -10, 30, 22), (-28, 6, 26, 28), (-16, 22, 28, 18)):
        canvas.ellipse(
            (x + dx * size, y + dy * size),
            (half_width * size, half_depth * size),
            patient.blood_hu,
            angle_degrees=patient.heart_angle_degrees,
            edge_mm=4,
        )


def _paint_great_vessels(canvas: Canvas, section: Section) -> None:
    """Paints aorta, its arch and branches, the veins, and the trunks that enter the lungs."""
    level, blood, scale = section.level, section.patient.blood_hu, section.patient.vessel_scale
    front, spine_y = section.heart_y(), section.spine_y
    windpipe_y = spine_y - 36
    if level < 0.74:
        canvas.ellipse((23, spine_y - 22), (13 * scale, 13 * scale), blood)
    if level < 0.15:
        canvas.ellipse((-22, spine_y - 30), (13, 11), blood)
    if 0.42 < level < 0.74:
        canvas.ellipse((-13, front), (16 * scale, 16 * scale), blood)
    if 0.45 < level < 0.8:
        canvas.ellipse((-33, front + 6), (9, 10), blood)
    if 0.45 < level < 0.62:
        canvas.ellipse((17, front - 2), (14 * scale, 15 * scale), blood)
    if 0.70 < level < 0.78:
        canvas.capsule((-12, front + 2), (24, spine_y - 26), 13 * scale, blood)
    if level >= 0.78:
        # In the neck they lie beside the windpipe, no longer in front of it.
        neck = section.patient.neck_share(section.z)
        for x, y, radius in ((-17, -13, 6), (4, -17, 4), (19, -8, 5), (-24, -24, 8), (27, -22, 7)):
            center = (x + 14 * neck * np.sign(x), windpipe_y + y * (1 - neck))
            canvas.ellipse(center, (radius * scale, radius * scale), blood)
    _paint_hila(canvas, section)


def _paint_gullet(canvas: Canvas, section: Section) -> None:
    """Paints the gullet, which may hold gas, and a stomach that has slipped up through it."""
    patient, level, y = section.patient, section.level, section.spine_y - 24
    if not 0 < level < 1:
        return
    x, half_width, half_depth, top_level = patient.abdomen.hernia.tolist()
    size = bulge(level, center=0.0, half_height=top_level)
    if half_width * size > 2:
        wall = half_width * size + 4, half_depth * size + 4
        canvas.ellipse((x, y), wall, patient.muscle_hu)
        gas = half_width * size, half_depth * size
        canvas.ellipse((x, y - 2), gas, AIR_HU + 15, bumps_mm=1.5 * section.texture)
        return
    canvas.ellipse((8, y), (8, 6), MUSCLE_HU - 10)
    canvas.ellipse((8, y), (patient.gullet_gas_mm, 0.7 * patient.gullet_gas_mm), AIR_HU + 15)


def _paint_hila(canvas: Canvas, section: Section) -> None:
    level, blood, y = section.level, section.patient.blood_hu, section.cavity_y + 6
    size = bulge(level, center=HILUM_LEVEL - 0.01, half_height=0.12) * section.patient.vessel_scale
    bumps = 2.5 * section.texture
    for side in SIDES:
        canvas.ellipse(
            (side * 36, y),
            (16 * size, 20 * size),
            blood,
            angle_degrees=-20 * side,
            bumps_mm=bumps,
        )
    if 0.49 < level < 0.57:
        canvas.capsule((15, section.heart_y() + 6), (-44, y - 4), 9, blood)
    if 0.53 < level < 0.60:
        canvas.capsule((18, section.heart_y() + 6), (42, y), 9, blood)
    if 0.36 < level < 0.46:
        for side in SIDES:
            canvas.capsule((side * 14, y - 6), (side * 35, y + 4), 4, blood)


def _paint_airway(canvas: Canvas, section: Section) -> None:
    """Paints windpipe and bronchi: air, but no lung."""
    level, scale = section.level, section.patient.airway_scale
    y = section.spine_y - 36
    if level >= CARINA_LEVEL:
        _paint_tube(canvas, (0, y), (0, y), 8.5 * scale)
        return
    descent = (CARINA_LEVEL - level) / (CARINA_LEVEL - 0.47)
    for side, slope, radius in ((-1, 26, 6.5), (1, 34, 5.5)):
        if descent <= 1:
            inner = side * (6 + slope * max(0.0, descent - 0.25))
            outer = side * (8 + slope * min(1.0, descent + 0.1))
            _paint_tube(canvas, (inner, y + 2), (outer, y + 4 + 6 * descent), radius * scale)
        elif level > 0.38:
            for dx, dy, bore in section.patient.lobar_bronchi[max(side, 0)].tolist():
                spot = (side * (slope + 12 + dx), y + 8 + dy)
                _paint_tube(canvas, spot, spot, bore * scale)


def _paint_tube(
    canvas: Canvas, start: tuple[float, float], end: tuple[float, float], radius: float
) -> None:
    if radius <= 0:
        return
    canvas.capsule(start, end, radius + 1.8, AIRWAY_WALL_HU)
    canvas.capsule(start, end, radius, AIR_HU + 10)
