import numpy as np
import pytest
from scipy import stats

from trainer.evaluation.intervals import bootstrap_intervals, describe_intervals


def ratio(row: np.ndarray) -> dict[str, float | None]:
    return {"ratio": row[0] / row[1] if row[1] else None}


def rows_of(*pairs: tuple[float, float]) -> list[np.ndarray]:
    return [np.array(pair, float) for pair in pairs]


def test_interval_of_two_patients_reaches_from_one_to_the_other():
    # One draw in four is the first patient twice, and one in four the second.
    assert bootstrap_intervals(rows_of((1, 10), (9, 10)), ratio) == {"ratio": [0.1, 0.9]}


def test_patients_that_are_alike_give_an_interval_of_no_width():
    assert bootstrap_intervals(rows_of((1, 2), (1, 2), (1, 2)), ratio) == {"ratio": [0.5, 0.5]}


def test_totals_are_added_before_they_are_divided():
    # A patient of 98 slices weighs more than one of 2: of the draws, those of both give 0.02.
    low, high = bootstrap_intervals(rows_of((0, 98), (2, 2)), ratio)["ratio"]
    assert (low, high) == (0, 1)


def test_interval_is_that_of_scipy():
    values = np.random.default_rng(3).normal(0.9, 0.05, 30)
    low, high = bootstrap_intervals([np.array([value, 1]) for value in values], ratio)["ratio"]
    expected = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=2000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=3e-3)


def test_same_patients_give_the_same_interval():
    rows = rows_of((1, 3), (2, 3), (1, 7))
    assert bootstrap_intervals(rows, ratio) == bootstrap_intervals(rows, ratio)


def test_draws_in_which_a_metric_is_undefined_are_left_out():
    assert bootstrap_intervals(rows_of((0, 0), (3, 4)), ratio) == {"ratio": [0.75, 0.75]}
    assert bootstrap_intervals(rows_of((0, 0), (0, 0)), ratio) == {"ratio": None}


def test_one_patient_is_too_few():
    with pytest.raises(ValueError, match="received 1 patients; expected at least 2"):
        bootstrap_intervals(rows_of((1, 2)), ratio)


@pytest.mark.parametrize(
    ("rows", "unknown", "reason", "num_patients"),
    [
        ({"anna": (1, 2)}, "", "all slices are of one patient, who tells nothing about", 1),
        ({"": (1, 2)}, "no name tells it", "no patients to draw from: no name tells it", 0),
        ({"": (1, 2), "anna": (1, 2)}, "", "no patients to draw from: some slices tell none", 1),
    ],
)
def test_where_there_is_no_interval_the_reason_is_told(rows, unknown, reason, num_patients):
    rows = {name: np.array(row, float) for name, row in rows.items()}
    described = describe_intervals(rows, ratio, patients_unknown=unknown)
    assert described["by_metric"] is None
    assert described["num_patients"] == num_patients
    assert reason in described["reason"]


def test_intervals_say_how_they_were_made():
    rows = {name: np.array([1.0, 2.0]) for name in ("anna", "bela")}
    assert describe_intervals(rows, ratio, patients_unknown="") == {
        "method": "bootstrap over patients, percentiles",
        "level": 0.95,
        "num_resamples": 2000,
        "seed": 0,
        "num_patients": 2,
        "by_metric": {"ratio": [0.5, 0.5]},
        "reason": None,
    }
