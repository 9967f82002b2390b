"""What the organs around the lungs look like; densities are in Hounsfield units."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from preprocessing.phantoms.anatomy import CARINA_LEVEL
from preprocessing.phantoms.body import paint_body
from preprocessing.phantoms.bones import paint_spine
from preprocessing.phantoms.canvas import Canvas
from preprocessing.phantoms.device_anatomy import METAL_HU
from preprocessing.phantoms.devices import paint_devices
from preprocessing.phantoms.head import BRAIN_Z
from preprocessing.phantoms.lungs import paint_lungs
from preprocessing.phantoms.mediastinum import paint_heart_and_tubes
from preprocessing.phantoms.painting import draw_slice
from preprocessing.phantoms.patient import PatientAnatomy
from preprocessing.phantoms.scanner import ScanSettings, pose
from preprocessing.phantoms.section import Section, cut_section

SIZE = 128
NO_WARP = np.zeros((2, 7, 7), np.float32)

Draw = Callable[..., tuple[np.ndarray, np.ndarray]]


def _cut(patient: PatientAnatomy, scan: ScanSettings, *, level: float) -> tuple[Canvas, Section]:
    canvas = Canvas(grid=scan.grid(SIZE), pose=pose(patient), warp_mm=NO_WARP)
    z = patient.base_z + level * (patient.apex_z - patient.base_z)
    return canvas, cut_section(canvas, patient, z=z, rng=np.random.default_rng(0))


def test_lung_reaches_down_behind_the_liver(patient: PatientAnatomy, draw: Draw) -> None:
    hu, mask = draw(patient, 0.15)
    rows, columns = np.nonzero(mask[:, :95])
    assert 30 < len(rows) < 1500
    # Liver in front of the lung, in the columns where there is lung.
    liver_row = int(np.median(rows)) - 35
    assert np.median(hu[liver_row, np.unique(columns)]) > 0


def test_spine_is_at_the_bottom_of_the_image_above_the_couch(
    patient: PatientAnatomy, scan: ScanSettings
) -> None:
    canvas, section = _cut(patient, scan, level=0.5)
    paint_body(canvas, section)
    body_rows = np.nonzero((canvas.hu > -200).any(axis=1))[0]
    paint_spine(canvas, section)
    bone_rows = np.nonzero((canvas.hu > 300).any(axis=1))[0]
    assert np.median(body_rows) < bone_rows.min()
    assert bone_rows.max() < body_rows.max()
    couch_row = -scan.grid(SIZE).axes()[1][0, 0] / scan.grid(SIZE).pixel_mm
    assert body_rows.max() == pytest.approx(couch_row, abs=5)


def test_windpipe_is_dark_and_not_in_the_mask(patient: PatientAnatomy, draw: Draw) -> None:
    level = CARINA_LEVEL + 0.15
    hu, mask = draw(patient, level)
    # The scanner of these tests has 2 mm pixels, and its center 110 mm above the couch.
    y = (patient.length("spine_y", level) - 36 - 0.5 * patient.fat_mm) + 110
    row, column = 105 + round(y / 2), 105
    window = slice(row - 4, row + 5), slice(column - 4, column + 5)
    assert (hu[window] < -950).sum() > 20
    assert not mask[window].any()


def test_main_bronchi_are_dark_and_not_in_the_mask(patient: PatientAnatomy, draw: Draw) -> None:
    hu, mask = draw(patient, CARINA_LEVEL - 0.06)
    middle = slice(60, 160), slice(88, 122)
    air = (hu[middle] < -950).sum()
    assert air > 30
    assert ((hu[middle] < -950) & (mask[middle] == 1)).sum() < 0.1 * air


def test_hilar_vessels_are_not_in_the_mask(patient: PatientAnatomy, scan: ScanSettings) -> None:
    canvas, section = _cut(patient, scan, level=0.52)
    paint_lungs(canvas, section)
    before = canvas.lung.copy()
    paint_heart_and_tubes(canvas, section)
    column, row = canvas.pixel(-36.0, section.cavity_y + 6)
    assert canvas.lung[int(row), int(column)] == 0
    assert ((before > 0.9) & (canvas.lung < 0.1) & (canvas.hu > 0)).sum() > 30


def test_gas_in_stomach_and_bowel_is_dark_and_not_in_the_mask(
    patient: PatientAnatomy, draw: Draw
) -> None:
    gas = np.array([[60, -140, 35, 30, 0.0, 0.5]], np.float32)
    abdomen = dataclasses.replace(patient.abdomen, gas=gas, fluid_level=False)
    hu, mask = draw(dataclasses.replace(patient, abdomen=abdomen), -0.05)
    assert (hu[50:110, 110:170] < -900).sum() > 300
    assert not mask.any()


def test_fluid_stands_beneath_the_gas_in_the_stomach(patient: PatientAnatomy, draw: Draw) -> None:
    gas = np.array([[60, -140, 35, 30, 0.0, 0.5]], np.float32)
    counts = []
    for fluid_level in (False, True):
        abdomen = dataclasses.replace(patient.abdomen, gas=gas, fluid_level=fluid_level)
        hu, _ = draw(dataclasses.replace(patient, abdomen=abdomen), -0.05)
        counts.append((hu[50:110, 110:170] < -900).sum())
    assert counts[1] == pytest.approx(counts[0] / 2, rel=0.25)


def test_stomach_that_slipped_up_is_dark_and_not_in_the_mask(
    patient: PatientAnatomy, draw: Draw
) -> None:
    hernia = np.array([0.0, 22.0, 18.0, 0.5])
    abdomen = dataclasses.replace(patient.abdomen, hernia=hernia)
    plain_hu, _ = draw(patient, 0.2)
    hu, mask = draw(dataclasses.replace(patient, abdomen=abdomen), 0.2)
    gas = (hu < -900) & (plain_hu > -300)
    assert gas.sum() > 120
    assert mask[gas].mean() < 0.05


def test_organs_drawn_aside_leave_the_spine_in_place(patient: PatientAnatomy, draw: Draw) -> None:
    level = CARINA_LEVEL + 0.15
    hu, _ = draw(patient, level)
    moved_hu, _ = draw(dataclasses.replace(patient, mediastinum_x_mm=20.0), level)
    y = (patient.length("spine_y", level) - 36 - 0.5 * patient.fat_mm) + 110
    row = 105 + round(y / 2)
    assert hu[row, 105] < -900
    assert moved_hu[row, 105] > -900
    assert moved_hu[row, 115] < -900
    assert moved_hu[row + 18, 105] == pytest.approx(hu[row + 18, 105], abs=30)


def test_arms_lie_beside_the_body_only_when_they_are_down(
    patient: PatientAnatomy, draw: Draw
) -> None:
    widths = {}
    for arms in ("down", "up"):
        posed = dataclasses.replace(patient, arms=arms, fat_mm=8.0)
        hu, _ = draw(posed, 0.4, fov_mm=700)
        widths[arms] = (hu > -200).any(axis=0).sum()
    assert widths["down"] > widths["up"] + 20


def test_breasts_lie_in_front_of_the_chest(patient: PatientAnatomy, draw: Draw) -> None:
    areas = [
        (draw(dataclasses.replace(patient, breast=size), 0.42)[0] > -300).sum() for size in (0, 1.5)
    ]
    assert areas[1] > areas[0] + 300


def test_gas_under_the_skin_is_not_in_the_mask(patient: PatientAnatomy, draw: Draw) -> None:
    plain_hu, plain = draw(patient, 0.6)
    hu, mask = draw(dataclasses.replace(patient, air_under_skin=1.0), 0.6)
    gas = (hu < -700) & (plain_hu > -300)
    assert gas.sum() > 30
    np.testing.assert_array_equal(mask, plain)


def test_implant_is_brighter_than_bone(patient: PatientAnatomy, scan: ScanSettings) -> None:
    rods = np.array([[15, -45, 4, METAL_HU, 0.1, 0.9]], np.float32)
    tubes = np.array([[8, -88, 5, 0.1, 0.9]], np.float32)
    wires = np.array([[20, 15, 2, 250]], np.float32)
    devices = dataclasses.replace(patient.devices, rods=rods, tubes=tubes, skin_wires=wires)
    patient = dataclasses.replace(patient, devices=devices, breast=0.0)
    canvas, section = _cut(patient, scan, level=0.5)
    paint_body(canvas, section)
    before = canvas.hu.copy()
    paint_devices(canvas, section)
    column, row = canvas.pixel(15.0, -45.0)
    assert canvas.hu[int(row), int(column)] > 3000
    column, row = canvas.pixel(8.0, -88.0)
    assert canvas.hu[int(row), int(column)] < -500
    assert (canvas.hu - before)[before < -800].max() > 500


def test_skull_is_a_ring_of_bone_around_brain(patient: PatientAnatomy, scan: ScanSettings) -> None:
    image, mask = draw_slice(
        patient, scan, z=BRAIN_Z + 0.01, image_size=210, rng=np.random.default_rng(0)
    )
    hu = image.astype(float) * 2000 / 255 - 1000
    assert not mask.any()
    row = hu[100, 60:150]
    bone = np.flatnonzero(row > 250)
    assert len(bone) > 0
    assert np.ptp(bone) > 50
    assert np.median(row[bone.min() + 8 : bone.max() - 7]) == pytest.approx(32, abs=30)
