"""Draws a slice of a patient: every organ in turn, then what the scanner makes of it.

Reading order: ``patient`` invents a patient out of ``anatomy``, ``lung_anatomy``, ``vessels``,
``abdomen_anatomy``, ``device_anatomy`` and ``support_anatomy``; ``supports``, ``body``, ``lungs``
(with ``disease``), ``mediastinum``, ``abdomen``, ``bones``, ``devices`` and ``head`` paint one
level of it (``section``) in Hounsfield units on a ``canvas``; ``scanner`` invents a scanner;
``couch`` and ``acquisition`` make a CT slice of that.
"""

import numpy as np
from numpy.typing import NDArray

from preprocessing.phantoms.abdomen import paint_abdomen
from preprocessing.phantoms.acquisition import acquire, outside_circle
from preprocessing.phantoms.body import paint_body
from preprocessing.phantoms.bones import paint_ribs, paint_shoulder_bones, paint_spine
from preprocessing.phantoms.canvas import Canvas
from preprocessing.phantoms.devices import paint_devices
from preprocessing.phantoms.head import HEAD_Z, paint_head
from preprocessing.phantoms.lungs import paint_lungs
from preprocessing.phantoms.mediastinum import paint_heart_and_tubes, paint_mediastinum
from preprocessing.phantoms.patient import PatientAnatomy
from preprocessing.phantoms.scanner import ScanSettings, pose
from preprocessing.phantoms.section import cut_section
from preprocessing.phantoms.shapes import Floats
from preprocessing.phantoms.supports import paint_supports
from preprocessing.spec import IMAGE_SPEC, MAX_PIXELS

PAINTERS = (
    paint_supports,
    paint_body,
    paint_lungs,
    paint_mediastinum,
    paint_abdomen,
    paint_heart_and_tubes,
    paint_spine,
    paint_ribs,
    paint_shoulder_bones,
    paint_devices,
)
"""In the order of painting: each covers what the ones before it painted, lung too."""

HEAD_PAINTERS = (paint_supports, paint_head)

LUNG_SHARE = 0.35
"""A pixel with more lung than this is in the mask: readers draw the outline on the pleura, so take
in most of the pixels that lung and chest wall share."""

MIN_IMAGE_SIZE = 32
MAX_IMAGE_SIZE = int(MAX_PIXELS**0.5)


def draw_slice(
    patient: PatientAnatomy,
    scan: ScanSettings,
    *,
    z: float,
    image_size: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draws a slice of a patient and its lung mask.

    Args:
        patient: who.
        scan: the scanner.
        z: level, 0 (abdomen) to 1 (neck); to -0.15 for more of the abdomen, to 1.25 for the head.
        image_size: height and width in pixels.
        rng: the source of texture and noise.

    Returns:
        [height, width] gray values, and [height, width] labels in {0, 1}. The front of the patient
        is up, and the right of the patient is on the left, as radiologists look at it.
    """
    canvas = Canvas(
        grid=scan.grid(image_size), pose=pose(patient), warp_mm=_warp_at(patient.warp_mm, z)
    )
    section = cut_section(canvas, patient, z=z, rng=rng, slice_mm=scan.slice_mm)
    for paint in PAINTERS if z < HEAD_Z else HEAD_PAINTERS:
        paint(canvas, section)
    across, along = canvas.x * np.float32(1 / 150), (canvas.y + 110) * np.float32(1 / 110)
    body_distance = np.sqrt(across * across + along * along)
    image = acquire(canvas.hu, scan, body_distance=body_distance, rng=rng)
    mask = np.where(canvas.lung > LUNG_SHARE, IMAGE_SPEC.lung_label, IMAGE_SPEC.background_label)
    outside = outside_circle(scan, image_size)
    if outside is not None:
        mask[outside] = IMAGE_SPEC.background_label
    return image, mask.astype(np.uint8)


def _warp_at(warp_mm: Floats, z: float) -> Floats:
    """Blends the two shift fields nearest to a level; [levels, 2, r, c] -> [2, r, c]."""
    position = min(max(z, 0.0), 1.0) * (len(warp_mm) - 1)
    below = min(int(position), len(warp_mm) - 2)
    share = np.float32(position - below)
    return warp_mm[below] * (1 - share) + warp_mm[below + 1] * share
