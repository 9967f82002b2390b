import dataclasses

import numpy as np
import pytest

from preprocessing.phantoms.acquisition import (
    METAL_LIMIT_HU,
    SCANNER_MAX_HU,
    acquire,
    to_gray_values,
)
from preprocessing.phantoms.canvas import AIR_HU
from preprocessing.phantoms.couch import Couch, add_blanket, add_couch
from preprocessing.phantoms.patient import sample_patient
from preprocessing.phantoms.scanner import ScanSettings, sample_scan

SIZE = 256


def _acquire(hu: np.ndarray, scan: ScanSettings, seed: int = 0) -> np.ndarray:
    middle = np.zeros_like(hu)
    return acquire(hu, scan, body_distance=middle, rng=np.random.default_rng(seed))


def test_window_maps_its_ends_to_the_gray_range() -> None:
    hu = np.array([-3024, -1350, -1000, -600, 150, 3000], np.float32)
    gray_values = to_gray_values(hu, low_hu=-1350, high_hu=150)
    # Air: 350 / 1500 * 255 = 59.5, which float32 may round either way.
    assert gray_values[2] in (59, 60)
    assert gray_values.dtype == np.uint8
    assert gray_values[[0, 1, 3, 4, 5]].tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("sharpening", [0.0, 1.5])
def test_noise_has_the_asked_deviation_and_blur_does_not_wrap_around(
    scan: ScanSettings, sharpening: float
) -> None:
    scan = dataclasses.replace(
        scan,
        fov_mm=100.0,
        blur_mm=0.6,
        noise_hu=20.0,
        sharpening=sharpening,
        window_low_hu=-500.0,
        window_high_hu=500.0,
    )
    hu = np.zeros((SIZE, SIZE), np.float32)
    hu[:, -1] = 2000
    image = _acquire(hu, scan)
    # 0 HU is gray value 127.5, and 1,000 HU are 255 gray values.
    assert image[:, :128].mean() == pytest.approx(127.5, abs=0.3)
    assert image[:, 0].mean() == pytest.approx(127.5, abs=1)
    assert image[:, :128].std() * 1000 / 255 == pytest.approx(20, rel=0.05)


def test_sharp_kernel_overshoots_at_an_edge_and_a_smooth_one_does_not(scan: ScanSettings) -> None:
    hu = np.zeros((SIZE, SIZE), np.float32)
    hu[:, 128:] = 500
    smooth = _acquire(hu.copy(), dataclasses.replace(scan, blur_mm=1.2))
    sharp = _acquire(hu.copy(), dataclasses.replace(scan, blur_mm=1.2, sharpening=1.8))
    assert smooth.max() == smooth[0, 200]
    assert sharp.max() > sharp[0, 200] + 3


def test_streaks_run_along_rows(scan: ScanSettings) -> None:
    image = _acquire(np.zeros((SIZE, SIZE), np.float32), dataclasses.replace(scan, streaks_hu=60))
    values = image.astype(float)
    assert np.abs(np.diff(values, axis=0)).mean() > 5 * np.abs(np.diff(values, axis=1)).mean()


def test_metal_throws_streaks_and_ends_at_what_scanners_show(scan: ScanSettings) -> None:
    hu = np.zeros((SIZE, SIZE), np.float32)
    plain = _acquire(hu.copy(), scan)
    assert np.ptp(plain) <= 1
    hu[100:104, 120:124] = METAL_LIMIT_HU * 2
    image = _acquire(hu, scan)
    assert hu.max() <= SCANNER_MAX_HU
    assert image[95:109, 90:150].std() > 2


def test_outside_of_the_gantry_circle_is_one_density(scan: ScanSettings) -> None:
    scan = dataclasses.replace(scan, gantry_radius=0.9, outside_hu=0.0)
    image = _acquire(np.full((SIZE, SIZE), 700, np.float32), scan)
    assert image[0, 0] == image[-1, -1] == image[128, 2] == 128
    assert image[128, 128] > 200


def test_fitted_window_shows_all_densities_of_a_slice(scan: ScanSettings) -> None:
    hu = np.tile(np.linspace(-400, 300, SIZE, dtype=np.float32), (SIZE, 1))
    image = _acquire(hu, dataclasses.replace(scan, fit_window=True))
    assert (image.min(), image.max()) == (0, 255)


@pytest.mark.parametrize("kind", ["flat", "curved", "box"])
def test_couch_is_beneath_the_patient_and_covers_nothing(
    scan: ScanSettings, no_couch: Couch, kind: str
) -> None:
    grid = scan.grid(SIZE)
    top = round((scan.fov_mm / 2 - scan.center_y_mm) / grid.pixel_mm)
    hu = np.full((SIZE, SIZE), AIR_HU, np.float32)
    hu[:, 128] = 40
    add_couch(hu, dataclasses.replace(no_couch, kind=kind, hu=300), grid=grid)
    assert (hu[: top - 1, :128] == AIR_HU).all()
    assert hu[top:, :128].max() > 50
    assert (hu[:, 128] >= 40).all()


def test_pad_lies_between_patient_and_couch(scan: ScanSettings, no_couch: Couch) -> None:
    grid = scan.grid(SIZE)
    hu = np.full((SIZE, SIZE), AIR_HU, np.float32)
    add_couch(hu, dataclasses.replace(no_couch, kind="box", hu=300, pad_mm=30), grid=grid)
    column = hu[:, 128]
    assert np.argmax(column > -960) < np.argmax(column > 0) - 15


def test_blanket_lies_above_the_patient(no_couch: Couch) -> None:
    hu = np.full((64, 64), AIR_HU, np.float32)
    hu[30:50, 10:50] = 40
    add_blanket(hu, dataclasses.replace(no_couch, blanket_mm=6), pixel_mm=2.0)
    assert (hu[29:30] == AIR_HU).all()
    assert (hu[20:29, 12:48] == -700).any(axis=0).all()
    assert (hu[30:50, 10:50] == 40).all()


def test_wide_scanners_differ_far_more_than_usual_ones() -> None:
    patient = sample_patient(np.random.default_rng(0))
    body_mm = 2 * patient.width_scale * (patient.length("body_half_width", 0.4) + patient.fat_mm)
    spans = {}
    for variety in ("usual", "wide"):
        scans = [
            sample_scan(np.random.default_rng(seed), patient=patient, variety=variety)
            for seed in range(300)
        ]
        spans[variety] = np.array(
            [(body_mm / one.fov_mm, one.window_high_hu, one.noise_hu) for one in scans]
        )
    usual, wide = spans["usual"], spans["wide"]
    assert 0.5 < usual[:, 0].min() < usual[:, 0].max() < 1
    assert 0.34 < wide[:, 0].min() < 0.4
    assert 1.25 < wide[:, 0].max() < 1.31
    assert usual[:, 1].max() < 250
    assert wide[:, 1].max() > 2500
    assert wide[:, 2].max() > 90
