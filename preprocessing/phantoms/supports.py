"""Paints what holds a patient still, before the patient: the body covers what it lies in."""

import numpy as np

from preprocessing.phantoms.canvas import Canvas
from preprocessing.phantoms.section import Section, arms
from preprocessing.phantoms.shapes import Floats, superellipse

HEAD_REST_Z = 0.93
"""z from which on the neck or the head lies on a rest."""


def paint_supports(canvas: Canvas, section: Section) -> None:
    """Paints mattress, rests and cushions that this level cuts; none of it is lung."""
    supports = section.patient.supports
    if supports.mattress_mm and section.z < HEAD_REST_Z:
        half_width, half_depth = section.trunk_half_axes()
        center_y = 0.5 * section.patient.fat_mm - 0.95 * half_depth
        body = superellipse(
            canvas.x,
            canvas.y - np.float32(center_y),
            half_axes=(half_width, half_depth),
            power=2.35,
        )
        top = np.float32(-supports.mattress_reach_mm) - canvas.y
        _paint_foam(canvas, section, np.maximum(body - np.float32(supports.mattress_mm), top))
    if supports.head_rest_mm and section.z > HEAD_REST_Z:
        height = supports.head_rest_mm
        block = np.maximum(
            np.abs(canvas.x) - np.float32(60 + height),
            np.abs(canvas.y + np.float32(height / 2)) - np.float32(height / 2),
        )
        _paint_foam(canvas, section, block)
    if supports.arm_rest_mm and section.patient.arms == "up":
        neck = section.patient.neck_share(section.z)
        for center, half_axes in arms(section, neck=neck):
            dx, dy = canvas.x - np.float32(center[0]), canvas.y - np.float32(center[1])
            arm = superellipse(dx, dy, half_axes=half_axes)
            cup = np.maximum(arm - np.float32(supports.arm_rest_mm), -dy)
            _paint_foam(canvas, section, cup)
    for x, y, half_width, half_height, low, high in supports.cushions.tolist():
        if low < section.z < high:
            cushion = superellipse(
                canvas.x - np.float32(x),
                canvas.y - np.float32(y),
                half_axes=(half_width, half_height),
                power=3.5,
            )
            _paint_foam(canvas, section, cushion)


def _paint_foam(canvas: Canvas, section: Section, distance: Floats) -> None:
    """Paints a cover, and foam inside of it.

    Args:
        canvas: to paint on.
        section: the level.
        distance: [height, width] signed distance to the outside of the cover.
    """
    supports = section.patient.supports
    if supports.skin_mm:
        canvas.paint(canvas.coverage(distance), supports.skin_hu)
    inside = canvas.coverage(distance + np.float32(supports.skin_mm))
    canvas.paint(inside, supports.foam_hu + 6 * section.texture)
