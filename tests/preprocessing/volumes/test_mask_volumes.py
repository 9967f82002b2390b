from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian
from skimage.measure import find_contours

from preprocessing.volumes.dicom_series import read_series
from preprocessing.volumes.finding import find_scans
from preprocessing.volumes.mask_volumes import read_scan_mask
from preprocessing.volumes.scans import Scan, UnreadableScanError
from tests.scan_files import (
    affine_of,
    chest,
    write_nifti,
    write_outlines,
    write_segmentation,
    write_series,
)


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    return write_series(tmp_path / "P1", chest()[0])


@pytest.fixture
def scan(series: list[Path]) -> Scan:
    return read_series({path.name: path for path in series}, source="P1")[0]


def read(path: Path, scan: Scan, *, structure: str = "(?i)lung", foreground=None) -> np.ndarray:
    return read_scan_mask(
        path, scan, source=path.name, structure=structure, foreground=foreground
    ).voxels


def refusal(path: Path, scan: Scan, **flags) -> str:
    with pytest.raises(UnreadableScanError) as caught:
        read(path, scan, **flags)
    assert caught.value.source == path.name
    return caught.value.reason


def test_label_map_of_the_same_grid_is_taken_as_it_is(tmp_path: Path, scan: Scan) -> None:
    mask = chest()[1]
    for brightest in (1, 255):
        write_nifti(tmp_path / "mask.nii.gz", mask * np.uint8(brightest))
        np.testing.assert_array_equal(read(tmp_path / "mask.nii.gz", scan), mask)


def test_label_map_of_a_mirrored_series_is_mirrored_with_it(tmp_path: Path) -> None:
    hounsfield, mask = chest()
    paths = write_series(
        tmp_path / "P1", hounsfield[::-1, :, ::-1], orientation=(-1, 0, 0, 0, 1, 0),
        origin=(-100 + 19 * 0.8, -80, -300 + 25),
    )  # fmt: skip
    scan = read_series({path.name: path for path in paths}, source="P1")[0]
    write_nifti(tmp_path / "mask.nii.gz", mask)
    np.testing.assert_array_equal(read(tmp_path / "mask.nii.gz", scan), mask)


def test_label_map_of_a_part_of_the_scan_is_filled_up(tmp_path: Path, scan: Scan) -> None:
    mask = chest()[1]
    write_nifti(tmp_path / "mask.nii.gz", mask[2:5], affine_of(origin=(-100.0, -80.0, -290.0)))
    expected = mask.copy()
    expected[[0, 1, 5]] = 0
    np.testing.assert_array_equal(read(tmp_path / "mask.nii.gz", scan), expected)


@pytest.mark.parametrize("extra", [(2, 0, 0), (0, 3, 0), (0, 0, 4)])
def test_label_map_that_reaches_beyond_the_scan_is_cut(tmp_path: Path, scan: Scan, extra) -> None:
    mask = chest()[1]
    wider = np.pad(mask, [(0, each) for each in extra], constant_values=1)
    write_nifti(tmp_path / "mask.nii.gz", wider)
    np.testing.assert_array_equal(read(tmp_path / "mask.nii.gz", scan), mask)
    origin = (-100.0 - 0.8 * extra[2], -80.0 - 0.8 * extra[1], -300.0 - 5 * extra[0])
    before = np.pad(mask, [(each, 0) for each in extra], constant_values=1)
    write_nifti(tmp_path / "mask.nii.gz", before, affine_of(origin=origin))
    np.testing.assert_array_equal(read(tmp_path / "mask.nii.gz", scan), mask)


@pytest.mark.parametrize("spacing", [(2.5, 0.8, 0.8), (5.0, 0.4, 0.4)])
def test_finer_label_map_is_refused(tmp_path: Path, scan: Scan, spacing) -> None:
    write_nifti(tmp_path / "mask.nii.gz", chest()[1], affine_of(spacing=spacing))
    assert "lies on another grid" in refusal(tmp_path / "mask.nii.gz", scan)


