"""What lies below the diaphragm of a patient."""

from dataclasses import dataclass

import numpy as np

from preprocessing.phantoms.anatomy import SIDES, Variety
from preprocessing.phantoms.shapes import Floats


@dataclass(frozen=True, kw_only=True)
class Dome:
    """One half of the diaphragm, and the organ that fills it."""

    top_level: float
    """Lung level of its top."""

    x_mm: float
    """x of its middle."""

    width_mm: float
    """Half width of the organ below."""

    depth_share: float
    """Half depth, relative to that of the rib cage."""

    recess_mm: float
    """How far it lies in front of the ribs at the back, where the lung reaches down."""

    tilt_degrees: float
    """Turn of its cut."""

    edge_mm: float
    """How gradually it comes into the slice near its top."""

    hu: float
    """Density of the organ without a contrast agent."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Abdomen:
    """The organs below the diaphragm."""

    domes: tuple[Dome, Dome]
    """The right one with the liver, the left one with spleen and stomach."""

    left_lobe: float
    """Size of the part of the liver in the middle, 1 for average."""

    gas: Floats
    """[bubbles, 6] gas: x, y, half width, half depth, z of its center and its half height in z."""

    stool: float
    """How much of the gas in the bowel is mixed with stool, 0 to 1."""

    fluid_level: bool
    """Whether fluid stands in the stomach beneath its gas."""

    hernia: Floats
    """[4] stomach that has slipped up in front of the spine: x, half width, half depth of its gas,
    and its highest lung level; of size 0 in most."""

    loops: Floats
    """[loops, 5] bowel: x, y, half width, half depth, density."""


def sample_abdomen(rng: np.random.Generator, *, variety: Variety) -> Abdomen:
    """Invents what lies below the diaphragm.

    Args:
        rng: the source of all that varies.
        variety: ``wide`` has low and high domes, and now and then much gas.
    """
    wide = variety == "wide"
    push = rng.normal(0, 0.1) if wide else 0.0
    tops = rng.uniform(0.34, 0.48) + push, rng.uniform(0.28, 0.42) + push
    if wide:
        tops = tops[0] + rng.normal(0, 0.05), tops[1] + rng.normal(0, 0.06)
    right, left = (
        Dome(
            top_level=float(np.clip(top, 0.12, 0.72)),
            x_mm=side * rng.uniform(60, 74),
            width_mm=rng.uniform(57, 71),
            depth_share=rng.uniform(0.78, 1.0),
            recess_mm=rng.uniform(8, 45) if wide else rng.uniform(14, 32),
            tilt_degrees=rng.uniform(-12, 12),
            edge_mm=rng.uniform(1, 16),
            hu=hu + rng.uniform(-25 if wide else -10, 10),
        )
        for side, top, hu in zip(SIDES, tops, (62.0, 48.0), strict=True)
    )
    num_loops = int(rng.integers(4, 16))
    loops = np.stack(
        [
            rng.uniform(-100, 100, num_loops),
            rng.uniform(-185, -95, num_loops),
            rng.uniform(10, 26, num_loops),
            rng.uniform(8, 18, num_loops),
            rng.uniform(0, 60, num_loops),
        ],
        axis=1,
    )
    return Abdomen(
        domes=(right, left),
        left_lobe=rng.uniform(0.5, 1.2),
        gas=_sample_gas(rng, wide=wide),
        fluid_level=bool(rng.random() < 0.5),
        hernia=_sample_hernia(rng, wide=wide),
        stool=rng.uniform(0, 1) if rng.random() < 0.5 else 0.0,
        loops=loops.astype(np.float32),
    )


def _sample_hernia(rng: np.random.Generator, *, wide: bool) -> Floats:
    size = rng.uniform(8, 28) if wide and rng.random() < 0.07 else 0.0
    return np.array([rng.uniform(-15, 25), size, 0.8 * size, rng.uniform(0.15, 0.4)])


def _sample_gas(rng: np.random.Generator, *, wide: bool) -> Floats:
    """Places the stomach bubble under the left diaphragm, and gas in the bowel below."""
    size = rng.uniform(0, 1.6) if wide else 1.0
    stomach = [
        rng.uniform(45, 90),
        rng.uniform(-175, -125),
        size * rng.uniform(14, 34),
        size * rng.uniform(10, 22),
        rng.uniform(0.12, 0.24),
        rng.uniform(0.06, 0.14),
    ]
    bubbles = [stomach]
    for z in rng.uniform(-0.15, 0.14, size=rng.integers(1, 10)):
        large = wide and rng.random() < 0.15
        bubbles.append(
            [
                rng.uniform(-105, 110),
                rng.uniform(-180, -105),
                rng.uniform(20, 45) if large else rng.uniform(4, 20),
                rng.uniform(15, 30) if large else rng.uniform(4, 12),
                z,
                rng.uniform(0.04, 0.12),
            ]
        )
    if wide:
        for side in SIDES:
            # The left bend of the colon lies high under the dome, the right one below the liver.
            bubbles += _sample_bend(rng, side=side, share=0.6 if side > 0 else 0.3)
    return np.array(bubbles, np.float32)


def _sample_bend(rng: np.random.Generator, *, side: int, share: float) -> list[list[float]]:
    """Strings bubbles of gas along the flank, as folds of the colon part them."""
    if rng.random() > share:
        return []
    x, y = side * rng.uniform(70, 112), rng.uniform(-185, -120)
    z = rng.uniform(0.1, 0.34) if side > 0 else rng.uniform(0.02, 0.2)
    heading = rng.uniform(0.2, 1.4)  # from across to the back
    bubbles = []
    for _ in range(rng.integers(2, 6)):
        half_width, half_depth = rng.uniform(5, 17, size=2)
        bubbles.append([x, y, half_width, half_depth, z, rng.uniform(0.05, 0.14)])
        step = 1.2 * half_width + rng.uniform(4, 9)
        x += 0.5 * side * step * np.cos(heading)
        y += step * np.sin(heading)
    return bubbles
