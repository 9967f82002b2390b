"""What belongs to the lung, and what does not; densities are in Hounsfield units."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from preprocessing.phantoms.anatomy import HILUM_LEVEL
from preprocessing.phantoms.lung_anatomy import Pleura, sample_lungs
from preprocessing.phantoms.patient import PatientAnatomy

Draw = Callable[..., tuple[np.ndarray, np.ndarray]]
Change = Callable[..., PatientAnatomy]

LEVEL = 0.65
"""Above heart and diaphragm."""


def _dense(hu: np.ndarray, mask: np.ndarray) -> float:
    """Gives the share of the mask that is denser than any lung with air in it."""
    return float((hu[mask == 1] > -100).mean())


def test_healthy_lungs_are_dark_with_bright_vessels_inside(
    patient: PatientAnatomy, draw: Draw
) -> None:
    hu, mask = draw(patient, LEVEL)
    assert -900 < np.median(hu[mask == 1]) < -750
    inside = ndimage.binary_erosion(mask, iterations=4)
    assert 0.01 < (hu[inside] > -400).mean() < 0.15


def test_both_lungs_have_about_the_same_size(patient: PatientAnatomy, draw: Draw) -> None:
    _, mask = draw(patient, LEVEL)
    assert mask[:, :105].sum() == pytest.approx(mask[:, 105:].sum(), rel=0.25)


def test_missing_lung_leaves_no_mask_on_its_side(patient: PatientAnatomy, draw: Draw) -> None:
    right, left = patient.lungs
    lungs = dataclasses.replace(right, present=False), left
    hu, mask = draw(dataclasses.replace(patient, lungs=lungs), LEVEL)
    assert mask[:, :95].sum() == 0
    assert mask[:, 115:].sum() > 500
    assert hu[90:110, 50:80].min() > -200


@pytest.mark.parametrize("lobe", ["upper", "lower"])
def test_consolidated_lobe_is_dense_and_in_the_mask(
    patient: PatientAnatomy, with_lungs: Change, draw: Draw, lobe: str
) -> None:
    _, healthy = draw(patient, LEVEL)
    hu, mask = draw(with_lungs(patient, disease={"dense_lobe": lobe, "dense_hu": 40.0}), LEVEL)
    assert _dense(hu, mask) > 0.13
    np.testing.assert_array_equal(mask, healthy)


@pytest.mark.parametrize(
    ("fields", "quantile", "denser_than"),
    [
        ({"haze": 0.9, "haze_hu": -450.0}, 50, -600),
        ({"haze": 1.0, "haze_hu": 30.0, "haze_at_pleura": True}, 75, -300),
        ({"settled_mm": 50.0, "settled_hu": 20.0}, 85, -100),
        ({"fibrosis": 1.0}, 85, -700),
    ],
)
def test_disease_makes_lung_denser_and_stays_in_the_mask(
    patient: PatientAnatomy,
    with_lungs: Change,
    draw: Draw,
    fields: dict[str, float],
    quantile: int,
    denser_than: float,
) -> None:
    healthy_hu, healthy = draw(patient, LEVEL)
    hu, mask = draw(with_lungs(patient, disease=fields), LEVEL)
    np.testing.assert_array_equal(mask, healthy)
    values = np.percentile(hu[mask == 1], quantile)
    assert values > denser_than
    assert values > np.percentile(healthy_hu[mask == 1], quantile) + 50


def test_settled_layer_is_at_the_back(
    patient: PatientAnatomy, with_lungs: Change, draw: Draw
) -> None:
    ill = with_lungs(patient, disease={"settled_mm": 30.0, "settled_hu": 20.0})
    hu, mask = draw(ill, LEVEL)
    rows = np.nonzero((mask == 1) & (hu > -100))[0]
    assert np.median(rows) > np.nonzero(mask)[0].mean() + 10


def test_emphysema_makes_holes_of_air(
    patient: PatientAnatomy, with_lungs: Change, draw: Draw
) -> None:
    healthy_hu, mask = draw(patient, LEVEL)
    hu, ill_mask = draw(with_lungs(patient, disease={"emphysema": 0.5}), LEVEL)
    np.testing.assert_array_equal(mask, ill_mask)
    assert (healthy_hu[mask == 1] < -950).mean() < 0.05
    assert (hu[mask == 1] < -950).mean() > 0.15


def test_tumor_at_the_pleura_is_in_the_mask(
    patient: PatientAnatomy, with_lungs: Change, draw: Draw
) -> None:
    _, healthy = draw(patient, LEVEL)
    z_mm = (LEVEL - HILUM_LEVEL) * patient.lung_height_mm
    tumor = np.array([[105, -110, z_mm, 20, 20, 20, 45, 1]], np.float32)
    hu, mask = draw(with_lungs(patient, disease={"lesions": tumor}), LEVEL)
    np.testing.assert_array_equal(mask, healthy)
    # A circle of 20 mm radius, some of it beyond the pleura, in pixels of 4 square millimeters.
    assert 100 < (hu[mask == 1] > -100).sum() < 450


def test_nodule_shows_only_where_the_slice_cuts_it(
    patient: PatientAnatomy, with_lungs: Change, draw: Draw
) -> None:
    plain, _ = draw(patient, LEVEL)
    z_mm = (LEVEL - HILUM_LEVEL) * patient.lung_height_mm
    for offset_mm, seen in ((0, True), (12, False)):
        nodule = np.array([[70, -110, z_mm + offset_mm, 8, 8, 8, 45, 1]], np.float32)
        hu, _ = draw(with_lungs(patient, disease={"lesions": nodule}), LEVEL)
        assert (np.abs(hu - plain).max() > 400) == seen


def test_effusion_is_dense_lies_at_the_back_and_is_not_in_the_mask(
    patient: PatientAnatomy, with_lungs: Change, draw: Draw
) -> None:
    _, healthy = draw(patient, LEVEL)
    fluid = Pleura(thickness_mm=40, begin=0.0, top_level=1.3, hu=10)
    hu, mask = draw(with_lungs(patient, pleura=fluid), LEVEL)
    lost = ndimage.binary_erosion((healthy == 1) & (mask == 0), iterations=2)
    assert lost.sum() > 150
    assert np.median(hu[lost]) == pytest.approx(10, abs=12)
    assert np.nonzero(lost)[0].mean() > np.nonzero(mask)[0].mean() + 10
    assert ((mask == 1) & (healthy == 0)).sum() == 0


def test_lung_pressed_by_fluid_is_dense_and_in_the_mask(
    patient: PatientAnatomy, with_lungs: Change, draw: Draw
) -> None:
    fluid = Pleura(thickness_mm=40, begin=0.0, top_level=1.3, hu=10)
    hu, mask = draw(with_lungs(patient, pleura=fluid), LEVEL)
    healthy_hu, healthy = draw(patient, LEVEL)
    dense, healthy_dense = (hu[mask == 1] > -500).mean(), (healthy_hu[healthy == 1] > -500).mean()
    assert dense > healthy_dense + 0.04


def test_gas_of_a_pneumothorax_is_in_front_and_not_in_the_mask(
    patient: PatientAnatomy, with_lungs: Change, draw: Draw
) -> None:
    _, healthy = draw(patient, LEVEL)
    gas = Pleura(thickness_mm=30, facing=-1, begin=0.0, top_level=1.3, hu=-1000)
    hu, mask = draw(with_lungs(patient, pleura=gas), LEVEL)
    lost = ndimage.binary_erosion((healthy == 1) & (mask == 0), iterations=2)
    assert lost.sum() > 100
    assert np.median(hu[lost]) < -980
    assert np.nonzero(lost)[0].mean() < np.nonzero(mask)[0].mean() - 10


def test_fluid_ends_at_its_top(patient: PatientAnatomy, with_lungs: Change, draw: Draw) -> None:
    fluid = Pleura(thickness_mm=40, begin=0.0, top_level=0.6, hu=10)
    ill = with_lungs(patient, pleura=fluid)
    assert (draw(ill, LEVEL)[1] == draw(patient, LEVEL)[1]).all()
    assert draw(ill, 0.4)[1].sum() < draw(patient, 0.4)[1].sum()


def test_fissure_shows_as_a_faint_line(
    patient: PatientAnatomy, with_lungs: Change, draw: Draw
) -> None:
    shown, mask = draw(with_lungs(patient, fissure_strength=1.0), LEVEL)
    hidden, other_mask = draw(with_lungs(patient, fissure_strength=0.0), LEVEL)
    np.testing.assert_array_equal(mask, other_mask)
    line = (shown - hidden)[mask == 1]
    # About as long as the lungs are wide, and a pixel or two wide.
    assert 60 < (line > 60).sum() < 600
    assert line.min() > -60


def test_usual_lungs_are_healthy_and_wide_ones_often_not() -> None:
    counts = {}
    for variety in ("usual", "wide"):
        lungs = [
            lung
            for seed in range(300)
            for lung in sample_lungs(
                np.random.default_rng(seed), variety=variety, lung_height_mm=250
            )
        ]
        counts[variety] = {
            "missing": sum(not lung.present for lung in lungs),
            "fluid": sum(lung.pleura.thickness_mm > 0 for lung in lungs),
            "dense": sum(bool(lung.disease.dense_lobe) for lung in lungs),
            "haze": sum(lung.disease.haze > 0 for lung in lungs),
        }
    assert set(counts["usual"].values()) == {0}
    assert 5 <= counts["wide"]["missing"] <= 25
    assert 60 <= counts["wide"]["fluid"] <= 180
    assert 15 <= counts["wide"]["dense"] <= 70
    assert 50 <= counts["wide"]["haze"] <= 140


def test_one_lung_at_most_is_missing() -> None:
    for seed in range(300):
        right, left = sample_lungs(np.random.default_rng(seed), variety="wide", lung_height_mm=250)
        assert right.present or left.present


def test_apex_is_gray_in_a_thick_slice_and_dark_in_a_thin_one(
    patient: PatientAnatomy, draw: Draw
) -> None:
    (thin, in_thin), (thick, in_thick) = (
        draw(patient, 0.997, slice_mm=slice_mm) for slice_mm in (0.8, 10.0)
    )
    assert in_thin.any()
    assert in_thick.any()
    assert thin[in_thin > 0].min() < -650
    assert np.median(thick[in_thick > 0]) > np.median(thin[in_thin > 0]) + 100


def test_outline_below_the_apex_does_not_depend_on_the_dome(
    patient: PatientAnatomy, draw: Draw
) -> None:
    thin, thick = (draw(patient, 0.7, slice_mm=slice_mm)[1] for slice_mm in (0.8, 10.0))
    assert int(thick.sum()) == pytest.approx(int(thin.sum()), rel=0.08)
