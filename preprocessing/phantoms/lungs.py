"""Paints the lungs: what fills the pleural space, tissue with its diseases, vessels, fissures."""

import numpy as np

from preprocessing.phantoms.anatomy import HILUM_LEVEL, SIDES
from preprocessing.phantoms.canvas import Canvas, Window
from preprocessing.phantoms.disease import LungRegion, apply_disease
from preprocessing.phantoms.lung_anatomy import Lung
from preprocessing.phantoms.section import MUSCLE_HU, Section
from preprocessing.phantoms.shapes import Floats, smooth_field, smooth_max, superellipse
from preprocessing.phantoms.vessels import CutVessels, cut_vessels

APEX_SHARE = 0.12
"""Share of the height of a lung over which its tip is rounded."""


def paint_lungs(canvas: Canvas, section: Section) -> None:
    """Paints both lungs as far as nothing painted later pushes into them."""
    patient = section.patient
    if not 0 < section.level < 1:
        return
    z_mm = (section.level - HILUM_LEVEL) * patient.lung_height_mm
    vessels = cut_vessels(canvas, patient.vessels, z_mm=z_mm, slice_mm=section.slice_mm)
    for side, lung in zip(SIDES, patient.lungs, strict=True):
        if 0 < section.level + lung.level_shift < 1:
            _paint_lung(canvas, section, lung=lung, side=side, vessels=vessels)


def _paint_lung(
    canvas: Canvas, section: Section, *, lung: Lung, side: int, vessels: CutVessels
) -> None:
    patient, level = section.patient, section.level + lung.level_shift
    half_depth = patient.length("cavity_half_depth", section.level)
    middle_x = side * patient.length("lung_x", level)
    window = canvas.window(middle_x, section.cavity_y, 1.08 * max(half_depth, 80))
    if canvas.x[window].size == 0:
        return
    shape = _outline(canvas, section, lung=lung, side=side, window=window)
    wall = section.cavity[window] + 4
    back = (canvas.y[window] - np.float32(section.cavity_y)) / np.float32(half_depth)
    filling = _pleural_thickness(lung, level=level, back=back)
    if filling is not None:
        space = smooth_max(shape, wall, rounding_mm=10)
        canvas.paint(canvas.coverage(space), lung.pleura.hu, window=window)
        wall = wall + filling
    if not lung.present:
        if filling is None:
            canvas.paint(
                canvas.coverage(smooth_max(shape, wall, rounding_mm=10)), 25.0, window=window
            )
        return
    distance = smooth_max(shape, wall, rounding_mm=10)
    region = LungRegion(
        x=canvas.x[window],
        y=canvas.y[window],
        depth_mm=-distance,
        back=back,
        below_fissure_mm=_behind_fissure(canvas, section, lung=lung, side=side, window=window),
        z_mm=(level - HILUM_LEVEL) * patient.lung_height_mm,
        pixel_mm=canvas.edge_mm,
        rng=section.rng,
    )
    hu = _tissue(section, lung=lung, region=region, window=window)
    if filling is not None and lung.pleura.hu > -200:
        # Lung beside fluid is pressed airless.
        pressed = np.clip(1.3 - region.depth_mm / (2 + 0.3 * filling), 0, 1) * (filling > 3)
        hu += pressed * (patient.enhanced(45.0) - hu)
    # Vessels are thin near the pleura.
    inner = np.clip(region.depth_mm / 10, 0.25, 1)
    hu += vessels.blood[window] * inner * (patient.blood_hu - hu)
    hu += vessels.air[window] * (-970 - hu)
    edge_mm = section.edge_mm + _dome_edge_mm(section, level=level)
    coverage = canvas.coverage(distance, edge_mm=edge_mm)
    canvas.paint_lung(coverage, hu, window=window)
    if vessels.hilar is not None:
        canvas.paint(vessels.hilar[window] * coverage, patient.blood_hu, window=window)


def _outline(canvas: Canvas, section: Section, *, lung: Lung, side: int, window: Window) -> Floats:
    """Measures the distance to the lung where the rib cage does not bound it."""
    patient, level = section.patient, section.level + lung.level_shift
    x = canvas.x[window] - np.float32(side * patient.length("lung_x", level))
    y = canvas.y[window] - np.float32(section.cavity_y)
    x = x + smooth_field(lung.warp_mm[0], x.shape)
    y = y + smooth_field(lung.warp_mm[1], y.shape)
    tip = _tip(level)
    half_axes = (
        patient.length("lung_half_width", level) * lung.width_scale * tip,
        patient.length("lung_half_depth", level) * lung.depth_scale * tip,
    )
    return superellipse(x, y, half_axes=half_axes, power=lung.power)


def _tip(level: float) -> float:
    """Gives how wide the rounded dome of the apex is at a level: 1 below it, 0 at its top."""
    return float(np.sqrt(min(1.0, (1 - level) / APEX_SHARE)))


def _dome_edge_mm(section: Section, *, level: float) -> float:
    """Gives by how much the outline moves within the thickness of the slice.

    At the top of the dome, a slice holds lung and what is above it: all of the lung is gray there.
    """
    tip = _tip(level)
    if tip == 1:
        return 0.0
    thickness = section.slice_mm / section.patient.lung_height_mm
    half_width = section.patient.length("lung_half_width", level)
    return float(min(half_width * thickness / (2 * APEX_SHARE * tip), half_width))


def _pleural_thickness(lung: Lung, *, level: float, back: Floats) -> Floats | None:
    """Gives the millimeters between rib cage and lung, or None for a healthy pleura."""
    pleura = lung.pleura
    if not pleura.thickness_mm or level >= pleura.top_level:
        return None
    height = float(np.sqrt(1 - max(0.0, level) / pleura.top_level))
    share = (back * pleura.facing - pleura.begin) / (1 - pleura.begin)
    return np.clip(share, 0, 1.2) * np.float32(pleura.thickness_mm * height)


def _behind_fissure(
    canvas: Canvas, section: Section, *, lung: Lung, side: int, window: Window
) -> Floats:
    """Measures the distance to the oblique fissure, which moves to the front further down."""
    y = section.cavity_y + lung.fissure_y_mm + 150 * (section.level - 0.5)
    x = (side * canvas.x[window] - 70) / 60
    bend = np.float32(lung.fissure_bend_mm) * x * x + 5 * section.texture[window]
    return canvas.y[window] - np.float32(y) - bend


def _tissue(section: Section, *, lung: Lung, region: LungRegion, window: Window) -> Floats:
    """Gives the density of a lung without its vessels."""
    hu = np.float32(lung.hu) + np.float32(lung.gradient_hu / 2) * region.back
    hu += np.float32(lung.mottle_hu) * (0.6 * section.texture[window] + region.noise(4))
    # Vessels too small to draw, each for itself.
    hu += np.float32(3 * lung.mottle_hu) * np.maximum(region.noise(2.5) - 0.8, 0)
    fissure = np.clip(1 - np.abs(region.below_fissure_mm) / np.float32(region.pixel_mm), 0, 1)
    hu += fissure * np.float32(lung.fissure_strength) * (MUSCLE_HU - hu) * 0.7
    apply_disease(hu, lung.disease, region)
    return hu