def test_turned_label_map_is_refused(tmp_path: Path, scan: Scan) -> None:
    angle = np.deg2rad(1)
    turn = np.identity(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    write_nifti(tmp_path / "mask.nii.gz", chest()[1], turn @ affine_of())
    assert "lies on another grid" in refusal(tmp_path / "mask.nii.gz", scan)


def test_grids_of_few_digits_match(tmp_path: Path) -> None:
    hounsfield, mask = chest()

    def change(index, header):
        header.ImagePositionPatient = [-250.37, -180.91, round(-1187.3 + index * 0.625, 2)]

    spacing = (0.625, 0.9767, 0.9767)
    paths = write_series(tmp_path / "P1", hounsfield, spacing=spacing, change=change)
    scan = read_series({path.name: path for path in paths}, source="P1")[0]
    write_segmentation(tmp_path / "seg.dcm", paths, {"Lung": mask})
    np.testing.assert_array_equal(read(tmp_path / "seg.dcm", scan), mask)
    affine = affine_of(origin=(-250.37, -180.91, -1187.3), spacing=spacing).astype(np.float32)
    write_nifti(tmp_path / "mask.nii.gz", mask, affine)
    np.testing.assert_array_equal(read(tmp_path / "mask.nii.gz", scan), mask)


def test_mask_beside_the_scan_is_refused(tmp_path: Path, series, scan: Scan) -> None:
    far = affine_of(origin=(-100.0, -80.0, 200.0))
    write_nifti(tmp_path / "mask.nii.gz", chest()[1], far)
    assert "lies wholly beside its scan" in refusal(tmp_path / "mask.nii.gz", scan)
    write_nifti(tmp_path / "mask.nii.gz", np.zeros_like(chest()[1]), far)
    assert not read(tmp_path / "mask.nii.gz", scan).any()
    other = write_series(tmp_path / "other", chest()[0], origin=(-100.0, -80.0, 200.0))
    write_segmentation(tmp_path / "seg.dcm", other, {"Lung": chest()[1]})
    assert "lies wholly beside its scan" in refusal(tmp_path / "seg.dcm", scan)


def test_structures_that_were_filled_are_named(tmp_path: Path, series, scan: Scan) -> None:
    outlines = {"Lung_L": [square(2, 8.5, 7.5, 10.5, 9.5)], "Lung_R": []}
    write_outlines(tmp_path / "rt.dcm", series, outlines)
    found = read_scan_mask(
        tmp_path / "rt.dcm", scan, source="rt.dcm", structure="Lung", foreground=None
    )
    assert found.structures == ("Lung_L",)


@pytest.mark.parametrize("kind", ["FRACTIONAL", "LABELMAP"])
def test_other_kinds_of_segmentation_are_read(
    tmp_path: Path, series, scan: Scan, kind: str
) -> None:
    mask = chest()[1]
    if kind == "FRACTIONAL":
        write_segmentation(tmp_path / "seg.dcm", series, {"Lung": mask}, kind=kind)
    else:
        labels = mask * np.where(np.arange(20) < 10, 1, 2).astype(np.uint8)
        labels[0, :4, :4] = 3
        sides = {"Lung right": labels == 1, "Lung left": labels == 2, "Heart": labels == 3}
        write_segmentation(tmp_path / "seg.dcm", series, sides, kind=kind)
    np.testing.assert_array_equal(read(tmp_path / "seg.dcm", scan), mask)
    found = find_scans(tmp_path, role="images")
    assert [paths for paths in found.masks.values()] == [["seg.dcm"]]


def test_structure_without_outlines_is_refused(tmp_path: Path, series, scan: Scan) -> None:
    write_outlines(tmp_path / "rt.dcm", series, {"Lung": []})
    assert "has no closed outline of 'Lung'" in refusal(tmp_path / "rt.dcm", scan)


def test_labels_are_chosen(tmp_path: Path, scan: Scan) -> None:
    mask = chest()[1]
    labels = mask * np.where(np.arange(20) < 10, 1, 2).astype(np.uint8)
    labels[0, :4, :4] = 3
    write_nifti(tmp_path / "mask.nii.gz", labels)
    np.testing.assert_array_equal(read(tmp_path / "mask.nii.gz", scan, foreground=(1, 2)), mask)
    reason = refusal(tmp_path / "mask.nii.gz", scan)
    assert "has the labels [1, 2, 3]; expected one, 1 or 255; say with --mask-foreground" in reason


def test_mask_on_another_grid_is_refused(tmp_path: Path, scan: Scan) -> None:
    write_nifti(tmp_path / "mask.nii.gz", chest()[1], affine_of(spacing=(5.0, 0.7, 0.7)))
    reason = refusal(tmp_path / "mask.nii.gz", scan)
    assert "lies on another grid (6x24x20 voxels of 5 x 0.7 x 0.7 mm at" in reason
    assert "than its scan (6x24x20 voxels of 5 x 0.8 x 0.8 mm at [-100.0, -80.0, -300.0])" in reason


def test_segments_are_united_by_their_names(tmp_path: Path, series, scan: Scan) -> None:
    mask = chest()[1]
    sides = {
        "Lung right": mask * (np.arange(20) < 10).astype(np.uint8),
        "Left lung": mask * (np.arange(20) >= 10).astype(np.uint8),
        "Heart": 1 - mask,
    }
    write_segmentation(tmp_path / "seg.dcm", series, sides)
    np.testing.assert_array_equal(read(tmp_path / "seg.dcm", scan), mask)
    np.testing.assert_array_equal(read(tmp_path / "seg.dcm", scan, structure="Heart"), 1 - mask)
    reason = refusal(tmp_path / "seg.dcm", scan, structure="liver")
    assert "has no segment that --structure 'liver' finds; it has 'Lung right', 'Left" in reason


def test_segmentation_leaves_out_empty_slices_and_comes_back_whole(
    tmp_path: Path, series, scan: Scan
) -> None:
    mask = np.zeros_like(chest()[1])
    mask[3, 10, 5] = 1
    write_segmentation(tmp_path / "seg.dcm", series, {"Lung": mask})
    np.testing.assert_array_equal(read(tmp_path / "seg.dcm", scan), mask)


def square(index: int, top: float, left: float, bottom: float, right: float) -> list:
    """Gives the corners in mm of a square on the grid of ``write_series``."""
    corners = ((top, left), (top, right), (bottom, right), (bottom, left))
    return [(-100 + 0.8 * x, -80 + 0.8 * y, -300 + 5.0 * index) for y, x in corners]


def test_outlines_are_filled_and_an_inner_one_is_a_hole(tmp_path: Path, series, scan) -> None:
    outlines = {
        "Lung_R": [square(2, 3.5, 1.5, 9.5, 8.5), square(2, 5.5, 3.5, 7.5, 5.5)],
        "Lung_L": [square(2, 8.5, 7.5, 10.5, 9.5), square(4, 0.5, 0.5, 1.5, 1.5)],
        "Cord": [square(0, 0, 0, 9, 9)],
    }
    write_outlines(tmp_path / "rt.dcm", series, outlines)
    expected = np.zeros_like(chest()[1])
    expected[2, 4:10, 2:9] = 1
    expected[2, 6:8, 4:6] = 0
    expected[2, 9:11, 8:10] = 1  # touches the other lung, and is no hole of it
    expected[4, 1, 1] = 1
    np.testing.assert_array_equal(read(tmp_path / "rt.dcm", scan), expected)


def test_outlines_of_real_masks_give_the_masks(lctsc: Path, tmp_path: Path) -> None:
    paths = sorted((lctsc / "masks").glob("*-103_z*.bmp"))[::5]
    masks = np.stack([np.asarray(Image.open(path)) > 0 for path in paths])
    series = write_series(tmp_path / "P1", np.where(masks, -850, 40).astype(np.int16))
    scan = read_series({path.name: path for path in series}, source="P1")[0]
    outlines = [
        [(-100 + 0.8 * x, -80 + 0.8 * y, -300 + 5.0 * index) for y, x in outline]
        for index, mask in enumerate(masks)
        for outline in find_contours(mask.astype(float), 0.5)
    ]
    write_outlines(tmp_path / "rt.dcm", series, {"Lungs": outlines})
    np.testing.assert_array_equal(read(tmp_path / "rt.dcm", scan), masks)


def test_outline_off_the_scan_is_refused(tmp_path: Path, series, scan: Scan) -> None:
    for index in (-3, 2.5, 9):
        write_outlines(tmp_path / "rt.dcm", series, {"Lung": [square(index, 2, 2, 5, 5)]})
        reason = refusal(tmp_path / "rt.dcm", scan)
        assert f"at [-98.4, -78.4, {-300 + 5 * index:.1f}] mm, on none of the 6 slices" in reason


def test_structures_are_named_where_none_is_wanted(tmp_path: Path, series, scan: Scan) -> None:
    write_outlines(tmp_path / "rt.dcm", series, {"Cord": [square(0, 0, 0, 9, 9)]})
    assert "has no structure that --structure '(?i)lung' finds; it has 'Cord'" in refusal(
        tmp_path / "rt.dcm", scan
    )


def test_structures_of_another_program_are_read(tmp_path: Path, scan: Scan) -> None:
    header = dcmread(get_testdata_file("rtstruct.dcm", download=False), force=True)
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    header.save_as(tmp_path / "rt.dcm", enforce_file_format=True)
    assert "it has 'patient', 'Isocenter 1'" in refusal(tmp_path / "rt.dcm", scan)
    reason = refusal(tmp_path / "rt.dcm", scan, structure="patient")
    assert "on none of the 6 slices of the scan" in reason


@pytest.mark.parametrize("num_bytes", [400, -200])
def test_truncated_mask_is_refused(tmp_path: Path, series, scan: Scan, num_bytes: int) -> None:
    write_segmentation(tmp_path / "seg.dcm", series, {"Lung": chest()[1]})
    path = tmp_path / "seg.dcm"
    path.write_bytes(path.read_bytes()[:num_bytes])
    assert "cannot be read as SEG or RTSTRUCT" in refusal(path, scan)
