"""Paints the trunk, the lungs in it, and the organs under the diaphragm."""

import numpy as np
from PIL import Image, ImageDraw

from preprocessing.phantoms.anatomy import HILUM_LEVEL, SIDES, bulge, profile
from preprocessing.phantoms.canvas import (
    AIR_HU,
    Canvas,
    Floats,
    smooth_max,
    smooth_min,
    superellipse,
)
from preprocessing.phantoms.section import FAT_HU, MUSCLE_HU, Section, arms

SKIN_HU = 20.0
LIVER_HU = 62.0
STOMACH_HU = 30.0
SLICE_THICKNESS_MM = 3.0


def paint_body(canvas: Canvas, section: Section) -> None:
    """Paints skin, fat, the muscles around the rib cage, and the fat inside it."""
    patient, level = section.patient, section.level
    neck = patient.neck_share(section.z)
    outline = _trunk(canvas, section, neck=neck)
    outline = _with_breasts(canvas, section, outline)
    outline = _with_arms(canvas, section, outline, neck=neck)
    fat_mm = 2 + patient.fat_mm * (1 - 0.6 * bulge(level, center=0.95, half_height=0.3))
    canvas.paint(canvas.coverage(outline), SKIN_HU)
    canvas.paint(canvas.coverage(outline + 2), FAT_HU + 6 * section.texture)
    muscle_mm = profile("muscle_depth", level) + 150 * neck
    muscle = smooth_max(
        outline + np.float32(fat_mm), section.cavity - np.float32(muscle_mm), rounding_mm=12
    )
    # Sheets of fat run where the texture crosses 0, so muscles look like several.
    sheets = np.exp(-((section.texture / 0.08) ** 2)) * (section.cavity > 12)
    canvas.paint(canvas.coverage(muscle), MUSCLE_HU + 6 * section.texture - 80 * sheets)
    canvas.paint(canvas.coverage(section.cavity + 4), FAT_HU + 45 + 25 * section.texture)


def _trunk(canvas: Canvas, section: Section, *, neck: float) -> Floats:
    patient, level = section.patient, section.level
    ease = neck * neck * (3 - 2 * neck)
    shoulder_fat = 0.5 * patient.fat_mm if level > 0.8 else patient.fat_mm
    half_width = profile("body_half_width", level) + shoulder_fat
    half_width += ease * (62 - half_width)
    half_depth = profile("body_half_depth", level) + 0.75 * shoulder_fat
    half_depth += ease * (74 - half_depth)
    back_y = 0.5 * patient.fat_mm
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
    front_y = section.cavity_y - profile("cavity_half_depth", level) - 0.6 * patient.fat_mm
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


def paint_lungs(canvas: Canvas, section: Section) -> None:
    """Paints both lungs, with vessels, as far as nothing else pushes into them."""
    patient = section.patient
    depth = (canvas.y - np.float32(section.cavity_y)) / np.float32(90)
    hu = patient.lung_hu + np.float32(patient.lung_gradient_hu / 2) * depth + 14 * section.texture
    vessels = _vessel_coverage(canvas, section)
    for side, shift in zip(SIDES, patient.lung_level_shift, strict=True):
        level = section.level + shift
        if not (0 < section.level < 1 and 0 < level < 1):
            continue
        # The apex is a rounded dome.
        tip = float(np.sqrt(min(1.0, (1 - level) / 0.12)))
        shape = superellipse(
            canvas.x - np.float32(side * profile("lung_x", level)),
            canvas.y - np.float32(section.cavity_y),
            half_axes=(
                profile("lung_half_width", level) * tip,
                profile("lung_half_depth", level) * tip,
            ),
            power=2.4,
        )
        distance = smooth_max(shape, section.cavity + 4, rounding_mm=10)
        # Vessels are thin near the pleura.
        inner = np.clip(-distance / 14, 0.15, 1)
        canvas.paint_lung(canvas.coverage(distance), hu + vessels * inner * (patient.blood_hu - hu))


def _vessel_coverage(canvas: Canvas, section: Section) -> Floats:
    """Draws the vessels that this level cuts.

    Returns:
        [height, width] share of each pixel that is vessel.
    """
    tree, patient = section.patient.vessels, section.patient
    z_mm = (section.level - HILUM_LEVEL) * patient.lung_height_mm
    near, far = tree.start[:, 2] - z_mm, tree.end[:, 2] - z_mm
    reach = SLICE_THICKNESS_MM / 2 + tree.radius
    cut = (np.minimum(near, far) < reach) & (np.maximum(near, far) > -reach)
    near, far, reach = near[cut], far[cut], reach[cut]
    # Keep the part of each piece that lies within the thickness of the slice.
    rise = np.where(np.abs(far - near) < 1e-3, 1e-3, far - near)
    bounds = np.clip(np.stack([(-reach - near) / rise, (reach - near) / rise]), 0, 1)
    along = tree.end[cut] - tree.start[cut]
    ends = tree.start[cut] + np.sort(bounds, axis=0)[:, :, None] * along  # [2, pieces, 3]
    return _draw_lines(canvas, ends[:, :, :2], radius=tree.radius[cut])


