"""Paints what lies under and over the patient: couches, pads, blankets."""

from dataclasses import dataclass

import numpy as np

from preprocessing.phantoms.anatomy import Variety
from preprocessing.phantoms.canvas import AIR_HU, Grid
from preprocessing.phantoms.shapes import Floats

FOAM_HU = 40.0
"""How much denser than air the filling of a couch is."""


@dataclass(frozen=True, kw_only=True)
class Couch:
    """What a patient lies on; lengths in millimeters of the scanner."""

    kind: str
    """``flat`` (a board on a cradle), ``curved`` (a cradle), ``box`` (a board) or ``none``."""

    hu: float
    """Density of its shell."""

    shell_mm: float
    """Half the thickness of its shell."""

    half_width_mm: float
    """Half its width."""

    radius_mm: float
    """Radius of the cradle."""

    cradle_top_mm: float
    """How far below the board the cradle is."""

    pad_mm: float
    """Thickness of the pad on it; 0 for none."""

    pad_hu: float
    """Density of the pad."""

    blanket_mm: float
    """How far above the patient a blanket lies; 0 for none."""


def sample_couch(rng: np.random.Generator, *, variety: Variety) -> Couch:
    """Invents a couch; the ``usual`` ones have no pad and no blanket."""
    wide = variety == "wide"
    return Couch(
        kind=str(rng.choice(["flat", "curved", "box", "none"], p=[0.4, 0.35, 0.1, 0.15])),
        hu=rng.uniform(-600, 900) if wide else rng.uniform(-500, 400),
        shell_mm=rng.uniform(0.6, 2.5) if wide else 1.2,
        half_width_mm=rng.uniform(190, 275) if wide else rng.uniform(215, 265),
        radius_mm=rng.uniform(260, 700) if wide else rng.uniform(430, 520),
        cradle_top_mm=rng.uniform(30, 110) if wide else 76,
        pad_mm=rng.uniform(8, 45) if wide and rng.random() < 0.35 else 0.0,
        pad_hu=rng.uniform(-985, -880),
        blanket_mm=rng.uniform(1, 14) if wide and rng.random() < 0.12 else 0.0,
    )


def add_couch(hu: Floats, couch: Couch, *, grid: Grid) -> None:
    """Adds the couch where air is, beneath the patient.

    Args:
        hu: [height, width] densities, changed in place.
        couch: what to add.
        grid: the pixels.
    """
    x, y = grid.axes()
    below = slice(max(0, int(np.searchsorted(y[:, 0], 0))), None)
    if couch.kind == "none" or hu[below].size == 0:
        return
    y = y[below]
    if couch.pad_mm:
        pad = np.maximum(np.abs(y - couch.pad_mm / 2) - couch.pad_mm / 2, np.abs(x) - 200)
        filled = np.clip(0.5 - pad / grid.pixel_mm, 0, 1)
        hu[below] = np.maximum(hu[below], AIR_HU + filled * (couch.pad_hu - AIR_HU))
    y = y - np.float32(couch.pad_mm)
    board = np.maximum(np.abs(y - 13) - 12, np.abs(x) - couch.half_width_mm)
    shapes = []
    if couch.kind in ("flat", "box"):
        shapes.append((board, couch.hu - 150))
    if couch.kind in ("flat", "curved"):
        top_mm = couch.cradle_top_mm if couch.kind == "flat" else 4
        cradle = _arc(
            x,
            y,
            top_mm=top_mm,
            radius_mm=couch.radius_mm,
            half_width_mm=0.9 * couch.half_width_mm,
        )
        shapes.append((cradle, couch.hu))
    for distance, shell_hu in shapes:
        shell = np.clip(0.5 - (np.abs(distance) - couch.shell_mm) / grid.pixel_mm, 0, 1)
        foam = np.clip(0.5 - distance / grid.pixel_mm, 0, 1)
        density = AIR_HU + FOAM_HU * foam + shell * (shell_hu - AIR_HU - FOAM_HU)
        hu[below] = np.maximum(hu[below], density)


def add_blanket(hu: Floats, couch: Couch, *, pixel_mm: float) -> None:
    """Adds a thin cloth over the patient, in place."""
    if not couch.blanket_mm:
        return
    rows = np.argmax(hu > -300, axis=0)
    covered = (hu > -300).any(axis=0)
    columns = np.flatnonzero(covered & (rows > 3))
    if len(columns) < 3:
        return
    # A cloth hangs straight between the highest points: the running minimum of the rows.
    reach = max(1, round(30 / pixel_mm))
    padded = np.pad(rows[columns], reach, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    top = windows.min(axis=1) - 1 - round(couch.blanket_mm / pixel_mm)
    for thickness in (0, 1):
        at = np.maximum(top - thickness, 0)
        hu[at, columns] = np.maximum(hu[at, columns], -700.0)


def _arc(x: Floats, y: Floats, *, top_mm: float, radius_mm: float, half_width_mm: float) -> Floats:
    """Measures the distance to a trough 25 mm thick, hollow side up."""
    down = y - np.float32(top_mm + 12.5 - radius_mm)
    radius = np.sqrt(x * x + down * down)
    thick = np.abs(radius - np.float32(radius_mm)) - np.float32(12.5)
    return np.maximum(thick, np.abs(x) - np.float32(half_width_mm))
