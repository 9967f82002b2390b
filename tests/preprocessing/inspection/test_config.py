from pathlib import Path

import pytest

from preprocessing.inspection.config import InspectConfig

DATASET = Path("dataset")


@pytest.mark.parametrize("value", [0, -1])
def test_page_must_have_room_for_a_slice(value):
    with pytest.raises(ValueError, match=f"--gallery-slices is {value}; expected at least 1"):
        InspectConfig(dataset=DATASET, gallery=Path("page.html"), gallery_slices=value)


def test_number_of_slices_without_a_page_is_refused():
    with pytest.raises(ValueError, match="--gallery-slices is 5, but there is no --gallery; name"):
        InspectConfig(dataset=DATASET, gallery_slices=5)


@pytest.mark.parametrize("page", ["page", "page.bmp", "dataset.json"])
def test_page_that_could_be_a_file_of_the_user_is_refused(page):
    with pytest.raises(ValueError, match=rf"--gallery is {page}; .* ends in .html or .htm, such"):
        InspectConfig(dataset=DATASET, gallery=Path(page))


@pytest.mark.parametrize("page", ["page.html", "folder/page.HTM"])
def test_page_is_taken(page):
    assert InspectConfig(dataset=DATASET, gallery=Path(page)).gallery == Path(page)
