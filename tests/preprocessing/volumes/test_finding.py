from pathlib import Path

import pytest
from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage

from preprocessing.config import TfrecordsConfig
from preprocessing.errors import PreprocessingError
from preprocessing.volumes.detection import holds_volumes
from preprocessing.volumes.finding import ScanPairing, find_scans, pair_scans
from tests.scan_files import chest, write_nifti, write_outlines, write_segmentation, write_series

HOUNSFIELD, MASK = chest()


def pair(tmp_path: Path, *, masks: bool = True, **changes) -> ScanPairing:
    folder = tmp_path / "masks" if masks else None
    return pair_scans(
        TfrecordsConfig(images=tmp_path / "images", masks=folder, out=tmp_path / "out", **changes)
    )


def names(pairing: ScanPairing) -> list[tuple[str, str]]:
    return [(pair.scan.name, pair.mask_path) for pair in pairing.pairs]


def test_segmentation_and_outlines_belong_to_the_series_that_they_name(tmp_path: Path) -> None:
    first = write_series(tmp_path / "images/A/CT", HOUNSFIELD, patient_id="1")
    second = write_series(tmp_path / "images/B", HOUNSFIELD, patient_id="2")
    write_segmentation(tmp_path / "masks/x.dcm", second, {"Lung": MASK})
    write_outlines(tmp_path / "images/A/rt.dcm", first, {"Lung": []})
    found = pair(tmp_path)
    assert names(found) == [("A/CT", "A/rt.dcm"), ("B", "x.dcm")]
    assert [each.is_beside for each in found.pairs] == [True, False]
    assert [each.scan.patient_id for each in found.pairs] == ["1", "2"]
    assert not found.orphans
    assert "patient_id" not in repr(found.pairs[0].scan)


def test_two_series_in_one_folder_are_two_scans(tmp_path: Path) -> None:
    first = write_series(tmp_path / "images/A", HOUNSFIELD)
    second = write_series(tmp_path / "images/A", HOUNSFIELD, order=lambda index: index + 50)
    for number, series in enumerate((first, second)):
        write_segmentation(tmp_path / f"masks/{number}.dcm", series, {"Lung": MASK})
    found = pair(tmp_path)
    assert [len(each.scan.paths) for each in found.pairs] == [6, 6]
    assert sorted(each.mask_path for each in found.pairs) == ["0.dcm", "1.dcm"]


def test_label_maps_belong_to_scans_of_their_names(tmp_path: Path) -> None:
    write_series(tmp_path / "images/A", HOUNSFIELD)
    for name in ("images/B.nii.gz", "images/sub/C_ct.nii", "masks/A.nii.gz", "masks/b_mask.nii"):
        write_nifti(tmp_path / name, HOUNSFIELD)
    write_nifti(tmp_path / "masks/sub/C-seg.nii.gz", MASK)
    assert names(pair(tmp_path)) == [
        ("A", "A.nii.gz"),
        ("B", "b_mask.nii"),
        ("sub/C_ct", "sub/C-seg.nii.gz"),
    ]


def test_label_maps_lie_among_scans(tmp_path: Path) -> None:
    for name in ("P1/images/ct.nii.gz", "P1/masks/ct.nii.gz", "P2.nii.gz", "P2_mask.nii.gz"):
        write_nifti(tmp_path / "images" / name, HOUNSFIELD)
    found = pair(tmp_path, masks=False)
    assert names(found) == [
        ("P1/images/ct", "P1/masks/ct.nii.gz"),
        ("P2", "P2_mask.nii.gz"),
    ]
    assert all(each.is_beside for each in found.pairs)


def test_patients_of_nifti_files_are_read_from_their_names(tmp_path: Path) -> None:
    for name in ("sub-1_a", "sub-1_b", "sub-2_a"):
        write_nifti(tmp_path / f"images/{name}.nii", HOUNSFIELD)
        write_nifti(tmp_path / f"masks/{name}.nii", MASK)
    found = pair(tmp_path, patient_pattern="^(?P<patient_id>[^_]+)")
    assert [each.scan.patient_id for each in found.pairs] == ["sub-1", "sub-1", "sub-2"]
    found = pair(tmp_path)
    assert len({each.scan.patient_id for each in found.pairs}) == 3


