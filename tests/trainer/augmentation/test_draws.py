import numpy as np
import pytest

from tests.trainer.augmentation.draws_of import draws_of


def share_of(chosen: np.ndarray) -> float:
    return float(chosen.mean())


def test_same_seed_gives_same_draws():
    first, second = draws_of(num_slices=20), draws_of(num_slices=20)
    other = draws_of(num_slices=20, seed=1)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not np.array_equal(first["noise_seed"], other["noise_seed"])


def test_draws_of_one_kind_do_not_change_when_another_is_turned_on():
    plain = draws_of(rotation_degrees=20.0)
    assert np.array_equal(draws_of(rotation_degrees=20.0, couch=0.5)["angle"], plain["angle"])


def test_nothing_is_drawn_that_the_configuration_has_not():
    drawn = draws_of()
    assert not any(value.any() for name, value in drawn.items() if name.startswith(("is_", "has_")))
    for name in ("x_sign", "y_sign", "x_magnify", "y_magnify", "contrast", "exponent"):
        assert (drawn[name] == 1).all(), name
    for name in ("angle", "x_shift", "y_shift", "brightness", "window_distance"):
        assert (drawn[name] == 0).all(), name


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("crop_to_body", "is_cropped"),
        ("background_removal", "is_background_removed"),
        ("couch", "has_couch"),
        ("gantry_circle", "has_circle"),
        ("local_contrast", "is_equalized"),
        ("invert", "is_inverted"),
    ],
)
def test_share_is_the_share_of_slices(setting, name):
    assert share_of(draws_of(**{setting: 0.3})[name]) == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize(
    ("setting", "name", "share"),
    [
        ("elastic", "is_elastic", 1 / 5),
        ("low_resolution", "is_coarse", 1 / 3),
        ("blur", "is_blurred", 1 / 3),
        ("sharpen", "is_sharpened", 1 / 3),
        ("noise", "is_noisy", 1 / 2),
    ],
)
def test_strength_is_for_a_fixed_share_of_slices(setting, name, share):
    assert share_of(draws_of(**{setting: 0.5})[name]) == pytest.approx(share, abs=0.05)


def test_flips_are_drawn_for_a_half_and_a_quarter_of_the_slices():
    horizontal = draws_of(flip="horizontal")
    assert share_of(horizontal["x_sign"] < 0) == pytest.approx(0.5, abs=0.05)
    assert (horizontal["y_sign"] == 1).all()
    both = draws_of(flip="horizontal_and_vertical")
    assert share_of(both["x_sign"] < 0) == pytest.approx(0.5, abs=0.05)
    assert share_of(both["y_sign"] < 0) == pytest.approx(0.25, abs=0.04)
    assert abs(np.corrcoef(both["x_sign"], both["y_sign"])[0, 1]) < 0.1


def test_angles_fill_the_range_to_both_sides():
    degrees = np.degrees(draws_of(rotation_degrees=30.0)["angle"])
    assert (degrees.min(), degrees.max()) == pytest.approx((-30, 30), abs=0.3)
    assert abs(degrees.mean()) < 2


def test_quarter_turn_adds_90_degrees():
    degrees = np.degrees(draws_of(quarter_turns=0.25)["angle"])
    assert set(np.round(degrees)) == {0, 90}
    assert share_of(degrees > 45) == pytest.approx(0.25, abs=0.04)


def test_magnification_reaches_both_fields_of_view_evenly_in_its_logarithm():
    drawn = draws_of(magnify=1.0, shrink=1.0)
    factor = drawn["x_magnify"]
    assert np.array_equal(factor, drawn["y_magnify"])
    assert (factor.min(), factor.max()) == pytest.approx((0.5, 2.0), abs=0.01)
    assert share_of(factor < 1) == pytest.approx(0.5, abs=0.05)


def test_stretch_changes_the_ratio_and_keeps_the_area():
    drawn = draws_of(stretch=0.21)
    ratio = drawn["x_magnify"] / drawn["y_magnify"]
    assert (ratio.min(), ratio.max()) == pytest.approx((1 / 1.21, 1.21), abs=0.01)
    np.testing.assert_allclose(drawn["x_magnify"] * drawn["y_magnify"], 1, rtol=1e-5)


@pytest.mark.parametrize(("name", "most"), [("contrast", 0.25), ("exponent", 0.5)])
def test_factor_reaches_its_ends(name, most):
    setting = "gamma" if name == "exponent" else name
    factor = draws_of(**{setting: most})[name]
    assert (factor.min(), factor.max()) == pytest.approx((1 / (1 + most), 1 + most), abs=0.01)


def test_noise_is_weak_more_often_than_strong():
    deviations = draws_of(noise=20.0)["noise"]
    assert deviations.max() == pytest.approx(20, abs=0.3)
    assert share_of(deviations < 5) == pytest.approx(0.5, abs=0.05)


def test_windows_always_show_air_and_soft_tissue_apart():
    drawn = draws_of(window=1.0)
    low, high = drawn["window_low"], drawn["window_high"]
    assert (low.min(), low.max()) == pytest.approx((-1, 0.88), abs=0.02)
    assert (high > 0.59).all()
    assert ((high - low) > 0.24).all()
    assert share_of(low > 0.7) == pytest.approx(0.25, abs=0.05)  # soft tissue
    assert share_of(drawn["window_distance"] > 0) == pytest.approx(2 / 3, abs=0.05)


def test_elastic_shifts_have_the_deviation_that_is_given_at_most():
    nodes = draws_of(elastic=0.02)["nodes"]
    # Of deviations that are uniform from 0 to 0.02: the mean square is a third of the largest.
    assert nodes.std() == pytest.approx(0.02 / np.sqrt(3), rel=0.05)
