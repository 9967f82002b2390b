import numpy as np
import pytest
from PIL import Image

from preprocessing.errors import PreprocessingError
from preprocessing.folders import SliceFolders, list_folders


def listed(pairs, **settings: object) -> SliceFolders:
    return list_folders(images=pairs.images, masks=pairs.masks, out=pairs.out, **settings)


def save(path, pixels) -> None:
    Image.fromarray(np.array(pixels, np.uint8)).save(path)


def test_folders_hold_pairs_of_known_patients(pairs):
    folders = listed(pairs)
    assert len(folders.pairs) == 20
    assert folders.pairs[0].slice_id == "P0_z000"
    assert folders.patients["P3_z002"] == "P3"
    assert folders.patients_unknown == ""
    assert folders.orphans == ()


def test_slice_and_mask_are_read(empty_pairs):
    empty_pairs.add("P1_z1")
    save(empty_pairs.images / "P1_z1.bmp", [[7, 8], [9, 10]])
    save(empty_pairs.masks / "P1_z1.bmp", [[0, 255], [255, 0]])
    folders = listed(empty_pairs)
    image, mask, refused = folders.read(folders.pairs[0])
    assert image.tolist() == [[7, 8], [9, 10]]
    assert mask.tolist() == [[0, 1], [1, 0]]
    assert refused == []


def test_labels_that_are_lung_are_chosen(empty_pairs):
    empty_pairs.add("P1_z1")
    save(empty_pairs.images / "P1_z1.bmp", [[7, 8], [9, 10]])
    save(empty_pairs.masks / "P1_z1.bmp", [[0, 1], [2, 3]])
    folders = listed(empty_pairs, mask_foreground=(1, 3))
    _, mask, _ = folders.read(folders.pairs[0])
    assert mask.tolist() == [[0, 1], [0, 1]]


def test_reasons_of_both_files_are_told(empty_pairs):
    empty_pairs.add("P1_z1")
    (empty_pairs.images / "P1_z1.bmp").write_bytes(b"")
    (empty_pairs.masks / "P1_z1.bmp").write_bytes(b"%PDF")
    folders = listed(empty_pairs)
    _, _, refused = folders.read(folders.pairs[0])
    assert [entry.file for entry in refused] == ["images/P1_z1.bmp", "masks/P1_z1.bmp"]
    described = folders.describe(refused[1])
    assert described.startswith(f"{empty_pairs.masks / 'P1_z1.bmp'} is a PDF; expected BMP")


def test_sizes_that_differ_are_refused(empty_pairs):
    empty_pairs.add("P1_z1")
    save(empty_pairs.masks / "P1_z1.bmp", np.zeros([6, 4]))
    folders = listed(empty_pairs)
    _, _, (refused,) = folders.read(folders.pairs[0])
    assert refused.reason.startswith("is 4 x 6 px, but its slice P1_z1.bmp is 10 x 12 px; expected")


def test_names_that_tell_no_patient_are_an_error_only_of_a_pattern_that_was_given(empty_pairs):
    for slice_id in ("P1_z1", "other"):
        empty_pairs.add(slice_id)
    folders = listed(empty_pairs)
    assert folders.patients == {}
    assert folders.patients_unknown.startswith("1 of 2 slices tell no patient by --patient-pattern")
    with pytest.raises(PreprocessingError, match="tell no patient by --patient-pattern names: oth"):
        listed(empty_pairs, patient_pattern="names")


def test_file_without_a_partner_is_an_orphan(pairs):
    (pairs.masks / "P0_z000.bmp").unlink()
    folders = listed(pairs)
    assert [entry.file for entry in folders.orphans] == ["images/P0_z000.bmp"]
    assert "has no mask P0_z000.bmp" in folders.describe(folders.orphans[0])


def test_masks_may_lie_among_the_slices(empty_pairs):
    empty_pairs.add("P1_z1")
    (empty_pairs.masks / "P1_z1.bmp").rename(empty_pairs.images / "P1_z1_mask.bmp")
    folders = list_folders(images=empty_pairs.images, masks=None, out=empty_pairs.out)
    assert [pair.slice_id for pair in folders.pairs] == ["P1_z1"]
    assert folders.read(folders.pairs[0])[2] == []


def test_setting_that_cannot_be_used_is_refused(pairs):
    with pytest.raises(ValueError, match=r"received mask_foreground \[0\]; expected gray values"):
        listed(pairs, mask_foreground=(0,))