def _draw_lines(canvas: Canvas, ends: Floats, *, radius: Floats) -> Floats:
    """Draws lines with round ends.

    Args:
        canvas: where.
        ends: [2, lines, 2] x and y of both ends, reference millimeters.
        radius: [lines] reference millimeters.

    Returns:
        [height, width] share of each pixel that is covered, 0 to 1.
    """
    scale, size = 2, canvas.hu.shape[0]
    image = Image.new("L", (size * scale, size * scale))
    draw = ImageDraw.Draw(image)
    columns, rows = canvas.pixel(ends[..., 0], ends[..., 1])
    lines = np.stack([columns[0], rows[0], columns[1], rows[1]], axis=-1) * scale
    widths = 2 * scale * radius / np.float32(canvas.edge_mm)
    for (x0, y0, x1, y1), width in zip(lines.tolist(), widths.tolist(), strict=True):
        # A line thinner than a drawn pixel fills only a part of it.
        draw.line((x0, y0, x1, y1), fill=int(255 * min(1.0, width)), width=max(1, round(width)))
        if width > 3:
            for x, y in ((x0, y0), (x1, y1)):
                draw.circle((x, y), width / 2, fill=255)
    return np.asarray(image.reduce(scale), np.float32) / 255


def paint_abdomen(canvas: Canvas, section: Section) -> None:
    """Paints liver and stomach, which rise under the diaphragm and push the lungs up."""
    patient, level, inside = section.patient, section.level, section.cavity
    half_depth = profile("cavity_half_depth", level)
    blood = 0.4 * (patient.blood_hu - 40)
    for side, top, organ_hu in zip(SIDES, patient.dome_level, (LIVER_HU, STOMACH_HU), strict=True):
        below = (top - level) / top
        if below <= 0:
            continue
        # A dome, round at its top; at the base of the lung it fills all but the back.
        grown = float(np.sqrt(max(0.0, 1 - max(0.0, 1 - below) ** 2)))
        edge_mm = 5 * (1 - grown)
        grown *= 1 + 0.1 * min(1.0, below) ** 4
        recess = 20 * grown * min(1.0, max(0.0, (1 - below) / 0.3))
        center = (side * 68.0, section.cavity_y + 8 * (1 - grown) - recess)
        half_axes = (68 * grown, (half_depth + 2) * grown)
        canvas.ellipse(center, half_axes, organ_hu + blood, edge_mm=edge_mm, within=inside)
    if level < 0.6 * patient.dome_level[0]:
        left_lobe = (-8, section.cavity_y - 42)
        canvas.ellipse(left_lobe, (58, 50), LIVER_HU + blood, within=inside)
    if level < patient.dome_level[1] - 0.12:
        _paint_gas(canvas, section)
    if level < 0.05:
        _paint_spleen_and_kidneys(canvas, section)


def _paint_gas(canvas: Canvas, section: Section) -> None:
    """Paints the gas in stomach and bowel: as dark as the air in the lungs, but no lung."""
    for x, y, half_width, half_depth, z in section.patient.gas.tolist():
        size = bulge(section.z, center=z, half_height=0.09)
        if size > 0.2:
            wall = half_width * size + 4, half_depth * size + 4
            canvas.ellipse((x, y), wall, STOMACH_HU + 20, within=section.cavity)
            bubble = half_width * size, half_depth * size
            canvas.ellipse((x, y), bubble, AIR_HU + 20, within=section.cavity + 4)


def _paint_spleen_and_kidneys(canvas: Canvas, section: Section) -> None:
    blood, inside, y = 0.5 * (section.patient.blood_hu - 40), section.cavity, section.spine_y
    spleen = (92, section.cavity_y + 45)
    canvas.ellipse(spleen, (26, 36), 50 + blood, angle_degrees=-20, within=inside)
    for side in SIDES:
        canvas.ellipse((side * 54, y + 2), (31, 36), FAT_HU, within=inside)
        canvas.ellipse((side * 54, y + 2), (24, 28), 35 + blood, within=inside)
        canvas.ellipse((side * 48, y), (9, 10), FAT_HU + 40)
