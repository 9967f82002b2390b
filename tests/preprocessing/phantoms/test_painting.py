"""Slices as a whole: what is where, and which way round."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from preprocessing.phantoms.abdomen import paint_abdomen
from preprocessing.phantoms.anatomy import LEVELS, PROFILES, stretched_profiles
from preprocessing.phantoms.canvas import Canvas
from preprocessing.phantoms.lungs import paint_lungs
from preprocessing.phantoms.painting import draw_slice
from preprocessing.phantoms.patient import PatientAnatomy, sample_patient
from preprocessing.phantoms.scanner import ScanSettings, pose, sample_scan
from preprocessing.phantoms.section import Section, cut_section

SIZE = 128
NO_WARP = np.zeros((2, 7, 7), np.float32)

Draw = Callable[..., tuple[np.ndarray, np.ndarray]]


def _draw(seed: int, z: float, image_size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    patient = sample_patient(rng)
    scan = sample_scan(rng, patient=patient)
    return draw_slice(patient, scan, z=z, image_size=image_size, rng=np.random.default_rng(9))


def _cut(patient: PatientAnatomy, scan: ScanSettings, *, level: float) -> tuple[Canvas, Section]:
    canvas = Canvas(grid=scan.grid(SIZE), pose=pose(patient), warp_mm=NO_WARP)
    z = patient.base_z + level * (patient.apex_z - patient.base_z)
    return canvas, cut_section(canvas, patient, z=z, rng=np.random.default_rng(0))


def test_length_is_interpolated_between_levels(patient: PatientAnatomy) -> None:
    at = {level: patient.length("lung_x", level) for level in (0.5, 0.625, 0.75)}
    assert at[0.625] == pytest.approx((at[0.5] + at[0.75]) / 2)
    assert patient.length("lung_x", 7.0) == patient.length("lung_x", LEVELS[-1])


@pytest.mark.parametrize("variety", ["usual", "wide"])
def test_ribs_and_muscles_fit_between_lungs_and_skin(variety: Any) -> None:
    for seed in range(100):
        profiles = stretched_profiles(np.random.default_rng(seed), variety=variety)
        assert profiles.keys() == PROFILES.keys()
        for axis in ("half_width", "half_depth"):
            room = profiles[f"body_{axis}"] - profiles[f"cavity_{axis}"]
            assert room.min() > 7, f"patient {seed}: {axis} {room}"


@pytest.mark.parametrize("image_size", [64, 101])
def test_slice_has_the_asked_size_and_a_binary_mask(image_size: int) -> None:
    image, mask = _draw(seed=1, z=0.5, image_size=image_size)
    assert image.shape == mask.shape == (image_size, image_size)
    assert image.dtype == mask.dtype == np.uint8
    assert np.unique(mask).tolist() == [0, 1]


def test_ends_of_every_patient_show_no_lung_and_the_middle_shows_both() -> None:
    for seed in range(12):
        for z in (-0.1, 0.0, 1.0, 1.1, 1.2):
            assert not _draw(seed, z)[1].any(), f"lung at {z} of patient {seed}"
        _, mask = _draw(seed, z=0.55)
        halves = mask[:, : SIZE // 2].mean(), mask[:, SIZE // 2 :].mean()
        assert min(halves) > 0.02, f"a lung of patient {seed} is missing: {halves}"


def test_lungs_are_small_at_both_ends_and_large_in_the_middle() -> None:
    for seed in range(5):
        patient = sample_patient(np.random.default_rng(seed))
        span = patient.apex_z - patient.base_z
        base, middle, apex = (
            _draw(seed, z=patient.base_z + share * span)[1].sum() for share in (0.08, 0.6, 0.96)
        )
        assert 0 < base < middle / 3
        assert 0 < apex < middle / 3


def test_right_of_the_patient_is_on_the_left_of_the_image(
    patient: PatientAnatomy, scan: ScanSettings
) -> None:
    right, left = patient.abdomen.domes
    domes = (
        dataclasses.replace(right, top_level=0.45),
        dataclasses.replace(left, top_level=0.3),
    )
    patient = dataclasses.replace(
        patient, abdomen=dataclasses.replace(patient.abdomen, domes=domes, left_lobe=0.0)
    )
    # At this level only the right half of the diaphragm, with the liver under it, is cut.
    canvas, section = _cut(patient, scan, level=0.4)
    paint_lungs(canvas, section)
    middle = round(canvas.pixel(0.0, 0.0)[0])
    left_of_image, right_of_image = canvas.lung[:, :middle].sum(), canvas.lung[:, middle:].sum()
    paint_abdomen(canvas, section)
    assert canvas.lung[:, :middle].sum() < 0.85 * left_of_image
    assert canvas.lung[:, middle:].sum() == pytest.approx(right_of_image, rel=0.01)


def test_no_threshold_on_gray_values_finds_the_lungs() -> None:
    """Air around the body and in the windpipe is as dark as lung."""
    image, mask = _draw(seed=3, z=0.5)
    assert (mask == 1).any()
    best = max(
        2 * ((image < t) & (mask == 1)).sum() / ((image < t).sum() + mask.sum())
        for t in range(1, 256)
    )
    assert best < 0.6


def test_outside_of_the_gantry_circle_is_no_mask(patient: PatientAnatomy, draw: Draw) -> None:
    hu, mask = draw(patient, 0.6, fov_mm=220, gantry_radius=0.8, outside_hu=-3024)
    assert mask.any()
    axis = (np.arange(210) + 0.5) / 105 - 1
    outside = axis[None] ** 2 + axis[:, None] ** 2 > 0.8**2
    assert not mask[outside].any()
    assert (hu[outside] == -1000).all()


def test_noise_is_drawn_anew_for_each_generator() -> None:
    patient = sample_patient(np.random.default_rng(2))
    scan = sample_scan(np.random.default_rng(2), patient=patient)
    images = [
        draw_slice(patient, scan, z=0.5, image_size=64, rng=np.random.default_rng(seed))[0]
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(images[0], images[1])
    assert (images[0] != images[2]).mean() > 0.1
