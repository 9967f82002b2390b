import pytest

from preprocessing.config import TfrecordsConfig
from preprocessing.errors import PreprocessingError
from preprocessing.pairing import find_pairs


@pytest.fixture
def folders(tmp_path):
    """Gives a function that fills two folders, or one, and pairs what is in them."""

    def pair(images, masks=None, **options):
        for folder, names in (("images", images), ("masks", masks or ())):
            for name in names:
                path = tmp_path / folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"12345")
        masks_folder = None if masks is None else tmp_path / "masks"
        return find_pairs(
            TfrecordsConfig(
                images=tmp_path / "images", masks=masks_folder, out=tmp_path / "out", **options
            )
        )

    return pair


def names_of(found):
    return [(pair.slice_id, pair.image_path, pair.mask_path) for pair in found.pairs]


def test_files_of_equal_names_are_pairs_with_the_size_of_both(folders):
    found = folders(["b.bmp", "p/c.bmp"], ["b.bmp", "p/c.bmp"])
    assert names_of(found) == [("b", "b.bmp", "b.bmp"), ("p/c", "p/c.bmp", "p/c.bmp")]
    assert found.pairs[0].num_bytes == 10
    assert found.orphans == ()


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("P1_Z001.BMP", "p1_z001.bmp"),
        ("P1_z001.bmp", "P1_z001.png"),
        ("a/P1_z001.jpg", "A/P1_z001.tif"),
        ("P1_z001.bmp", "P1_z001_mask.bmp"),
        ("P1_z001.bmp", "P1_z001-Seg.png"),
        ("P1_z001.bmp", "p1_z001.LABEL.png"),
        ("Ro\u0308ntgen.bmp", "Röntgen.bmp"),
    ],
)
def test_case_extension_and_the_mark_of_a_mask_make_no_difference(folders, image, mask):
    found = folders([image], [mask])
    assert names_of(found) == [(image.rsplit(".", 1)[0], image, mask)]


def test_slice_that_is_named_like_a_mask_has_the_mask_of_its_own_name(folders):
    found = folders(["lung_mask.bmp"], ["lung_mask.bmp"])
    assert names_of(found) == [("lung_mask", "lung_mask.bmp", "lung_mask.bmp")]


def test_masks_among_the_slices_are_told_by_their_names(folders):
    found = folders(["p/a.bmp", "p/a_mask.png", "p/b.bmp", "p/B_SEG.bmp"])
    assert names_of(found) == [
        ("p/a", "p/a.bmp", "p/a_mask.png"),
        ("p/b", "p/b.bmp", "p/B_SEG.bmp"),
    ]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/P1_z1.bmp", "masks/P1_z1.bmp"),
        ("P1/images/1.bmp", "P1/masks/1.bmp"),
        ("P1/CT/1.bmp", "P1/Segmentation/1_seg.png"),
        ("P1/1.bmp", "P1/labels/1.bmp"),
        ("P1_z1.bmp", "mask/P1_z1.bmp"),
    ],
)
def test_folders_of_slices_and_of_masks_in_one_folder_are_told_apart(folders, image, mask):
    ((slice_id, image_path, mask_path),) = names_of(folders([image, mask]))
    assert (image_path, mask_path) == (image, mask)
    assert slice_id in ("P1_z1", "P1/1")


