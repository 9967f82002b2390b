import csv
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom import DataElement, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.uid import MRImageStorage

from serving.__main__ import main
from serving.config import PredictConfig
from serving.embedded.server import EmbeddedServer
from serving.errors import InputError
from serving.volumes import job
from serving.volumes.scan_results import ScanSummary
from tests.scan_files import affine_of, chest, write_nifti, write_series

SHAPE = (8, 64, 64)
IDENTITIES = ("Doe", "Jane", "MRN", "0042", "19500102")
"""What no log and no picture may hold."""


def scan(*, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Gives Hounsfield units of which the tiny model finds just the lungs, and these."""
    _, mask = chest(SHAPE)
    mask[-1] = 0
    noise = np.random.default_rng(seed).integers(-20, 20, SHAPE)
    return (np.where(mask > 0, -850, 40) + noise).astype(np.int16), mask


HOUNSFIELD, MASK = scan()


def run(*inputs: Path, out: Path, target: str, **options: Any) -> tuple[ScanSummary, list[str]]:
    failures: list[str] = []
    config = PredictConfig(inputs=inputs, out=out, target=target, flips="none", **options)
    return job.run(config, on_failure=failures.append), failures


def labels_of(mask: np.ndarray) -> np.ndarray:
    """Gives 1 for the patient's right and 2 for the left, of a mask of `chest`."""
    return mask * np.where(np.arange(SHAPE[2]) < SHAPE[2] / 2, 1, 2).astype(np.uint8)


def test_series_becomes_lungs_in_milliliters(server: EmbeddedServer, tmp_path: Path) -> None:
    write_series(tmp_path / "scans/P1", HOUNSFIELD)
    summary, failures = run(tmp_path / "scans", out=tmp_path / "out", target=server.target)
    assert failures == []
    (result,) = summary.results
    voxel_ml = 5.0 * 0.8 * 0.8 / 1000
    labels = labels_of(MASK)
    assert result.name == "P1"
    assert result.right_ml == pytest.approx((labels == 1).sum() * voxel_ml, abs=0.01)
    assert result.left_ml == pytest.approx((labels == 2).sum() * voxel_ml, abs=0.01)
    assert result.lungs_ml == pytest.approx(MASK.sum() * voxel_ml, abs=0.01)
    assert result.num_slices == 8
    assert result.model_version == 3
    (row,) = csv.DictReader((tmp_path / "out/scans.csv").read_text().splitlines())
    assert float(row["lungs_ml"]) == result.lungs_ml
    document = json.loads((tmp_path / "out/P1/result.json").read_text())
    assert document["settings"]["window_level_hu"] == -600
    assert sorted(path.name for path in (tmp_path / "out/P1").iterdir()) == [
        "coronal.png",
        "lungs.dcm",
        "lungs.nii.gz",
        "result.json",
        "sagittal.png",
    ]


def test_segmentation_points_at_its_slices_voxel_by_voxel(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    paths = write_series(tmp_path / "P1", HOUNSFIELD, order=lambda index: (index * 3) % 8)
    run(tmp_path / "P1", out=tmp_path / "out", target=server.target)
    written = hd.seg.segread(tmp_path / "out/P1/lungs.dcm")
    source = dcmread(paths[0])
    assert written.PatientID == source.PatientID
    assert written.StudyInstanceUID == source.StudyInstanceUID
    assert written.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert [
        written.get_segment_description(number).segment_label for number in written.segment_numbers
    ] == ["right lung", "left lung"]
    assert written.SeriesDescription == "Lungs, predicted; not for diagnosis"
    volume = written.get_volume(combine_segments=True).to_patient_orientation("HPL")
    # Empty slices at the end are left out of the file.
    np.testing.assert_array_equal(volume.array, labels_of(MASK)[1:7])
    by_uid = {dcmread(path).SOPInstanceUID: path for path in paths}
    per_source = written.get_pixels_by_source_instance(list(by_uid), combine_segments=True)
    for uid, labels in zip(by_uid, per_source, strict=True):
        index = dcmread(by_uid[uid]).InstanceNumber - 1
        np.testing.assert_array_equal(labels, labels_of(MASK)[index])


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        ((1, 0, 0, 0, 1, 0), lambda array: array),
        ((-1, 0, 0, 0, -1, 0), lambda array: array[:, ::-1, ::-1]),
        ((-1, 0, 0, 0, 1, 0), lambda array: array[::-1, :, ::-1]),
        ((0, 1, 0, 1, 0, 0), lambda array: array[::-1].transpose(0, 2, 1)),
    ],
)
def test_lungs_are_restored_to_the_grid_of_the_files(
    server: EmbeddedServer, tmp_path: Path, orientation: Any, turn: Callable[[Any], Any]
) -> None:
    paths = write_series(tmp_path / "P1", turn(HOUNSFIELD), orientation=orientation)
    run(tmp_path / "P1", out=tmp_path / "out", target=server.target)
    written = hd.seg.segread(tmp_path / "out/P1/lungs.dcm")
    uids = [dcmread(path).SOPInstanceUID for path in paths]
    pixels = written.get_pixels_by_source_instance(uids, combine_segments=True)
    np.testing.assert_array_equal(pixels, turn(labels_of(MASK)))
    nifti = nib.as_closest_canonical(nib.load(tmp_path / "out/P1/lungs.nii.gz"))
    # RAS+: columns to the right, rows to the front.
    expected = labels_of(MASK).transpose(2, 1, 0)[::-1, ::-1]
    np.testing.assert_array_equal(np.asarray(nifti.dataobj), expected)


