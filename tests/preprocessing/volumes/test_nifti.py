import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from preprocessing.volumes.nifti import read_label_map, read_nifti_scan, write_nifti
from preprocessing.volumes.scans import UnreadableScanError, doubt
from tests.scan_files import SPACING_MM, affine_of, chest
from tests.scan_files import write_nifti as write


def refusal(path: Path) -> str:
    with pytest.raises(UnreadableScanError) as caught:
        read_nifti_scan(path, source=path.name)
    assert caught.value.source == path.name
    return caught.value.reason


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_hounsfield_units_come_back(tmp_path: Path, suffix: str) -> None:
    hounsfield, _ = chest()
    path = tmp_path / f"P1{suffix}"
    write(path, hounsfield)
    scan = read_nifti_scan(path, source=path.name)
    np.testing.assert_array_equal(scan.hounsfield.array, hounsfield)
    assert scan.hounsfield.array.dtype == np.int16
    assert scan.hounsfield.spacing == pytest.approx(SPACING_MM)


def test_equals_the_dicom_series_of_the_same_voxels(tmp_path: Path) -> None:
    from preprocessing.volumes.dicom_series import read_series
    from tests.scan_files import write_series

    hounsfield, _ = chest()
    paths = write_series(tmp_path / "P1", hounsfield)
    write(tmp_path / "P1.nii.gz", hounsfield)
    dicom = read_series({path.name: path for path in paths}, source="P1")[0]
    nifti = read_nifti_scan(tmp_path / "P1.nii.gz", source="P1.nii.gz")
    np.testing.assert_allclose(nifti.hounsfield.affine, dicom.hounsfield.affine, atol=1e-4)
    np.testing.assert_array_equal(nifti.hounsfield.array, dicom.hounsfield.array)


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, 1)])
@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_no_lung_is_mirrored_whatever_the_axes(tmp_path: Path, flips, axes) -> None:
    hounsfield, mask = chest()
    image = nib.Nifti1Image(hounsfield.transpose(2, 1, 0), affine_of())
    target = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), np.stack([axes, flips], axis=1)
    )
    turned = image.as_reoriented(target)
    nib.save(turned, tmp_path / "P1.nii.gz")
    scan = read_nifti_scan(tmp_path / "P1.nii.gz", source="P1.nii.gz")
    np.testing.assert_array_equal(scan.hounsfield.array, hounsfield)
    restored = scan.hounsfield.with_array(mask).match_geometry(scan.file_geometry)
    write_nifti(tmp_path / "mask.nii.gz", restored)
    written = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(written.affine, turned.affine, atol=1e-4)
    expected = nib.Nifti1Image(mask.transpose(2, 1, 0), affine_of()).as_reoriented(target)
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(expected.dataobj))


def test_rescaled_and_decimal_values_are_rounded(tmp_path: Path) -> None:
    hounsfield, _ = chest()
    image = nib.Nifti1Image(hounsfield.transpose(2, 1, 0).astype(np.float32) + 0.25, affine_of())
    nib.save(image, tmp_path / "float.nii")
    scan = read_nifti_scan(tmp_path / "float.nii", source="float.nii")
    np.testing.assert_array_equal(scan.hounsfield.array, hounsfield)
    image = nib.Nifti1Image(hounsfield.transpose(2, 1, 0) * 2 + 2000, affine_of())
    image.header.set_slope_inter(0.5, -1000)
    nib.save(image, tmp_path / "scaled.nii")
    scan = read_nifti_scan(tmp_path / "scaled.nii", source="scaled.nii")
    np.testing.assert_array_equal(scan.hounsfield.array, hounsfield)


def test_trailing_axes_of_one_are_no_axes(tmp_path: Path) -> None:
    hounsfield, _ = chest()
    image = nib.Nifti1Image(hounsfield.transpose(2, 1, 0)[..., None], affine_of())
    nib.save(image, tmp_path / "P1.nii")
    scan = read_nifti_scan(tmp_path / "P1.nii", source="P1.nii")
    np.testing.assert_array_equal(scan.hounsfield.array, hounsfield)


def test_slightly_oblique_scan_is_read_as_it_lies(tmp_path: Path) -> None:
    hounsfield, _ = chest()
    write(tmp_path / "P1.nii", hounsfield, turned_by(5))
    scan = read_nifti_scan(tmp_path / "P1.nii", source="P1.nii")
    np.testing.assert_array_equal(scan.hounsfield.array, hounsfield)


