"""Paints tubes, leads and implants; none of it is lung."""

from preprocessing.phantoms.canvas import AIR_HU, Canvas
from preprocessing.phantoms.device_anatomy import PLASTIC_HU
from preprocessing.phantoms.section import Section


def paint_devices(canvas: Canvas, section: Section) -> None:
    """Paints the devices that this level cuts."""
    devices = section.patient.devices
    for x, y, radius, hu, low, high in devices.rods.tolist():
        if low < section.z < high:
            canvas.ellipse((x, y), (radius, radius), hu)
    for x, y, radius, low, high in devices.tubes.tolist():
        if low < section.z < high:
            canvas.ellipse((x, y), (radius, radius), PLASTIC_HU)
            canvas.ellipse((x, y), (radius - 1.2, radius - 1.2), AIR_HU)
    for x, half_length, radius, hu in devices.skin_wires.tolist():
        y = section.front_y(x) - radius
        canvas.capsule((x - half_length, y), (x + half_length, y), radius, hu)
