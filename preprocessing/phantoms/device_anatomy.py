"""What medicine has put into and onto a patient: tubes, leads, implants."""

from dataclasses import dataclass

import numpy as np

from preprocessing.phantoms.anatomy import SIDES, Variety
from preprocessing.phantoms.shapes import Floats

METAL_HU = 8000.0
"""Density of implants, far beyond what scanners show."""

PLASTIC_HU = 250.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Devices:
    """The devices of one patient."""

    rods: Floats
    """[rods, 6] what runs along the body: x, y, radius, density, lowest and highest z."""

    tubes: Floats
    """[tubes, 5] hollow ones: x, y, outer radius, lowest and highest z."""

    skin_wires: Floats
    """[wires, 4] what lies on the front of the chest: x, half length, radius, density."""


def sample_devices(rng: np.random.Generator, *, variety: Variety) -> Devices:
    """Invents the devices; one in three of the ``wide`` patients has some, few of the others."""
    rods: list[list[float]] = []
    tubes: list[list[float]] = []
    wires: list[list[float]] = []
    chance = 0.12 if variety == "wide" else 0.03
    if rng.random() < chance:
        # A catheter in the upper hollow vein, or the leads of a pacemaker down to the heart.
        lead = METAL_HU if rng.random() < 0.4 else 500.0
        rods.append([rng.uniform(-40, -28), -130, rng.uniform(0.8, 1.6), lead, 0.3, 0.9])
    if rng.random() < chance / 3:
        y = rng.uniform(-50, -42)
        rods += [[side * rng.uniform(12, 20), y, 3.5, METAL_HU, 0.1, 0.8] for side in SIDES]
    if rng.random() < chance / 3:
        rods.append([rng.uniform(-8, 8), -188, 1.2, METAL_HU, 0.35, 0.75])
    if rng.random() < chance / 3:
        rods.append([rng.choice(SIDES) * 172.0, -70, rng.uniform(10, 22), METAL_HU, 0.84, 0.97])
    if rng.random() < chance:
        tubes.append([8, -88, rng.uniform(2, 3), 0.05, 1.1])
    if rng.random() < chance:
        side = rng.choice(SIDES)
        tubes.append([side * rng.uniform(112, 128), -110, rng.uniform(3, 5), 0.25, 0.7])
    for _ in range(int(rng.poisson(2 * chance))):
        hu = METAL_HU / 4 if rng.random() < 0.5 else PLASTIC_HU
        wires.append([rng.uniform(-110, 110), rng.uniform(1, 25), rng.uniform(0.8, 2.5), hu])
    return Devices(
        rods=np.array(rods, np.float32).reshape(-1, 6),
        tubes=np.array(tubes, np.float32).reshape(-1, 5),
        skin_wires=np.array(wires, np.float32).reshape(-1, 4),
    )