def test_slices_have_the_same_names_whether_one_or_two_folders_are_given(tmp_path):
    for path in ("images/p/1.bmp", "masks/p/1.bmp"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(b"12345")
    in_one = TfrecordsConfig(images=tmp_path, out=tmp_path / "out")
    in_two = TfrecordsConfig(
        images=tmp_path / "images", masks=tmp_path / "masks", out=tmp_path / "out"
    )
    for config in (in_one, in_two):
        assert [pair.slice_id for pair in find_pairs(config).pairs] == ["p/1"]


def test_mark_of_a_slice_can_be_given(folders):
    found = folders(["P1/raw/1.bmp"], ["P1/1.bmp"], image_pattern="raw/")
    assert names_of(found) == [("P1/1", "P1/raw/1.bmp", "P1/1.bmp")]


def test_mark_of_a_mask_can_be_given(folders):
    found = folders(["a.bmp", "a_lung.bmp"], mask_pattern="_lung$")
    assert names_of(found) == [("a", "a.bmp", "a_lung.bmp")]


def test_mark_of_a_mask_can_be_a_folder(folders):
    found = folders(["P1/1.bmp", "P1/masks/1.bmp"], mask_pattern="masks/")
    assert names_of(found) == [("P1/1", "P1/1.bmp", "P1/masks/1.bmp")]


@pytest.mark.parametrize(("images", "kind"), [(["a.bmp"], "mask"), (["a_mask.bmp"], "slice")])
def test_one_folder_without_slices_or_masks_asks_for_the_pattern(folders, images, kind):
    with pytest.raises(
        PreprocessingError,
        match=rf"none of 1 files below .* is a {kind} \(such as {images[0]}\); expected both, told",
    ):
        folders(images)


def test_file_that_is_no_image_is_the_partner_if_there_is_no_other(folders):
    found = folders(["a.bmp", "b.gif", "c.bmp", "c.txt", "n.txt"], ["a", "b.bmp", "c.bmp"])
    assert names_of(found) == [
        ("a", "a.bmp", "a"),
        ("b", "b.gif", "b.bmp"),
        ("c", "c.bmp", "c.bmp"),
    ]
    assert (found.orphans, found.skipped) == ((), ("images/c.txt", "images/n.txt"))


def test_slices_with_a_mark_of_their_own_are_paired(folders):
    found = folders(["P1_z1_ct.bmp", "P1_z2_img.bmp"], ["P1_z1_mask.bmp", "P1_z2_img.bmp"])
    assert names_of(found) == [
        ("P1_z1", "P1_z1_ct.bmp", "P1_z1_mask.bmp"),
        ("P1_z2", "P1_z2_img.bmp", "P1_z2_img.bmp"),
    ]


def test_slice_of_another_number_is_never_proposed(folders):
    found = folders(["P1_z000.bmp", "b.bmp"], ["P1_z080.bmp", "b.bmp"])
    assert found.orphans[0].reason == "has no mask P1_z000.bmp; add it or remove the slice"


def test_two_slices_of_one_name_are_both_named(folders):
    with pytest.raises(PreprocessingError, match="images holds .* p/A.png and p/a.bmp; expected"):
        folders(["p/a.bmp", "p/A.png"], ["p/a.bmp"])


def test_two_masks_of_one_slice_are_both_named(folders):
    with pytest.raises(PreprocessingError, match="masks holds .* a.bmp and a_mask.bmp; expected"):
        folders(["a.bmp"], ["a.bmp", "a_mask.bmp"])


def test_files_without_a_partner_are_told_with_the_one_that_may_be_meant(folders):
    found = folders(["P1_z001.bmp", "b.bmp"], ["P1_z01.bmp", "b.bmp", "x.bmp"])
    assert [(entry.file, entry.reason) for entry in found.orphans] == [
        (
            "images/P1_z001.bmp",
            "has no mask P1_z001.bmp (is masks/P1_z01.bmp meant?); add it or remove the slice",
        ),
        (
            "masks/P1_z01.bmp",
            "has no slice P1_z01.bmp (is images/P1_z001.bmp meant?); add it or remove the mask",
        ),
        ("masks/x.bmp", "has no slice x.bmp; add it or remove the mask"),
    ]


def test_no_pair_at_all_shows_a_name_of_each_side(folders):
    with pytest.raises(
        PreprocessingError, match=r"none of 2 slices .such as a.bmp. has the name of .*x.bmp"
    ):
        folders(["a.bmp", "b.bmp"], ["x.bmp"])


def test_same_folder_twice_is_told_what_to_leave_out(tmp_path):
    with pytest.raises(
        PreprocessingError, match="the same folder, .*; leave --masks out if masks lie among"
    ):
        find_pairs(TfrecordsConfig(images=tmp_path, masks=tmp_path, out=tmp_path / "out"))