def test_nifti_comes_back_on_its_own_grid(server: EmbeddedServer, tmp_path: Path) -> None:
    image = nib.Nifti1Image(HOUNSFIELD.transpose(2, 1, 0), affine_of())
    target = nib.orientations.axcodes2ornt("SRP")
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(image.affine), target)
    )
    nib.save(turned, tmp_path / "P1.nii.gz")
    run(tmp_path / "P1.nii.gz", out=tmp_path / "out", target=server.target)
    written = nib.load(tmp_path / "out/P1/lungs.nii.gz")
    assert written.shape == turned.shape
    np.testing.assert_array_equal(written.affine, nib.load(tmp_path / "P1.nii.gz").affine)
    expected = nib.Nifti1Image(labels_of(MASK).transpose(2, 1, 0), affine_of()).as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(image.affine), target)
    )
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(expected.dataobj))
    assert not (tmp_path / "out/P1/lungs.dcm").exists()


def test_masks_are_those_of_the_slices_as_pictures(
    server: EmbeddedServer, tmp_path: Path, lctsc: Path
) -> None:
    from serving import predict

    paths = sorted((lctsc / "images").glob("*-103_z*.bmp"))[8:20]
    images = np.stack([np.asarray(Image.open(path)) for path in paths])
    hounsfield = np.rint(images * (1500 / 255) - 1350).astype(np.int16)
    write_nifti(tmp_path / "P1.nii", hounsfield, affine_of(spacing=(5.0, 0.98, 0.98)))
    run(tmp_path / "P1.nii", out=tmp_path / "out", target=server.target, postprocess=False)
    config = PredictConfig(
        inputs=paths, out=tmp_path / "pictures", target=server.target, postprocess=False,
        flips="none",
    )  # fmt: skip
    predict.run(config)
    expected = np.stack(
        [np.asarray(Image.open(tmp_path / f"pictures/masks/{path.stem}.png")) for path in paths]
    )
    written = np.asarray(nib.load(tmp_path / "out/P1/lungs.nii.gz").dataobj)
    np.testing.assert_array_equal(written.transpose(2, 1, 0) > 0, expected > 0)


def test_nobody_is_named_in_logs_and_pictures(
    server: EmbeddedServer, tmp_path: Path, capfd, caplog
) -> None:
    def change(index: int, header: Any) -> None:
        header.PatientID = "MRN 0042" * 20  # longer than the standard allows: pydicom would say so

    write_series(tmp_path / "scans/P1", HOUNSFIELD, change=change)
    caplog.set_level(logging.INFO)
    flags = ["--out", str(tmp_path / "out"), "--target", server.target]
    assert main(["predict", str(tmp_path / "scans"), *flags]) == 0
    output = capfd.readouterr()
    told = output.out + output.err + caplog.text
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file() and path.suffix != ".dcm":
            told += path.read_bytes().decode("latin-1")
    assert "P1: " in output.out
    for identity in IDENTITIES:
        assert identity not in told


def test_pictures_have_the_proportions_of_the_body(server: EmbeddedServer, tmp_path: Path) -> None:
    write_nifti(tmp_path / "P1.nii", HOUNSFIELD)
    run(tmp_path / "P1.nii", out=tmp_path / "out", target=server.target)
    # 8 slices of 5 mm are as high as 50 pixels of 0.8 mm; 64 pixels are enlarged eight times.
    for name in ("coronal", "sagittal"):
        picture = np.asarray(Image.open(tmp_path / f"out/P1/{name}.png"))
        assert picture.shape == (400, 512, 3)
    picture = np.asarray(Image.open(tmp_path / "out/P1/coronal.png")).astype(int)
    blue = picture[..., 2] - picture[..., 0] > 30
    assert blue[:, :256].sum() > blue[:, 256:].sum() > 0  # the larger right lung is at the left
    assert not blue[:40].any()  # the highest slice has no lung
    run(tmp_path / "P1.nii", out=tmp_path / "out", target=server.target, overlays=False)
    assert not list((tmp_path / "out/P1").glob("*.png"))


