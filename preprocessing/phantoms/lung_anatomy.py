"""What one lung of a patient is like: its shape, its tissue, its pleura and its diseases."""

from dataclasses import dataclass

import numpy as np

from preprocessing.phantoms.anatomy import SIDES, Variety
from preprocessing.phantoms.canvas import AIR_HU
from preprocessing.phantoms.shapes import Floats


@dataclass(frozen=True, kw_only=True)
class Pleura:
    """What lies between lung and rib cage; none of it is lung."""

    thickness_mm: float = 0.0
    """Thickness where it is thickest, at the base of the lung; 0 for a healthy pleura."""

    facing: float = 1.0
    """1 where it settles at the back (fluid), -1 where it rises to the front (gas)."""

    begin: float = 0.0
    """How far to the back (or front) it begins: 0 in the middle of the chest, 1 at its wall."""

    top_level: float = 1.0
    """Lung level of its upper end."""

    hu: float = 10.0
    """Density: about that of water, or of air in a pneumothorax."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Disease:
    """What is wrong inside a lung; all of it belongs to the lung, however dense."""

    emphysema: float = 0.0
    """Share of the tissue that is destroyed, so holds holes of air."""

    haze: float = 0.0
    """How far patches of ground glass extend: 0 not at all, 1 everywhere."""

    haze_hu: float = -500.0
    """Density of those patches; above -200 they are patchy consolidation."""

    haze_at_pleura: bool = False
    """Whether the patches keep to the outer lung."""

    settled_mm: float = 0.0
    """Thickness of the dense layer at the back that lying causes."""

    settled_hu: float = -400.0
    """Density of that layer."""

    dense_lobe: str = ""
    """Consolidated lobe: ``upper`` or ``lower`` as the fissure parts them, or none."""

    dense_hu: float = 40.0
    """Density of that lobe."""

    fibrosis: float = 0.0
    """Strength of the net of scars under the pleura, 0 to 1."""

    lesions: Floats
    """[lesions, 8] nodules and tumors: x, y, z above the hilum and three half axes in reference
    millimeters, density, width of the edge in millimeters."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lung:
    """One lung."""

    present: bool
    """False after removal, or where the whole lung is airless and shrunken."""

    level_shift: float
    """How much lower it is than the other, in lung levels."""

    width_scale: float
    """Half width, relative to the profile of the patient."""

    depth_scale: float
    """Half depth, relative to the profile of the patient."""

    power: float
    """Of the superellipse that bounds it: 2 round, more for a shape that fills corners."""

    warp_mm: Floats
    """[2, rows, columns] shifts in x and y that bend its outline."""

    hu: float
    """Density between the vessels."""

    gradient_hu: float
    """How much denser it is at the back than in front, where blood settles."""

    mottle_hu: float
    """Deviation of the density from place to place."""

    fissure_y_mm: float
    """y of the oblique fissure at the middle of the lung, against the middle of the chest."""

    fissure_bend_mm: float
    """How much the fissure bends away at the sides."""

    fissure_strength: float
    """0 for a fissure that does not show, 1 for one as dense as a vessel."""

    pleura: Pleura
    """What lies around it."""

    disease: Disease
    """What is wrong inside."""


