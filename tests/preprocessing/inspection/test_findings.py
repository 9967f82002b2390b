import pytest

from preprocessing.inspection.findings import KINDS, find, judge
from preprocessing.inspection.measures import Measures
from preprocessing.inspection.scan import MeasuredSlice


def sound(**changes) -> Measures:
    figures = {
        "num_pixels": 10_000,
        "lung_area_px": 2_000,
        "border_px": 0,
        "num_parts": 2,
        "num_specks": 0,
        "hole_area_px": 0,
        "num_gray_values": 200,
        "gray_value_mean": 100.0,
        "edge_agreement": 0.99,
    }
    return Measures(**figures | changes)


def texts(measures, **more):
    return {finding.kind.name: finding.text for finding in find(measures, **more)}


def measured(slice_id, *, patient_id="P", **changes):
    return MeasuredSlice(
        slice_id=slice_id,
        patient_id=patient_id,
        split="train",
        shard="s",
        record_index=0,
        measures=sound(**changes),
    )


def names_by_slice(slices):
    judged = judge(slices, gray_value_mean=100.0)
    return {e.entry.slice_id: [finding.kind.name for finding in e.findings] for e in judged}


def test_sound_mask_has_no_finding():
    assert find(sound(), gray_value_mean=100.0, neighbors=(0.19, 0.21)) == ()


@pytest.mark.parametrize(
    ("within", "beyond", "name", "text"),
    [
        ({"edge_agreement": 0.8}, {"edge_agreement": 0.79}, "off the edges", "79 % of the rim"),
        ({"num_gray_values": 3}, {"num_gray_values": 2}, "flat slice", "gray values: 2"),
        ({"lung_area_px": 5000}, {"lung_area_px": 5100}, "huge", "51 % of the slice is lung"),
        ({"border_px": 0}, {"border_px": 1}, "at the border", "1 px of lung"),
        ({"num_parts": 6}, {"num_parts": 7}, "many parts", "7"),
        ({"num_specks": 5}, {"num_specks": 6}, "specks", "6"),
        ({"hole_area_px": 200}, {"hole_area_px": 201}, "holes", "10 % of the lung area"),
        (
            {"gray_value_mean": 160.0},
            {"gray_value_mean": 161.0},
            "brightness",
            "mean gray value 161, dataset 100",
        ),
        (
            {"gray_value_mean": 40.0},
            {"gray_value_mean": 39.0},
            "brightness",
            "mean gray value 39, dataset 100",
        ),
        ({"lung_area_px": 10}, {"lung_area_px": 9}, "tiny", "9 px of lung"),
        (
            {"lung_area_px": 1},
            {"lung_area_px": 0, "num_parts": 0, "edge_agreement": None},
            "empty",
            "no lung",
        ),
    ],
)
def test_finding_begins_beyond_its_threshold(within, beyond, name, text):
    assert name not in texts(sound(**within), gray_value_mean=100.0)
    found = texts(sound(**beyond), gray_value_mean=100.0)
    assert list(found) == [name]
    assert found[name].startswith(text)


def test_jump_is_measured_from_the_range_of_both_neighbors():
    # Lung share 0.2; 15 % of 0.2 is 0.03, of 0.24 it is 0.036.
    for neighbors in ((0.1, 0.3), (0.3, 0.1), (0.171, 0.1), (0.235, 0.24)):
        assert texts(sound(), gray_value_mean=100.0, neighbors=neighbors) == {}
    for neighbors in ((0.169, 0.1), (0.24, 0.25)):
        assert list(texts(sound(), gray_value_mean=100.0, neighbors=neighbors)) == ["jump"]


def test_jump_tells_the_shares():
    found = texts(sound(), gray_value_mean=100.0, neighbors=(0.4, 0.5))
    assert found == {"jump": "20.0 % of the slice is lung, of its neighbors 40.0 and 50.0 %"}


def test_small_lungs_may_come_and_go():
    tip = sound(lung_area_px=99)
    assert texts(tip, gray_value_mean=100.0, neighbors=(0.0, 0.0)) == {}
    assert list(texts(sound(lung_area_px=100), gray_value_mean=100.0, neighbors=(0, 0))) == ["jump"]


def test_missing_mask_between_two_masks_is_a_jump():
    slices = [measured("a_z1"), measured("a_z2", lung_area_px=0), measured("a_z10")]
    assert names_by_slice(slices)["a_z2"] == ["jump", "empty"]


def test_neighbors_are_those_with_the_next_numbers_of_the_same_patient():
    # In the order of text, z10 would stand before z9, and half as much lung in it be a jump.
    slices = [
        measured("a_z8"),
        measured("a_z9"),
        measured("a_z10", lung_area_px=1_000),
        measured("a_z11", lung_area_px=900),
        measured("b_z9", patient_id="Q", lung_area_px=0),
    ]
    assert {name for names in names_by_slice(slices).values() for name in names} == {"empty"}


def test_names_without_a_number_have_no_neighbors():
    slices = [measured("left"), measured("middle", lung_area_px=0), measured("right")]
    assert names_by_slice(slices)["middle"] == ["empty"]


def test_the_worst_come_first_and_empty_masks_last():
    slices = [
        measured("empty", lung_area_px=0, num_parts=0, edge_agreement=None),
        measured("sound", edge_agreement=1.0),
        measured("less", edge_agreement=0.9),
        measured("specks", num_specks=9),
        measured("off", edge_agreement=0.3),
        measured("further off", edge_agreement=0.2),
        measured("inverted", edge_agreement=0.3, lung_area_px=9_000, border_px=99),
    ]
    assert list(names_by_slice(slices)) == [
        "inverted",
        "further off",
        "off",
        "specks",
        "less",
        "sound",
        "empty",
    ]


def test_equal_slices_are_in_the_order_of_their_names():
    slices = [measured(name) for name in ("b", "c", "a")]
    assert list(names_by_slice(slices)) == list(names_by_slice(slices[::-1])) == ["a", "b", "c"]


def test_findings_of_a_slice_begin_with_the_worst():
    severities = [kind.severity for kind in KINDS]
    assert severities == sorted(severities, reverse=True)
    slices = [measured("a", num_specks=9, edge_agreement=0.1, border_px=3)]
    assert names_by_slice(slices)["a"] == ["off the edges", "at the border", "specks"]
