from trainer.cross_validation.summary import summarize_reports
from trainer.cross_validation.table import make_tables, number

from .test_summary import ANNA, BELA, report


def content(**settings) -> dict:
    return {
        "recipe": "reference",
        "epochs": 9,
        "flips": "none",
        "postprocess": True,
        "distance_unit": "px",
        "folds_missing": [],
        **summarize_reports([report(anna=ANNA, bela=BELA)]),
        **settings,
    }


def test_table_has_a_line_for_each_patient_their_mean_and_all_slices():
    lines = make_tables(content()).splitlines()
    assert (
        "| anna | 0.7500 | 0.6667 | 0.6349 | 0.4651 | 3.0 | 1.00 | 3.000 | 1 of 1 | 2 | 1 |"
    ) in lines
    (mean,) = [line for line in lines if line.startswith("| mean of patients")]
    assert "| 0.6250 (0.5000 to 0.7500) |" in mean
    assert mean.endswith("| 1 of 2 | 3 | 2 |")
    assert any(line.startswith("| all slices as one |") for line in lines)
    columns = {line.count("|") for line in lines if "anna" in line or "mean of patients" in line}
    assert columns == {12}


def test_table_of_scanners_has_mean_and_worst():
    lines = make_tables(content()).splitlines()
    assert "| same | 0.6250 (0.5000 to 0.7500) | 1.500 |" in lines
    assert "| blind | 0.0000 (0.0000 to 0.0000) | – |" in lines
    assert "| mean of all | 0.3125 (0.2500 to 0.3750) |  |" in lines
    assert "| worst: blind | 0.0000 |  |" in lines


def test_text_says_what_was_measured():
    text = make_tables(content(folds_missing=["cleo", "dora"]))
    assert "last epoch, number 9." in text
    assert "Flips: none; masks are cleaned." in text
    assert "Not run yet: cleo, dora." in text
    assert "not cleaned" in make_tables(content(postprocess=False))


def test_figures_are_written_with_their_interval():
    assert number(None, 3) == "–"
    assert number(0.98765, 3) == "0.988"
    assert number(0.001, 2, factor=100, interval=[0.0, 0.0125]) == "0.10 (0.00 to 1.25)"
