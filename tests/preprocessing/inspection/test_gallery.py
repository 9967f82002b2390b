import re

import pytest

from preprocessing.inspection.findings import judge
from preprocessing.inspection.gallery import write_gallery
from preprocessing.inspection.scan import measure_slices
from preprocessing.manifest import RefusedFile


def write_page(tiny, page, *, max_slices=200, **changes):
    dataset = tiny.write(**changes)
    judged = judge(measure_slices(tiny.folder, dataset), gray_value_mean=180.0)
    num_shown = write_gallery(
        page, dataset_dir=tiny.folder, dataset=dataset, judged=judged, max_slices=max_slices
    )
    return num_shown, page.read_text()


def captions(text):
    return re.findall(r"<figcaption>(.*?)<br>", text)


def words(text):
    """Gives the text without tags, in one line."""
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def test_page_shows_the_worst_first_and_empty_masks_last(tiny, tmp_path):
    tiny.add("P_z5", lung_columns=0)
    tiny.add("P_z4", shift=6)
    num_shown, text = write_page(tiny, tmp_path / "page.html")
    assert num_shown == 6
    assert captions(text) == ["P_z4", "P_z0", "P_z1", "P_z2", "Q_z0", "P_z5"]
    assert "To look at, the worst first: 1 of 1" in text
    assert "The others: 5 of 5" in text
    assert "off the edges: 0 % of the rim is on an edge train, patient P, 12.5 % lung" in words(
        text
    ).replace(" :", ":").replace(" ,", ",")


def test_page_says_how_many_are_not_shown(tiny, tmp_path):
    tiny.add("P_z4", shift=6)
    num_shown, text = write_page(tiny, tmp_path / "page.html", max_slices=2)
    assert num_shown == 2
    assert captions(text) == ["P_z4", "P_z0"]
    assert "The others: 1 of 4" in text
    assert "3 slices are not shown; " in text


def test_page_is_self_contained_and_says_what_it_is_not(tiny, tmp_path):
    _, text = write_page(tiny, tmp_path / "page.html")
    assert "This is not a medical device." in text
    assert not re.findall(r"(?:src|href)=\"(?!data:image/)", text)
    assert "://" not in text
    assert text.count("data:image/jpeg;base64,") == text.count("data:image/png;base64,") == 4


def test_page_has_the_figures_of_both_splits(tiny, tmp_path):
    _, text = write_page(tiny, tmp_path / "page.html")
    assert "train 3 75.0 % 1 1 0.0 12.5 %" in words(text)
    assert "validation 1 25.0 % 1 1 0.0 12.5 %" in words(text)


def test_names_cannot_add_to_the_page(tiny, tmp_path, refused_file):
    evil = "<script>alert('x')</script>\"&\x1b"
    tiny.add(evil, patient_id=evil)
    _, text = write_page(
        tiny, tmp_path / "page.html", refused=(refused_file,), options={"patient_pattern": evil}
    )
    assert "<script" not in text
    assert "\x1b" not in text
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&#34;&amp;\\x1b" in text
    assert "images/&lt;b&gt;bad\\x1b.bmp" in text
    assert "is &lt;i&gt;empty&lt;/i&gt;" in text


def test_refused_files_are_listed_up_to_a_number(tiny, tmp_path):
    refused = tuple(RefusedFile(file=f"images/{n}.bmp", reason="bad") for n in range(103))
    _, text = write_page(tiny, tmp_path / "page.html", refused=refused)
    assert "images/99.bmp" in text
    assert "images/100.bmp" not in text
    assert "3 more are in dataset.json" in words(text)


def test_patients_are_listed_up_to_a_number(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("preprocessing.inspection.gallery.MAX_PAGE_PATIENTS", 1)
    _, text = write_page(tiny, tmp_path / "page.html")
    assert "P train 3 1 more are in dataset.json" in words(text)


def test_split_by_slice_is_warned_of(tiny, tmp_path):
    tiny.slices = {"train": [], "validation": []}
    tiny.add("a", patient_id="")
    _, text = write_page(tiny, tmp_path / "page.html", split_by="slice")
    assert "split by slice, not by patient: " in text
    assert "unknown patients" in words(text)
    assert "Not known: " in text


def test_equal_datasets_give_equal_pages(tiny, tmp_path):
    assert write_page(tiny, tmp_path / "a.html") == write_page(tiny, tmp_path / "b.html")


def test_page_that_cannot_be_written_leaves_the_old_one(tiny, tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    page.write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("preprocessing.publish.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_page(tiny, page)
    assert page.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset", "page.html"]
