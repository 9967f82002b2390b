from pathlib import Path

import gdcm
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from preprocessing.volumes import dicom_series
from preprocessing.volumes.dicom_series import read_series
from preprocessing.volumes.scans import Scan, UnreadableScanError
from tests.scan_files import SPACING_MM, chest, write_series


def read(paths: list[Path]) -> Scan:
    return read_series({path.name: path for path in paths}, source="P1")[0]


def refusal(paths: list[Path]) -> str:
    with pytest.raises(UnreadableScanError) as caught:
        read(paths)
    assert str(caught.value).startswith("P1 ")
    return caught.value.reason


def test_hounsfield_units_come_back(tmp_path: Path) -> None:
    hounsfield, _ = chest()
    scan = read(write_series(tmp_path, hounsfield))
    np.testing.assert_array_equal(scan.hounsfield.array, hounsfield)
    assert scan.hounsfield.spacing == pytest.approx(SPACING_MM)
    assert "0042" not in repr(scan)


def test_slices_are_ordered_by_position_and_not_by_name(tmp_path: Path) -> None:
    hounsfield, _ = chest()
    paths = write_series(tmp_path, hounsfield, order=lambda index: (index * 5) % 6)
    scan, headers = read_series({path.name: path for path in sorted(paths)}, source="P1")
    np.testing.assert_array_equal(scan.hounsfield.array, hounsfield)
    assert [header.InstanceNumber for header in headers] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        # Head first prone, as some scanners write it: rows to the right, columns to the front.
        ((-1, 0, 0, 0, -1, 0), lambda array: array[:, ::-1, ::-1]),
        # Mirrored: the patient's left is at the left of the picture, and the stack goes down.
        ((-1, 0, 0, 0, 1, 0), lambda array: array[::-1, :, ::-1]),
        ((1, 0, 0, 0, -1, 0), lambda array: array[::-1, ::-1, :]),
        # Rows and columns swapped.
        ((0, 1, 0, 1, 0, 0), lambda array: array[::-1].transpose(0, 2, 1)),
    ],
)
def test_no_lung_is_mirrored_whatever_the_orientation(tmp_path: Path, orientation, turn) -> None:
    hounsfield, _ = chest()
    scan = read(write_series(tmp_path, turn(hounsfield), orientation=orientation))
    np.testing.assert_array_equal(scan.hounsfield.array, hounsfield)
    back = scan.hounsfield.match_geometry(scan.file_geometry)
    np.testing.assert_array_equal(back.array, turn(hounsfield))


def test_coronal_series_is_cut_into_axial_slices(tmp_path: Path) -> None:
    hounsfield, _ = chest()
    coronal = hounsfield.transpose(1, 0, 2)[:, ::-1]  # [rows to the back, feet last, columns]
    scan = read(
        write_series(tmp_path, coronal, orientation=(1, 0, 0, 0, 0, -1), spacing=(0.8, 5.0, 0.8))
    )
    np.testing.assert_array_equal(scan.hounsfield.array, hounsfield)


