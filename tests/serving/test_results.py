import csv
import json
from pathlib import Path

import pytest

from serving.results import SliceResult, Summary, percentile, write_summary


def made(name: str, milliseconds: float) -> SliceResult:
    return SliceResult(
        file=name,
        height=2,
        width=4,
        lung_area_px=2,
        lung_fraction=0.25,
        milliseconds=milliseconds,
    )


SUMMARY = Summary(
    results=[made("a", 10.0), made("b, c", 30.0), SliceResult(file="d", error="d is broken")],
    seconds=0.5,
)


def test_figures_count_masks_only() -> None:
    assert SUMMARY.figures() == {
        "num_masks": 2,
        "num_finished_before": 0,
        "num_failed": 1,
        "slices_per_s": 4.0,
        "median_ms": 20.0,
        "p95_ms": 30.0,
    }


def test_text_says_counts_and_times() -> None:
    assert SUMMARY.to_text() == (
        "2 masks in 0.5 s (4.0 slices/s), answers in 20.0 ms (median) and 30.0 ms (p95)\n"
        "1 slice failed; each reason stands above"
    )


def test_text_without_a_mask_has_no_times() -> None:
    summary = Summary(results=[SliceResult(file="d", error="broken")], seconds=1.0)
    assert summary.to_text().startswith("0 masks in 1.0 s\n")
    assert summary.figures()["median_ms"] is None


@pytest.mark.parametrize(("share", "expected"), [(0.95, 19), (0.05, 1), (1.0, 20), (0.001, 1)])
def test_percentile_is_the_nearest_rank(share: float, expected: int) -> None:
    assert percentile(list(range(1, 21)), share) == expected


def test_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="percentile of no values"):
        percentile([], 0.5)


def test_table_and_document_hold_each_slice(tmp_path: Path) -> None:
    write_summary(tmp_path / "new", SUMMARY, options={"target": "localhost:1"})
    with (tmp_path / "new" / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["a", "b, c", "d"]
    assert rows[0]["lung_area_px"] == "2"
    assert rows[2]["milliseconds"] == ""
    assert rows[2]["error"] == "d is broken"
    document = json.loads((tmp_path / "new" / "summary.json").read_text())
    assert document["options"] == {"target": "localhost:1"}
    assert document["num_failed"] == 1
    assert document["slices"][1]["lung_fraction"] == 0.25


def test_run_whose_masks_are_all_empty_asks_what_is_wrong() -> None:
    empty = SliceResult(file="a", lung_area_px=0, milliseconds=1.0)
    found = SliceResult(file="b", lung_area_px=3, milliseconds=1.0)
    question = "no mask shows any lung: is the model trained"
    assert question in Summary(results=[empty, empty], seconds=1.0).to_text()
    assert question not in Summary(results=[empty, found], seconds=1.0).to_text()
