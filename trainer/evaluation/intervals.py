"""How sure the figures are: bootstrap intervals over patients."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
NUM_RESAMPLES = 2000
SEED = 0
MIN_PATIENTS = 2

Interval = list[float] | None
"""Lower and upper end; ``None`` where the metric is undefined."""


def bootstrap_intervals(
    rows: Sequence[npt.NDArray[np.float64]],
    summarize: Callable[[npt.NDArray[np.float64]], Mapping[str, float | None]],
) -> dict[str, Interval]:
    """Computes how far metrics would vary with other patients of the same kind.

    Patients are drawn with replacement, as many as there are, each with all slices: slices of one
    patient are alike, and drawing them one by one would give intervals that are far too narrow. The
    interval is that between the 2.5th and the 97.5th percentile of what the draws give.

    Args:
        rows: [entries] totals of each patient, at least two of them.
        summarize: makes metrics out of a sum of rows.

    Returns:
        The interval of each metric, over the draws in which it is defined.

    Raises:
        ValueError: if there are fewer than two patients.

    Source: Efron, Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    if len(rows) < MIN_PATIENTS:
        raise ValueError(f"received {len(rows)} patients; expected at least {MIN_PATIENTS}")
    totals = np.stack(rows)
    rng = np.random.default_rng(SEED)
    drawn: dict[str, list[float]] = {}
    for _ in range(NUM_RESAMPLES):
        chosen = rng.integers(len(rows), size=len(rows))
        for name, value in summarize(totals[chosen].sum(axis=0)).items():
            drawn.setdefault(name, []).extend([] if value is None else [value])
    tail = 100 * (1 - LEVEL) / 2
    return {
        name: [float(end) for end in np.percentile(values, [tail, 100 - tail])] if values else None
        for name, values in drawn.items()
    }


def describe_intervals(
    rows: Mapping[str, npt.NDArray[np.float64]],
    summarize: Callable[[npt.NDArray[np.float64]], Mapping[str, float | None]],
    *,
    patients_unknown: str,
) -> dict[str, object]:
    """Gives the part of ``evaluation.json`` about intervals, or the reason why there are none.

    Args:
        rows: totals by ``patient_id``.
        summarize: makes metrics out of a sum of rows.
        patients_unknown: why it is not known whose slices they are; empty if it is.
    """
    method = {
        "method": "bootstrap over patients, percentiles",
        "level": LEVEL,
        "num_resamples": NUM_RESAMPLES,
        "seed": SEED,
    }
    if patients_unknown or "" in rows:
        reason = f"no patients to draw from: {patients_unknown or 'some slices tell none'}"
    elif len(rows) < MIN_PATIENTS:
        reason = "all slices are of one patient, who tells nothing about how patients differ"
    else:
        by_metric = bootstrap_intervals(list(rows.values()), summarize)
        return {**method, "num_patients": len(rows), "by_metric": by_metric, "reason": None}
    num_patients = len(rows.keys() - {""})
    return {**method, "num_patients": num_patients, "by_metric": None, "reason": reason}