def compress(path: Path, transfer_syntax: int) -> None:
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(transfer_syntax))
    reader, writer = gdcm.ImageReader(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


@pytest.mark.parametrize(
    ("transfer_syntax", "uid"),
    [
        (gdcm.TransferSyntax.RLELossless, RLELossless),
        (gdcm.TransferSyntax.JPEGLosslessProcess14_1, JPEGLosslessSV1),
        (gdcm.TransferSyntax.JPEGLSLossless, JPEGLSLossless),
        (gdcm.TransferSyntax.JPEG2000Lossless, JPEG2000Lossless),
        (gdcm.TransferSyntax.ExplicitVRBigEndian, ExplicitVRBigEndian),
        (gdcm.TransferSyntax.ImplicitVRLittleEndian, ImplicitVRLittleEndian),
    ],
)
def test_compressed_pixels_are_read(tmp_path: Path, transfer_syntax: int, uid: UID) -> None:
    hounsfield, _ = chest(shape=(2, 64, 64))
    paths = write_series(tmp_path, hounsfield)
    for path in paths:
        compress(path, transfer_syntax)
        assert dcmread(path).file_meta.TransferSyntaxUID == uid
    np.testing.assert_array_equal(read(paths).hounsfield.array, hounsfield)


def test_twelve_bits_with_a_sign_are_read(tmp_path: Path) -> None:
    hounsfield, _ = chest()

    def change(index, header):
        header.BitsStored, header.HighBit, header.RescaleIntercept = 12, 11, 0
        header.PixelData = hounsfield[index].astype("<i2").tobytes()

    scan = read(write_series(tmp_path, hounsfield, change=change))
    np.testing.assert_array_equal(scan.hounsfield.array, hounsfield)


def test_inverted_display_changes_no_hounsfield_unit(tmp_path: Path) -> None:
    hounsfield, _ = chest()

    def change(index, header):
        header.PhotometricInterpretation = "MONOCHROME1"

    scan = read(write_series(tmp_path, hounsfield, change=change))
    np.testing.assert_array_equal(scan.hounsfield.array, hounsfield)


def test_slope_is_applied_and_rounded(tmp_path: Path) -> None:
    hounsfield, _ = chest()

    def change(index, header):
        header.RescaleSlope, header.RescaleIntercept = 0.5, -1000.25
        header.PixelData = np.full(hounsfield[0].shape, 101, "<i2").tobytes()

    scan = read(write_series(tmp_path, hounsfield, change=change))
    assert np.unique(scan.hounsfield.array).tolist() == [-950]  # 50.5 - 1000.25 = -949.75


def test_copied_file_counts_once(tmp_path: Path) -> None:
    hounsfield, _ = chest()
    paths = write_series(tmp_path, hounsfield)
    copy = tmp_path / "copy.dcm"
    copy.write_bytes(paths[2].read_bytes())
    np.testing.assert_array_equal(read([*paths, copy]).hounsfield.array, hounsfield)


def test_two_slices_at_one_place_are_refused(tmp_path: Path) -> None:
    hounsfield, _ = chest()
    paths = write_series(tmp_path, hounsfield)
    header = dcmread(paths[2])
    header.SOPInstanceUID = generate_uid()
    header.save_as(tmp_path / "twin.dcm", enforce_file_format=True)
    reason = refusal([*paths, tmp_path / "twin.dcm"])
    assert "0002.dcm and twin.dcm lie at the same place, -290.00 mm" in reason


def test_missing_slice_is_told_by_its_neighbors(tmp_path: Path) -> None:
    paths = write_series(tmp_path, chest()[0])
    reason = refusal(paths[:2] + paths[3:])
    assert (
        "0001.dcm at -295.00 mm and 0003.dcm at -285.00 mm are 10.00 mm apart, others 5.00 mm; "
        "slices missing between them: 1; expected even spacing; add the missing slices" in reason
    )


def test_uneven_spacing_is_refused(tmp_path: Path) -> None:
    def change(index, header):
        if index > 3:
            header.ImagePositionPatient[2] += 2

    reason = refusal(write_series(tmp_path, chest()[0], change=change))
    assert "7.00 mm apart, others 5.00 mm; expected even spacing; resample" in reason


def test_tilted_gantry_is_refused(tmp_path: Path) -> None:
    def change(index, header):
        header.ImagePositionPatient[1] += index

    reason = refusal(write_series(tmp_path, chest()[0], change=change))
    assert "shifted against each other, by 11.3° (a tilted gantry" in reason


def test_slices_that_lie_aside_are_named(tmp_path: Path) -> None:
    def change(index, header):
        if index in (2, 3):
            header.ImagePositionPatient[0] += 40

    reason = refusal(write_series(tmp_path, chest()[0], change=change))
    assert "0002.dcm lies 40.0 mm beside the slices before it; expected slices that" in reason


def test_rounded_headers_are_borne(tmp_path: Path) -> None:
    hounsfield, _ = chest()

    def change(index, header):
        header.ImagePositionPatient = [-100.02 if index % 2 else -99.98, -80, -300 + index * 0.63]
        header.ImageOrientationPatient = [0.999, 0.002, 0, -0.001, 0.999, 0]

    scan = read(write_series(tmp_path, hounsfield, change=change, spacing=(0.63, 0.8, 0.8)))
    np.testing.assert_array_equal(scan.hounsfield.array, hounsfield)


@pytest.mark.parametrize(
    "changes",
    [
        {"RescaleSlope": None},
        {"PixelSpacing": 0.8},
        {"ImagePositionPatient": [1, 2, float("nan")]},
        {"ImagePositionPatient": [1, 2]},
        {"Rows": None},
    ],
)
def test_odd_values_are_refused_and_never_a_crash(tmp_path: Path, changes) -> None:
    def change(index, header):
        for tag, value in changes.items():
            setattr(header, tag, value)

    assert "0000.dcm has no" in refusal(write_series(tmp_path, chest()[0], change=change))


@pytest.mark.parametrize("tag", ["SeriesInstanceUID", "FrameOfReferenceUID"])
def test_missing_identifiers_are_borne(tmp_path: Path, tag: str) -> None:
    def change(index, header):
        delattr(header, tag)
        header.RescaleType = ""

    hounsfield, _ = chest()
    paths = write_series(tmp_path, hounsfield, change=change)
    np.testing.assert_array_equal(read(paths).hounsfield.array, hounsfield)


def test_errors_of_the_disk_are_no_refusals(tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    paths = write_series(tmp_path, chest()[0])
    monkeypatch.setattr(dicom_series.pydicom, "dcmread", fail)
    with pytest.raises(OSError, match="Input/output error"):
        read(paths)


def test_file_that_is_gone_is_named(tmp_path: Path) -> None:
    paths = write_series(tmp_path, chest()[0])
    paths[2].unlink()
    assert "0002.dcm cannot be read (No such file or directory)" in refusal(paths)


def test_slices_far_from_axial_are_refused(tmp_path: Path) -> None:
    tilt = np.deg2rad(30)
    orientation = (1, 0, 0, 0, np.cos(tilt), np.sin(tilt))
    reason = refusal(write_series(tmp_path, chest()[0], orientation=orientation))
    assert "is turned by 30° against the patient's axes; expected axial slices" in reason


def test_long_pixels_are_refused(tmp_path: Path) -> None:
    reason = refusal(write_series(tmp_path, chest()[0], spacing=(5.0, 2.0, 0.8)))
    assert "has pixels of 2 x 0.8 mm in its axial slices; expected squares" in reason


@pytest.mark.parametrize(
    ("tag", "value", "expected"),
    [
        ("PixelSpacing", [0.9, 0.9], r"0003.dcm has PixelSpacing 0.9\0.9, most others have 0.8"),
        (
            "ImageOrientationPatient",
            [0, 1, 0, 0, 0, -1],
            r"0003.dcm has ImageOrientationPatient 0\1\0\0\0\-1, most others have 1\0",
        ),
    ],
)
def test_odd_slice_is_named(tmp_path: Path, tag: str, value, expected: str) -> None:
    def change(index, header):
        if index == 3:
            setattr(header, tag, value)

    reason = refusal(write_series(tmp_path, chest()[0], change=change))
    assert expected in reason
    assert "take out the others, such as a scout image" in reason


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("RescaleIntercept", "has no RescaleSlope or no RescaleIntercept, so Hounsfield units are"),
        ("ImagePositionPatient", "has no whole ImagePositionPatient; expected all of them"),
        ("PixelSpacing", "has no whole PixelSpacing; expected all of them"),
        ("PixelData", "cannot be read as DICOM"),
    ],
)
def test_missing_tag_is_named(tmp_path: Path, tag: str, expected: str) -> None:
    def change(index, header):
        delattr(header, tag)

    assert f"0000.dcm {expected}" in refusal(write_series(tmp_path, chest()[0], change=change))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"SOPClassUID": MRImageStorage}, "0000.dcm is MR Image Storage; expected CT slices"),
        (
            {"SOPClassUID": SecondaryCaptureImageStorage},
            "0000.dcm is Secondary Capture Image Storage; expected CT slices",
        ),
        ({"SamplesPerPixel": 3}, "0000.dcm is in color; expected gray values"),
        ({"RescaleType": "US"}, "0000.dcm is rescaled to US; expected Hounsfield units"),
    ],
)
def test_what_is_no_ct_slice_is_refused(tmp_path: Path, changes, expected: str) -> None:
    def change(index, header):
        for tag, value in changes.items():
            setattr(header, tag, value)

    assert expected in refusal(write_series(tmp_path, chest()[0], change=change))


def test_single_slice_is_refused(tmp_path: Path) -> None:
    reason = refusal(write_series(tmp_path, chest()[0][:1]))
    assert "it has 1 slice; expected at least 2, which tell their spacing" in reason


@pytest.mark.parametrize("num_bytes", [300, -10])
def test_truncated_file_is_named(tmp_path: Path, num_bytes: int) -> None:
    paths = write_series(tmp_path, chest()[0])
    paths[1].write_bytes(paths[1].read_bytes()[:num_bytes])
    with pytest.raises(UnreadableScanError, match=r"0001\.dcm"):
        read(paths)


def test_what_is_no_dicom_at_all_is_named(tmp_path: Path) -> None:
    paths = write_series(tmp_path, chest()[0])
    paths[1].write_bytes(b"<html>not found</html>")
    with pytest.raises(UnreadableScanError, match=r"0001\.dcm cannot be read as DICOM"):
        read(paths)
