"""Paints what lies between the lungs: fat, heart, great vessels, windpipe and bronchi."""

import numpy as np

from preprocessing.phantoms.anatomy import CARINA_LEVEL, HILUM_LEVEL, SIDES, bulge, profile
from preprocessing.phantoms.canvas import AIR_HU, Canvas
from preprocessing.phantoms.section import FAT_HU, MUSCLE_HU, Section

AIRWAY_WALL_HU = 10.0


def paint_mediastinum(canvas: Canvas, section: Section) -> None:
    """Paints the fat between the lungs."""
    level = section.level
    if not 0 < level < 1:
        return
    half_axes = (
        profile("mediastinum_half_width", level),
        profile("cavity_half_depth", level) + 4,
    )
    canvas.ellipse((0, section.cavity_y), half_axes, FAT_HU + 10)


def paint_heart(canvas: Canvas, section: Section) -> None:
    """Paints the heart in its fat; its chambers show when there is a contrast agent."""
    patient = section.patient
    size = bulge(section.level, center=0.31, half_height=0.26) * patient.heart_scale
    if size <= 0:
        return
    x, y = 20.0, section.cavity_y - 28
    for half_width, half_depth, hu in (
        (63 * size + 5, 50 * size + 5, FAT_HU + 10),
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


def paint_great_vessels(canvas: Canvas, section: Section) -> None:
    """Paints aorta, its arch and branches, the veins, and the trunks that enter the lungs."""
    level, blood = section.level, section.patient.blood_hu
    front, spine_y = section.heart_y(), section.spine_y
    windpipe_y = spine_y - 36
    if level < 0.74:
        canvas.ellipse((23, spine_y - 22), (13, 13), blood)
    if level < 0.15:
        canvas.ellipse((-22, spine_y - 30), (13, 11), blood)
    if 0.42 < level < 0.74:
        canvas.ellipse((-13, front), (16, 16), blood)
    if 0.45 < level < 0.8:
        canvas.ellipse((-33, front + 6), (9, 10), blood)
    if 0.45 < level < 0.62:
        canvas.ellipse((17, front - 2), (14, 15), blood)
    if 0.70 < level < 0.78:
        canvas.capsule((-12, front + 2), (24, spine_y - 26), 13, blood)
    if level >= 0.78:
        # In the neck they lie beside the windpipe, no longer in front of it.
        neck = section.patient.neck_share(section.z)
        for x, y, radius in ((-17, -13, 6), (4, -17, 4), (19, -8, 5), (-24, -24, 8), (27, -22, 7)):
            center = (x + 14 * neck * np.sign(x), windpipe_y + y * (1 - neck))
            canvas.ellipse(center, (radius, radius), blood)
    if 0 < level < 1:
        canvas.ellipse((8, spine_y - 24), (8, 6), MUSCLE_HU - 10)
    _paint_hila(canvas, section)


def _paint_hila(canvas: Canvas, section: Section) -> None:
    level, blood, y = section.level, section.patient.blood_hu, section.cavity_y + 6
    size = bulge(level, center=HILUM_LEVEL - 0.01, half_height=0.12)
    for side in SIDES:
        canvas.ellipse((side * 36, y), (16 * size, 20 * size), blood, angle_degrees=-20 * side)
    if 0.49 < level < 0.57:
        canvas.capsule((15, section.heart_y() + 6), (-44, y - 4), 9, blood)
    if 0.53 < level < 0.60:
        canvas.capsule((18, section.heart_y() + 6), (42, y), 9, blood)
    if 0.36 < level < 0.46:
        for side in SIDES:
            canvas.capsule((side * 14, y - 6), (side * 54, y + 2), 6, blood)


def paint_airway(canvas: Canvas, section: Section) -> None:
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
            x = side * (slope + 12)
            for dx, dy in ((0.0, 12.0), (10.0 * side, 2.0)):
                spot = (x + dx, y + 8 + dy)
                _paint_tube(canvas, spot, spot, 3.5 * scale)


def _paint_tube(
    canvas: Canvas, start: tuple[float, float], end: tuple[float, float], radius: float
) -> None:
    canvas.capsule(start, end, radius + 1.8, AIRWAY_WALL_HU)
    canvas.capsule(start, end, radius, AIR_HU + 10)