def test_what_is_no_ct_is_skipped_and_listed(tmp_path: Path) -> None:
    series = write_series(tmp_path / "images/A", HOUNSFIELD)
    write_segmentation(tmp_path / "masks/a.dcm", series, {"Lung": MASK})

    def scout(index, header):
        header.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    def mr(index, header):
        header.Modality, header.SOPClassUID = "MR", MRImageStorage

    write_series(tmp_path / "images/scout", HOUNSFIELD[:1], change=scout)
    write_series(tmp_path / "images/mr", HOUNSFIELD[:1], change=mr)

    def report(index, header):
        header.SOPClassUID = SecondaryCaptureImageStorage

    write_series(tmp_path / "images/report", HOUNSFIELD[:1], change=report)
    (tmp_path / "images/readme.txt").write_text("hello")
    found = pair(tmp_path)
    assert names(found) == [("A", "a.dcm")]
    assert found.skipped == (
        "images/mr/0000.dcm",
        "images/readme.txt",
        "images/report/0000.dcm",
        "images/scout/0000.dcm",
    )


def test_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    series = write_series(tmp_path / "images/A", HOUNSFIELD)
    write_segmentation(tmp_path / "masks/a.dcm", series, {"Lung": MASK})
    (tmp_path / "images/A/damaged.dcm").write_bytes(b"<html>")
    (entry,) = pair(tmp_path).refused
    assert entry.file == "images/A/damaged.dcm"
    assert entry.reason.startswith("cannot be read as DICOM")


def test_what_has_no_partner_or_two_is_told(tmp_path: Path) -> None:
    series = write_series(tmp_path / "images/A", HOUNSFIELD)
    write_series(tmp_path / "images/B", HOUNSFIELD)
    whole = write_series(tmp_path / "images/C", HOUNSFIELD)
    other = write_series(tmp_path / "elsewhere", HOUNSFIELD)
    write_segmentation(tmp_path / "masks/1.dcm", series, {"Lung": MASK})
    write_segmentation(tmp_path / "masks/2.dcm", series, {"Lung": MASK})
    write_segmentation(tmp_path / "masks/3.dcm", whole, {"Lung": MASK})
    write_segmentation(tmp_path / "masks/4.dcm", other, {"Lung": MASK})
    orphans = {entry.file: entry.reason for entry in pair(tmp_path).orphans}
    assert orphans.keys() == {"images/A", "images/B", "masks/4.dcm"}
    assert orphans["images/A"].startswith("has 2 masks (1.dcm, 2.dcm); expected one")
    assert "names this series, or B.nii.gz; add it" in orphans["images/B"]
    assert orphans["masks/4.dcm"].startswith("is the mask of no scan here")


def test_no_pair_at_all_is_an_error(tmp_path: Path) -> None:
    write_nifti(tmp_path / "images/A.nii", HOUNSFIELD)
    write_nifti(tmp_path / "masks/B.nii", MASK)
    with pytest.raises(PreprocessingError, match=r"none of 1 scans .* has a mask .* first: images"):
        pair(tmp_path)


@pytest.mark.parametrize("twin", ["A.nii", "a.nii.gz", "A_ct.nii.gz", "A/0000.dcm"])
def test_scans_of_one_name_are_refused(tmp_path: Path, twin: str) -> None:
    write_nifti(tmp_path / "images/A.nii.gz", HOUNSFIELD)
    if twin.endswith(".dcm"):
        write_series(tmp_path / "images/A", HOUNSFIELD)
    else:
        write_nifti(tmp_path / "images" / twin, HOUNSFIELD)
    write_nifti(tmp_path / "masks/A.nii.gz", MASK)
    with pytest.raises(PreprocessingError, match="differ in nothing but ending, case or marks"):
        pair(tmp_path)


def test_series_without_a_patient_are_patients_by_study(tmp_path: Path, caplog) -> None:
    def change(index, header):
        header.PatientID, header.StudyInstanceUID = "", "1.2.3"

    for name in ("A", "B"):
        series = write_series(tmp_path / "images" / name, HOUNSFIELD, change=change)
        write_segmentation(tmp_path / f"masks/{name}.dcm", series, {"Lung": MASK})
    found = pair(tmp_path)
    assert [each.scan.patient_id for each in found.pairs] == ["1.2.3", "1.2.3"]
    assert "2 series have no PatientID, such as A; each study of theirs" in caplog.text


def test_folder_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(PreprocessingError, match="does not exist; expected a folder of DICOM"):
        find_scans(tmp_path / "nothing", role="images")


def test_folder_is_read_as_what_it_holds(tmp_path: Path) -> None:
    def look(read: str = "auto") -> bool:
        return holds_volumes([tmp_path / "images"], read=read, leave_out=[])

    assert not look()
    write_nifti(tmp_path / "images/A.nii.gz", HOUNSFIELD)
    assert look()
    (tmp_path / "images/preview.png").write_bytes(b"")
    with pytest.raises(PreprocessingError, match=r"holds both, 1 DICOM .* and 1 images .* --read"):
        look()
    assert look("volumes")
    assert not look("slices")
