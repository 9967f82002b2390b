"""Paints the organs under the diaphragm, which push the lungs up, and the gas in them."""

import numpy as np

from preprocessing.phantoms.abdomen_anatomy import Dome
from preprocessing.phantoms.anatomy import SIDES, bulge
from preprocessing.phantoms.canvas import AIR_HU, Canvas
from preprocessing.phantoms.section import FAT_HU, Section


def paint_abdomen(canvas: Canvas, section: Section) -> None:
    """Paints liver, spleen, stomach, bowel and kidneys, as far as they reach up."""
    patient, level, inside = section.patient, section.level, section.cavity
    if level < -0.05:
        _paint_loops(canvas, section)
    for dome in patient.abdomen.domes:
        if level < dome.top_level:
            _paint_dome(canvas, section, dome)
    right, left = patient.abdomen.domes
    size = patient.abdomen.left_lobe
    if -0.18 < level < 0.6 * right.top_level:
        center = (-8, section.cavity_y - 42)
        hu = patient.enhanced(right.hu)
        canvas.ellipse(center, (58 * size, 50 * size), hu, within=inside)
    if level < left.top_level - 0.1:
        _paint_gas(canvas, section)
    if level < 0.06:
        _paint_spleen_and_kidneys(canvas, section)


def _paint_dome(canvas: Canvas, section: Section, dome: Dome) -> None:
    """Paints what fills a dome: round at its top; at the base of the lung all but the back."""
    level = section.level
    half_depth = section.patient.length("cavity_half_depth", level)
    below = (dome.top_level - level) / dome.top_level
    grown = float(np.sqrt(max(0.0, 1 - max(0.0, 1 - below) ** 2)))
    edge_mm = max(section.edge_mm, dome.edge_mm * (1 - grown))
    grown *= 1 + 0.1 * min(1.0, below) ** 6
    # Below the lungs the organs taper again.
    grown *= 1 - 0.7 * float(np.clip((-0.04 - level) / 0.3, 0, 1))
    # Further down the organ reaches the ribs in front.
    dome_depth = dome.depth_share + (1 - dome.depth_share) * min(1.0, 1.3 * below)
    recess = dome.recess_mm * grown * min(1.0, max(0.0, (1 - below) / 0.3))
    center = (dome.x_mm, section.cavity_y + 8 * (1 - grown) - recess)
    canvas.ellipse(
        center,
        (dome.width_mm * grown, (half_depth + 2) * grown * dome_depth),
        section.patient.enhanced(dome.hu) + 5 * section.texture,
        angle_degrees=dome.tilt_degrees,
        edge_mm=edge_mm,
        within=section.cavity,
    )


def _paint_loops(canvas: Canvas, section: Section) -> None:
    for x, y, half_width, half_depth, hu in section.patient.abdomen.loops.tolist():
        canvas.ellipse(
            (x, y),
            (half_width, half_depth),
            hu,
            within=section.cavity,
            bumps_mm=2 * section.texture,
        )


def _paint_gas(canvas: Canvas, section: Section) -> None:
    """Paints the gas in stomach and bowel: as dark as the air in the lungs, but no lung."""
    abdomen = section.patient.abdomen
    bumps = 2.5 * section.texture
    stool = np.clip(-300 + 350 * section.texture, -900, 40) if abdomen.stool else 0.0
    # In a stomach that holds fluid too, gas rises to the front.
    floating = np.maximum(section.cavity + 4, canvas.y - abdomen.gas[0, 1])
    for index, (x, y, half_width, half_depth, z, height) in enumerate(abdomen.gas.tolist()):
        size = bulge(section.z, center=z, half_height=height)
        if size < 0.2 or half_width < 3:
            continue
        wall = half_width * size + 4, half_depth * size + 4
        canvas.ellipse((x, y), wall, 45.0, within=section.cavity, bumps_mm=bumps)
        bubble = half_width * size, half_depth * size
        mixed = index > 0 and index % 4 < 4 * abdomen.stool
        canvas.ellipse(
            (x, y),
            bubble,
            stool if mixed else AIR_HU + 20,
            within=floating if index == 0 and abdomen.fluid_level else section.cavity + 4,
            bumps_mm=bumps,
        )


def _paint_spleen_and_kidneys(canvas: Canvas, section: Section) -> None:
    patient, inside, y = section.patient, section.cavity, section.spine_y
    spleen = (92, section.cavity_y + 45)
    canvas.ellipse(spleen, (26, 36), patient.enhanced(50.0), angle_degrees=-20, within=inside)
    for side in SIDES:
        canvas.ellipse((side * 54, y + 2), (31, 36), FAT_HU, within=inside)
        canvas.ellipse((side * 54, y + 2), (24, 28), patient.enhanced(35.0, 0.5), within=inside)
        canvas.ellipse((side * 48, y), (9, 10), FAT_HU + 40)