def turned_by(degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn = np.identity(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ affine_of()


def test_rotated_affine_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "P1.nii", chest()[0], turned_by(25))
    assert "is turned by 25° against the patient's axes" in refusal(tmp_path / "P1.nii")


def test_sheared_affine_is_refused(tmp_path: Path) -> None:
    affine = affine_of()
    affine[1, 2] = 1.0
    write(tmp_path / "P1.nii", chest()[0], affine)
    assert "shifted against each other, by 11.3°" in refusal(tmp_path / "P1.nii")


def test_affine_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image(chest()[0].transpose(2, 1, 0), affine_of())
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nib.save(image, tmp_path / "P1.nii")
    assert "(sform and qform are 0), so left and right are unknown" in refusal(tmp_path / "P1.nii")


def test_two_ways_to_lie_are_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image(chest()[0].transpose(2, 1, 0), affine_of())
    mirrored = affine_of()
    mirrored[0] *= -1
    image.set_qform(mirrored, code=1)
    nib.save(image, tmp_path / "P1.nii")
    assert "tells two ways in which it lies" in refusal(tmp_path / "P1.nii")
    image.set_qform(affine_of(), code=1)
    nib.save(image, tmp_path / "P1.nii")
    assert read_nifti_scan(tmp_path / "P1.nii", source="P1.nii").hounsfield.array.any()


def test_header_that_nifti_does_not_allow_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "P1.nii"
    write(path, chest()[0])
    whole = bytearray(path.read_bytes())
    for changes in (
        {252: struct.pack("<h", 1), 256: struct.pack("<fff", 2, 2, 2)},  # a quaternion of no length
        {123: b"\x05"},  # a unit that there is not
    ):
        content = bytearray(whole)
        for at, value in changes.items():
            content[at : at + len(value)] = value
        path.write_bytes(content)
        assert "has a header that NIfTI does not allow" in refusal(path)


def test_flat_image_with_both_places_is_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((4, 4), np.int16), affine_of())
    image.set_qform(affine_of(), code=1)
    image.set_sform(affine_of(), code=1)
    nib.save(image, tmp_path / "P1.nii")
    assert "expected one volume of three axes" in refusal(tmp_path / "P1.nii")


def test_nearly_right_angles_are_made_right(tmp_path: Path) -> None:
    hounsfield, _ = chest()
    affine = affine_of()
    affine[0, 2] = 0.02
    write(tmp_path / "P1.nii", hounsfield, affine)
    scan = read_nifti_scan(tmp_path / "P1.nii", source="P1.nii")
    np.testing.assert_array_equal(scan.hounsfield.array, hounsfield)
    assert scan.file_affine is not None
    np.testing.assert_allclose(scan.file_affine, affine, atol=1e-6)


def test_other_units_are_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image(chest()[0].transpose(2, 1, 0), affine_of())
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "P1.nii")
    assert "is measured in meters; expected millimeters" in refusal(tmp_path / "P1.nii")


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4, 2), (4, 4, 1)])
def test_what_is_no_volume_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), affine_of()), tmp_path / "P1.nii")
    assert "expected one volume of three axes" in refusal(tmp_path / "P1.nii")


def test_colors_are_refused(tmp_path: Path) -> None:
    rgb = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, affine_of()), tmp_path / "P1.nii")
    assert "expected one number for each voxel" in refusal(tmp_path / "P1.nii")


def test_voxels_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    values = chest()[0].astype(np.float32)
    values[0, 0, 0] = np.nan
    write(tmp_path / "P1.nii", values)
    assert "has voxels that are no numbers" in refusal(tmp_path / "P1.nii")


@pytest.mark.parametrize("num_bytes", [0, 100, 400, -20])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_truncated_file_is_refused(tmp_path: Path, num_bytes: int, suffix: str) -> None:
    path = tmp_path / f"P1{suffix}"
    write(path, chest()[0])
    path.write_bytes(path.read_bytes()[:num_bytes])
    assert "expected a whole" in refusal(path)


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "P1.nii.gz").write_bytes(b"<html>not found</html>")
    assert "cannot be read as NIfTI" in refusal(tmp_path / "P1.nii.gz")


def test_labels_are_whole_numbers(tmp_path: Path) -> None:
    write(tmp_path / "mask.nii.gz", chest()[1].astype(np.float32) * 2)
    labels = read_label_map(tmp_path / "mask.nii.gz", source="mask.nii.gz")
    assert np.unique(labels.array).tolist() == [0, 2]
    write(tmp_path / "mask.nii.gz", chest()[1].astype(np.float32) * 0.7)
    with pytest.raises(UnreadableScanError, match="no whole numbers; expected labels"):
        read_label_map(tmp_path / "mask.nii.gz", source="mask.nii.gz")


def test_scan_without_air_is_doubted() -> None:
    assert doubt(chest()[0]) == ""
    assert doubt(np.array([[0, 900]], np.int16)).startswith("holds values from 0 to 900 and so no")