def test_finished_scans_are_skipped_until_something_changes(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    write_nifti(tmp_path / "scans/P1.nii", HOUNSFIELD)
    write_nifti(tmp_path / "scans/P2.nii", scan(seed=1)[0])

    def num_skipped(**options: Any) -> int:
        summary, _ = run(tmp_path / "scans", out=tmp_path / "out", target=server.target, **options)
        assert len(summary.results) == 2
        return summary.num_finished_before

    assert num_skipped() == 0
    assert num_skipped() == 2
    assert num_skipped(resume=False) == 0
    assert num_skipped(window_level_hu=-500) == 0
    assert num_skipped(window_level_hu=-500) == 2
    write_nifti(tmp_path / "scans/P2.nii", scan(seed=2)[0])
    assert num_skipped(window_level_hu=-500) == 1
    (tmp_path / "out/P1/result.json").write_text("{}")
    assert num_skipped(window_level_hu=-500) == 1


def test_two_series_of_one_folder_have_results_of_their_own(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    write_series(tmp_path / "P1", HOUNSFIELD)
    write_series(tmp_path / "P1", HOUNSFIELD, order=lambda index: 100 + index)
    summary, _ = run(tmp_path / "P1", out=tmp_path / "out", target=server.target)
    assert len({result.name for result in summary.results}) == 2
    for result in summary.results:
        assert re.fullmatch("P1_[0-9a-f]{8}", result.name)
        assert (tmp_path / f"out/{result.name}/lungs.dcm").is_file()


def test_scans_of_one_name_have_results_of_their_own(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    write_series(tmp_path / "scans/P1", HOUNSFIELD)
    write_nifti(tmp_path / "scans/P1.nii", HOUNSFIELD)
    summary, _ = run(tmp_path / "scans", out=tmp_path / "out", target=server.target)
    assert sorted(result.name for result in summary.results) == ["P1", "P1_2"]


@pytest.mark.parametrize(
    "changes",
    [
        {"PatientName": "Doe Jane", "PatientSex": "W"},
        {"PatientBirthDate": "02.01.1950", "StudyTime": "10:11"},
        dict.fromkeys(
            (
                "AccessionNumber",
                "PatientSex",
                "PatientBirthDate",
                "StudyID",
                "StudyDate",
                "StudyTime",
            )
        ),
        dict.fromkeys(("PatientName", "PatientID", "SliceThickness", "ReferringPhysicianName")),
    ],
)
def test_odd_and_missing_headers_still_give_a_segmentation(
    server: EmbeddedServer, tmp_path: Path, capfd, changes: dict[str, Any]
) -> None:
    def change(index: int, header: Any) -> None:
        for tag, value in changes.items():
            if value is None:
                delattr(header, tag)
            else:
                header[tag] = DataElement(tag, dictionary_VR(tag), value, validation_mode=0)

    write_series(tmp_path / "P1", HOUNSFIELD, change=change)
    summary, failures = run(tmp_path / "P1", out=tmp_path / "out", target=server.target)
    assert not failures
    assert not any("lungs.dcm" in warning for warning in summary.results[0].warnings)
    written = hd.seg.segread(tmp_path / "out/P1/lungs.dcm")
    volume = written.get_volume(combine_segments=True).to_patient_orientation("HPL")
    np.testing.assert_array_equal(volume.array, labels_of(MASK)[1:7])
    output = capfd.readouterr()
    for identity in IDENTITIES:
        assert identity not in output.out + output.err


def test_headers_that_make_no_segmentation_cost_the_segmentation_alone(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    def change(index: int, header: Any) -> None:
        del header.StudyInstanceUID

    write_series(tmp_path / "P1", HOUNSFIELD, change=change)
    summary, _ = run(tmp_path / "P1", out=tmp_path / "out", target=server.target)
    (result,) = summary.results
    assert result.lungs_ml
    assert (
        "lungs.dcm was not written: the headers of its slices lack what a SEG needs "
        "(AttributeError)" in result.warnings
    )
    assert not (tmp_path / "out/P1/lungs.dcm").exists()


def test_bad_scan_is_told_and_the_others_go_on(
    server: EmbeddedServer, tmp_path: Path, capsys
) -> None:
    paths = write_series(tmp_path / "scans/P1", HOUNSFIELD)
    paths[4].unlink()
    write_nifti(tmp_path / "scans/P2.nii", HOUNSFIELD)
    (tmp_path / "scans/P3.dcm").write_bytes(b"<html>")
    summary, failures = run(tmp_path / "scans", out=tmp_path / "out", target=server.target)
    assert len(failures) == 2
    assert "scans/P3.dcm cannot be read as DICOM" in failures[0]
    assert failures[1].startswith("P1 is refused: ")
    assert "slices missing between them: 1" in failures[1]
    assert [bool(result.error) for result in summary.results] == [True, True, False]
    flags = ["--out", str(tmp_path / "out"), "--target", server.target]
    assert main(["predict", str(tmp_path / "scans"), *flags]) == 1
    assert "2 failed; each reason stands above" in capsys.readouterr().out


def warnings_of(hounsfield: np.ndarray, tmp_path: Path, target: str) -> str:
    write_nifti(tmp_path / "P1.nii", hounsfield)
    summary, _ = run(tmp_path / "P1.nii", out=tmp_path / "out", target=target)
    return "; ".join(summary.results[0].warnings)


def test_strange_results_are_warned_of(server: EmbeddedServer, tmp_path: Path) -> None:
    assert "lungs of " in warnings_of(HOUNSFIELD, tmp_path, server.target)  # a small patient
    assert "are unusual; look at the pictures" in warnings_of(HOUNSFIELD, tmp_path, server.target)
    none = warnings_of(np.full(SHAPE, 40, np.int16), tmp_path, server.target)
    assert "holds values from 40 to 40 and so no air" in none
    assert "no lung was found; is it a CT of the chest" in none
    cut = HOUNSFIELD.copy()
    cut[[0, -1]] = cut[3]
    assert "reaches the lowest and the highest slice" in warnings_of(cut, tmp_path, server.target)
    joined = HOUNSFIELD.copy()
    joined[1:7, 20:44, 10:54] = -850
    assert "could not be told apart" in warnings_of(joined, tmp_path, server.target)


def test_what_is_no_ct_is_refused(server: EmbeddedServer, tmp_path: Path) -> None:
    def mr(index: int, header: Any) -> None:
        header.Modality, header.SOPClassUID = "MR", MRImageStorage

    write_series(tmp_path / "P1", HOUNSFIELD, change=mr)
    with pytest.raises(InputError, match="no CT series and no NIfTI volume; 8 files are something"):
        run(tmp_path / "P1", out=tmp_path / "out", target=server.target)


def test_results_need_a_folder_of_their_own(tmp_path: Path) -> None:
    write_nifti(tmp_path / "scans/P1.nii", HOUNSFIELD)
    with pytest.raises(InputError, match="is --out too; expected another folder"):
        run(tmp_path / "scans", out=tmp_path / "scans", target="localhost:1")


def test_server_that_is_gone_ends_the_run(tmp_path: Path) -> None:
    write_nifti(tmp_path / "scans/P1.nii", HOUNSFIELD)
    write_nifti(tmp_path / "scans/P2.nii", HOUNSFIELD)
    summary, _ = run(tmp_path / "scans", out=tmp_path / "out", target="localhost:1", timeout_s=3)
    assert summary.results == []
    assert summary.stopped.startswith("stopped with 2 scans left: ")


def test_scan_whose_slice_fails_has_no_result(fake_server, tmp_path: Path) -> None:
    def fail(request: Any, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.INTERNAL, "out of order")

    write_nifti(tmp_path / "P1.nii", HOUNSFIELD)
    target = fake_server(fail).target
    summary, failures = run(tmp_path / "P1.nii", out=tmp_path / "out", target=target)
    assert "out of order" in failures[0]
    assert failures[0].startswith("P1: ")
    assert summary.failed
    assert not (tmp_path / "out/P1/result.json").exists()


def test_encoded_signature_takes_no_volumes(tmp_path: Path) -> None:
    write_nifti(tmp_path / "P1.nii", HOUNSFIELD)
    with pytest.raises(InputError, match="takes BMP and PNG files; expected serving_default"):
        run(tmp_path / "P1.nii", out=tmp_path / "out", target="localhost:1", signature="encoded")


def test_out_that_cannot_be_written_is_told(server: EmbeddedServer, tmp_path: Path) -> None:
    write_nifti(tmp_path / "P1.nii", HOUNSFIELD)
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="out cannot be written"):
        run(tmp_path / "P1.nii", out=tmp_path / "out", target=server.target)
