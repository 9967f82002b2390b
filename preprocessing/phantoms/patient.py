"""Who a phantom is: one invented patient, put together organ by organ."""

from dataclasses import dataclass

import numpy as np

from preprocessing.phantoms.abdomen_anatomy import Abdomen, sample_abdomen
from preprocessing.phantoms.anatomy import LEVELS, Variety, stretched_profiles
from preprocessing.phantoms.device_anatomy import Devices, sample_devices
from preprocessing.phantoms.lung_anatomy import Lung, sample_lungs
from preprocessing.phantoms.shapes import Floats, smooth_field
from preprocessing.phantoms.support_anatomy import Supports, sample_supports
from preprocessing.phantoms.vessels import VesselTree, grow_vessels


@dataclass(frozen=True, kw_only=True, eq=False)
class PatientAnatomy:
    """One invented patient."""

    profiles: dict[str, Floats]
    """Lengths of the body level by level, as in ``anatomy.PROFILES``."""

    width_scale: float
    """Size from left to right, relative to the reference adult."""

    depth_scale: float
    """Size from front to back, relative to the reference adult."""

    lung_height_mm: float
    """Height of the lungs from base to apex."""

    base_z: float
    """z of the base of the lungs."""

    apex_z: float
    """z of the apex of the lungs."""

    roll_degrees: float
    """Turn of the body about its long axis."""

    fat_mm: float
    """Thickness of the fat beneath the skin at the flanks."""

    breast: float
    """Size of the breasts: 0 for none, 1 for average."""

    arms: str
    """``up`` above the head, ``down`` beside the body, or ``away`` out of the picture."""

    arm_x_mm: tuple[float, float]
    """How far right and left arm are pushed out, added to their usual place."""

    arm_y_mm: tuple[float, float]
    """How far down they are pushed."""

    arm_stretch: tuple[float, float]
    """How much longer than wide they are cut where they are held up: askew arms are long."""

    mediastinum_x_mm: float
    """How far all between the lungs is drawn to the left."""

    heart_scale: float
    """Size of the heart, 1 for average."""

    heart_angle_degrees: float
    """Direction of the long axis of the heart: 0 points left, 90 to the front."""

    vessel_scale: float
    """Bore of aorta, veins and hilar trunks, 1 for average."""

    airway_scale: float
    """Bore of trachea and bronchi, 1 for average."""

    lobar_bronchi: Floats
    """[2, bronchi, 3] bronchi below the right and the left main one: distance to the side and to
    the back, and radius, in reference millimeters; of radius 0 where there is none."""

    gullet_gas_mm: float
    """Radius of the gas in the gullet, 0 for none."""

    fat_pad_mm: tuple[float, float]
    """Size of the fat beside the heart, on the right and on the left."""

    rib_phase: float
    """Where along z the ribs begin, in ribs."""

    blood_hu: float
    """Density of blood: about 40, or more with a contrast agent."""

    bone_hu: float
    """Density of compact bone."""

    muscle_hu: float
    """Density of muscle."""

    air_under_skin: float
    """How much gas has spread between fat and muscle: 0 for none, 1 for much."""

    warp_mm: Floats
    """[levels, 2, rows, columns] shifts in x and y that bend the smooth outlines."""

    lungs: tuple[Lung, Lung]
    """The right and the left lung."""

    vessels: VesselTree
    """The vessels inside the lungs."""

    abdomen: Abdomen
    """What lies below the diaphragm."""

    devices: Devices
    """What medicine has put in and on."""

    supports: Supports
    """What holds the patient still."""

    def length(self, name: str, level: float) -> float:
        """Gives a length of the patient at one level, in reference millimeters.

        Args:
            name: one of ``anatomy.PROFILES``, such as ``cavity_half_width``.
            level: lung level; beyond the table its ends are repeated.
        """
        return float(np.interp(level, LEVELS, self.profiles[name]))

    def lung_level(self, z: float) -> float:
        """Gives the lung level (0 base, 1 apex; below and above beyond) of a height ``z``."""
        return (z - self.base_z) / (self.apex_z - self.base_z)

    def neck_share(self, z: float) -> float:
        """Gives how far ``z`` is from the apex of the lungs (0) to the end of the neck (1)."""
        return float(np.clip((z - self.apex_z) / (1.0 - self.apex_z), 0.0, 1.0))

    def enhanced(self, hu: float, share: float = 0.3) -> float:
        """Gives the density of an organ, of which a share is blood with its contrast agent."""
        return hu + share * max(0.0, self.blood_hu - 40)