def sample_lungs(
    rng: np.random.Generator, *, variety: Variety, lung_height_mm: float
) -> tuple[Lung, Lung]:
    """Invents the right and the left lung.

    Args:
        rng: the source of all that varies.
        variety: ``usual`` lungs are healthy but for a few nodules; of ``wide`` ones about half
            have a disease that shows, and at most one of the two is missing.
        lung_height_mm: from base to apex.
    """
    wide = variety == "wide"
    hu = rng.uniform(-950, -680) if wide and rng.random() < 0.5 else rng.uniform(-890, -740)
    missing = int(rng.integers(2)) if wide and rng.random() < 0.04 else -1
    # What is systemic shows on both sides, if not equally.
    sick = wide and rng.random() < 0.5
    right, left = (
        Lung(
            present=index != missing,
            level_shift=rng.uniform(-0.02, 0.02) * (3 if wide else 1),
            width_scale=rng.uniform(0.9, 1.1) if wide else rng.uniform(0.97, 1.03),
            depth_scale=rng.uniform(0.85, 1.12) if wide else rng.uniform(0.95, 1.05),
            power=rng.uniform(2.0, 3.3) if wide else rng.uniform(2.2, 2.8),
            warp_mm=rng.normal(0, 5.5 if wide else 3.0, size=(2, 5, 4)).astype(np.float32),
            hu=hu + rng.normal(0, 12),
            gradient_hu=rng.uniform(0, 180) if wide else rng.uniform(20, 110),
            mottle_hu=rng.uniform(8, 40) if wide else rng.uniform(10, 22),
            fissure_y_mm=rng.normal(0, 20),
            fissure_bend_mm=rng.uniform(-25, 25),
            fissure_strength=rng.uniform(0, 0.6),
            pleura=_sample_pleura(rng) if sick and rng.random() < 0.4 else Pleura(),
            disease=_sample_disease(rng, side=side, reach_mm=lung_height_mm / 2, sick=sick),
        )
        for index, side in enumerate(SIDES)
    )
    return right, left


def _sample_pleura(rng: np.random.Generator) -> Pleura:
    kind = rng.random()
    if kind < 0.15:
        # Gas of a pneumothorax: as dark as the lung, but no lung.
        return Pleura(
            thickness_mm=rng.uniform(6, 50),
            facing=-1.0,
            begin=rng.uniform(-0.4, 0.5),
            top_level=rng.uniform(0.8, 1.3),
            hu=AIR_HU,
        )
    return Pleura(
        thickness_mm=rng.uniform(4, 35) if kind < 0.75 else rng.uniform(30, 110),
        begin=rng.uniform(-0.7, 0.5),
        top_level=rng.uniform(0.3, 1.3),
        hu=rng.uniform(-5, 40),
    )


def _sample_disease(rng: np.random.Generator, *, side: int, reach_mm: float, sick: bool) -> Disease:
    nodules = _sample_lesions(rng, side=side, reach_mm=reach_mm, num=int(rng.poisson(0.4)))
    if not sick:
        return Disease(lesions=nodules)
    some = rng.random(7) < (0.3, 0.3, 0.3, 0.12, 0.2, 0.35, 0.1)
    more = [nodules]
    if some[5]:
        more.append(_sample_lesions(rng, side=side, reach_mm=reach_mm, num=1, tumor=True))
    if some[6]:
        more.append(_sample_lesions(rng, side=side, reach_mm=reach_mm, num=int(rng.integers(80))))
    return Disease(
        emphysema=rng.uniform(0.05, 0.6) if some[0] else 0.0,
        haze=rng.uniform(0.1, 0.8) if some[1] else 0.0,
        haze_hu=rng.uniform(-700, 40),
        haze_at_pleura=bool(rng.random() < 0.5),
        settled_mm=rng.uniform(3, 60) if some[2] else 0.0,
        settled_hu=rng.uniform(-600, 60),
        dense_lobe=str(rng.choice(["upper", "lower"])) if some[3] else "",
        dense_hu=rng.uniform(-150, 90),
        fibrosis=rng.uniform(0.2, 1.0) if some[4] else 0.0,
        lesions=np.concatenate(more),
    )


def _sample_lesions(
    rng: np.random.Generator, *, side: int, reach_mm: float, num: int, tumor: bool = False
) -> Floats:
    """Places nodules (2-14 mm) or tumors (15-80 mm) anywhere in a lung, at the pleura too."""
    lesions = np.empty((num, 8), np.float32)
    lesions[:, 0] = side * rng.uniform(25, 125, size=num)
    lesions[:, 1] = rng.uniform(-190, -35, size=num)
    lesions[:, 2] = rng.uniform(-reach_mm, reach_mm, size=num)
    size = rng.uniform(15, 40, size=num) if tumor else rng.uniform(1, 3, size=num) ** 2 * 0.8
    lesions[:, 3:6] = size[:, None] * rng.uniform(0.7, 1.3, size=(num, 3))
    lesions[:, 6] = np.where(rng.random(num) < 0.8, rng.uniform(-30, 90, num), -500)
    lesions[:, 7] = rng.uniform(0, 5, size=num)
    return lesions
