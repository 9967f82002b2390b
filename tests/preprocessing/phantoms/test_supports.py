"""What holds a patient still; densities are in Hounsfield units."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from preprocessing.phantoms.patient import PatientAnatomy, sample_patient
from preprocessing.phantoms.support_anatomy import Supports, sample_supports

Draw = Callable[..., tuple[np.ndarray, np.ndarray]]

NOTHING = {"mattress_mm": 0.0, "arm_rest_mm": 0.0, "head_rest_mm": 0.0}
NO_CUSHIONS = np.empty((0, 6), np.float32)


def held(patient: PatientAnatomy, **supports: Any) -> PatientAnatomy:
    fields = {"cushions": NO_CUSHIONS, **NOTHING, **supports}
    found = Supports(foam_hu=-880, skin_mm=0, skin_hu=100, mattress_reach_mm=60, **fields)
    return dataclasses.replace(patient, supports=found)


@pytest.mark.parametrize(
    ("level", "arms", "supports"),
    [
        (0.5, "down", {"mattress_mm": 40}),
        (1.1, "up", {"arm_rest_mm": 30}),
        (1.3, "up", {"arm_rest_mm": 30}),
        (1.05, "away", {"head_rest_mm": 50}),
        (1.3, "away", {"head_rest_mm": 50}),
        (0.5, "away", {"cushions": np.array([[190, -60, 20, 30, 0, 2]], np.float32)}),
    ],
)
def test_supports_fill_air_outside_of_the_body_and_are_no_lung(
    patient: PatientAnatomy, draw: Draw, level: float, arms: str, supports: dict[str, Any]
) -> None:
    patient = dataclasses.replace(patient, arms=arms)
    without, mask_without = draw(held(patient), level)
    hu, mask = draw(held(patient, **supports), level)
    changed = np.abs(hu - without) > 60
    assert 200 < changed.sum() < 15_000
    # It was air, and now is as light as lung.
    assert np.median(without[changed]) < -980
    assert -930 < np.median(hu[changed]) < -840
    np.testing.assert_array_equal(mask, mask_without)
    assert not mask[changed].any()


def test_cover_is_denser_than_what_it_holds(patient: PatientAnatomy, draw: Draw) -> None:
    patient = dataclasses.replace(patient, arms="away")
    block = held(patient, head_rest_mm=60)
    covered = dataclasses.replace(
        block, supports=dataclasses.replace(block.supports, skin_mm=4, skin_hu=100)
    )
    foam, _ = draw(block, 1.3)
    hu, _ = draw(covered, 1.3)
    assert 100 < ((hu > -200) & (foam < -700)).sum() < 2000


def test_cushion_lies_at_its_levels_only(patient: PatientAnatomy, draw: Draw) -> None:
    cushions = np.array([[190, -60, 20, 30, 0.4, 0.6]], np.float32)
    for level, is_there in ((0.2, False), (0.5, True), (0.9, False)):
        hu, _ = draw(held(patient, cushions=cushions), level)
        without, _ = draw(held(patient), level)
        assert (np.abs(hu - without) > 60).any() == is_there


def test_usual_patients_have_none_and_wide_ones_differ() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        usual = sample_patient(rng).supports
        assert not usual.mattress_mm
        assert not usual.arm_rest_mm
        assert not usual.head_rest_mm
        assert not len(usual.cushions)
    wide = [sample_supports(rng, variety="wide") for _ in range(400)]
    for share in (
        np.mean([each.mattress_mm > 0 for each in wide]),
        np.mean([each.arm_rest_mm > 0 for each in wide]),
        np.mean([each.head_rest_mm > 0 for each in wide]),
        np.mean([len(each.cushions) > 0 for each in wide]),
    ):
        assert 0.1 < share < 0.4