def sample_patient(rng: np.random.Generator, *, variety: Variety = "usual") -> PatientAnatomy:
    """Invents a patient.

    Args:
        rng: the source of all that varies; the same state gives the same patient.
        variety: ``usual`` for healthy adults, ``wide`` for every body and many diseases.
    """
    wide = variety == "wide"
    size = rng.uniform(0.8, 1.15) if wide else rng.uniform(0.88, 1.1)
    lung_height_mm = size * (rng.uniform(170, 320) if wide else rng.uniform(215, 285))
    lungs = sample_lungs(rng, variety=variety, lung_height_mm=lung_height_mm)
    return PatientAnatomy(
        profiles=stretched_profiles(rng, variety=variety),
        width_scale=size * rng.uniform(0.93, 1.07),
        depth_scale=size * (rng.uniform(0.84, 1.22) if wide else rng.uniform(0.9, 1.12)),
        lung_height_mm=lung_height_mm,
        base_z=rng.uniform(0.02, 0.085),
        apex_z=rng.uniform(0.9, 0.96),
        roll_degrees=float(np.clip(rng.normal(0, 4 if wide else 2.5), -12, 12)),
        fat_mm=_sample_fat(rng, wide=wide),
        breast=rng.uniform(0.5, 1.7) if rng.random() < 0.45 else 0.0,
        arms=str(rng.choice(["up", "down", "away"], p=[0.5, 0.25, 0.25])),
        arm_x_mm=(rng.uniform(-8, 30), rng.uniform(-8, 30)),
        arm_y_mm=(rng.uniform(-60, 20), rng.uniform(-60, 20)) if wide else (0.0, 0.0),
        arm_stretch=(rng.uniform(0.8, 2), rng.uniform(0.8, 2)) if wide else (1.0, 1.0),
        mediastinum_x_mm=_sample_shift(rng, lungs=lungs, wide=wide),
        heart_scale=rng.uniform(0.7, 1.35) if wide else rng.uniform(0.85, 1.2),
        heart_angle_degrees=rng.uniform(10, 60),
        vessel_scale=rng.uniform(0.75, 1.35) if wide else rng.uniform(0.9, 1.1),
        airway_scale=rng.uniform(0.7, 1.35) if wide else rng.uniform(0.8, 1.2),
        lobar_bronchi=_sample_bronchi(rng),
        gullet_gas_mm=rng.uniform(1.5, 6) if rng.random() < 0.25 else 0.0,
        fat_pad_mm=(rng.uniform(0, 38), rng.uniform(0, 38)),
        rib_phase=rng.random(),
        blood_hu=_sample_blood(rng),
        bone_hu=rng.uniform(300, 1200) if wide else rng.uniform(400, 900),
        muscle_hu=rng.uniform(35, 70),
        air_under_skin=rng.uniform(0.3, 1) if wide and rng.random() < 0.02 else 0.0,
        warp_mm=_sample_warp(rng, wide=wide),
        lungs=lungs,
        vessels=grow_vessels(
            rng,
            lung_height_mm=lung_height_mm,
            forks=int(rng.integers(7, 10)) if wide else 9,
            thickness=rng.uniform(0.7, 1.35) if wide else 1.0,
        ),
        abdomen=sample_abdomen(rng, variety=variety),
        devices=sample_devices(rng, variety=variety),
        supports=sample_supports(rng, variety=variety),
    )


def _sample_warp(rng: np.random.Generator, *, wide: bool) -> Floats:
    """Draws small bends everywhere; in ``wide`` bodies also large ones, the same at all levels."""
    fine = rng.normal(0, 2.2, size=(5, 2, 7, 7)).astype(np.float32)
    if not wide:
        return fine
    coarse = rng.normal(0, rng.uniform(0, 9), size=(2, 3, 3)).astype(np.float32)
    return fine * np.float32(rng.uniform(0.5, 2)) + np.stack(
        [smooth_field(shift, (7, 7)) for shift in coarse]
    )


def _sample_fat(rng: np.random.Generator, *, wide: bool) -> float:
    if wide and rng.random() < 0.2:
        return rng.uniform(40, 75)
    return rng.uniform(3, 16) if rng.random() < 0.5 else rng.uniform(12, 45)


def _sample_bronchi(rng: np.random.Generator) -> Floats:
    bronchi = np.array([[0.0, 12.0, 3.5], [10.0, 2.0, 3.5]]) + rng.normal(0, 3, size=(2, 2, 3))
    bronchi[..., 2] = rng.uniform(2.2, 4.2, size=(2, 2)) * (rng.random((2, 2)) < 0.8)
    return bronchi


def _sample_blood(rng: np.random.Generator) -> float:
    return rng.uniform(110, 350) if rng.random() < 0.5 else rng.uniform(30, 55)


def _sample_shift(rng: np.random.Generator, *, lungs: tuple[Lung, Lung], wide: bool) -> float:
    """Draws what lies between the lungs towards a missing one, and away from much fluid."""
    right, left = lungs
    shift = rng.normal(0, 6 if wide else 2)
    shift += rng.uniform(10, 35) * ((not left.present) - (not right.present))
    return shift + 0.15 * (right.pleura.thickness_mm - left.pleura.thickness_mm)
