"""What holds a patient still: mattresses, rests for head and arms, cushions; all light as lung."""

from dataclasses import dataclass

import numpy as np

from preprocessing.phantoms.anatomy import SIDES, Variety
from preprocessing.phantoms.shapes import Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Supports:
    """The supports of one patient; lengths in reference millimeters."""

    foam_hu: float
    """Density of foam, beads or cloth, between air and lung."""

    skin_mm: float
    """Thickness of the cover; 0 for none."""

    skin_hu: float
    """Density of the cover."""

    mattress_mm: float
    """How thick a mattress that is molded to the body is; 0 for none."""

    mattress_reach_mm: float
    """How far up the sides of the body it reaches."""

    arm_rest_mm: float
    """How far the cups around raised arms stand off; 0 for none."""

    head_rest_mm: float
    """Height of the block beneath the head; 0 for none."""

    cushions: Floats
    """[cushions, 6] beside the body: x, y, half width, half height, lowest and highest z."""


def sample_supports(rng: np.random.Generator, *, variety: Variety) -> Supports:
    """Invents the supports; half of the ``wide`` patients have some, the ``usual`` ones none."""
    held = variety == "wide" and rng.random() < 0.5
    cushions = [
        [
            rng.choice(SIDES) * rng.uniform(150, 260),
            rng.uniform(-170, -10),
            rng.uniform(15, 70),
            rng.uniform(8, 45),
            (low := rng.uniform(-0.3, 1.1)),
            low + rng.uniform(0.1, 0.5),
        ]
        for _ in range(int(rng.poisson(0.8)) if held else 0)
    ]
    return Supports(
        foam_hu=rng.uniform(-985, -820),
        skin_mm=rng.uniform(0.8, 4) if rng.random() < 0.7 else 0.0,
        skin_hu=rng.uniform(-800, 500),
        mattress_mm=rng.uniform(10, 60) if held and rng.random() < 0.35 else 0.0,
        mattress_reach_mm=rng.uniform(20, 160),
        arm_rest_mm=rng.uniform(5, 35) if held and rng.random() < 0.5 else 0.0,
        head_rest_mm=rng.uniform(20, 80) if held and rng.random() < 0.5 else 0.0,
        cushions=np.array(cushions, np.float32).reshape(-1, 6),
    )
