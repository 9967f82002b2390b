import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocessing.__main__ import main
from preprocessing.config import TfrecordsConfig
from preprocessing.errors import PreprocessingError
from preprocessing.manifest import DatasetManifest
from preprocessing.pipeline import run
from preprocessing.shards import ShardWriteError
from tests.scan_files import (
    chest,
    write_nifti,
    write_outlines,
    write_segmentation,
    write_series,
)

IDENTITIES = ("Doe", "Jane", "MRN", "0042", "19500102")
"""What no output may hold."""


def records(out: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Gives image and mask by the name of the slice."""
    import tensorflow as tf

    found = {}
    for path in sorted(out.glob("*.tfrecord")):
        for record in tf.data.TFRecordDataset(str(path)):
            features = tf.train.Example.FromString(record.numpy()).features.feature
            image, mask = (
                tf.io.decode_png(features[key].bytes_list.value[0]).numpy()[..., 0]
                for key in ("image/encoded", "image/segmentation/class/encoded")
            )
            found[features["image/filename"].bytes_list.value[0].decode()] = image, mask
    return found


def config(tmp_path: Path, **changes) -> TfrecordsConfig:
    return TfrecordsConfig(
        **{"images": tmp_path / "scans", "masks": tmp_path / "masks", "out": tmp_path / "dataset"}
        | changes
    )


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Three patients: one with DICOM and SEG, one with DICOM and NIfTI, one with NIfTI."""
    for number in range(3):
        hounsfield, mask = chest(seed=number)
        if number < 2:
            series = write_series(
                tmp_path / f"scans/P{number}", hounsfield, patient_id=f"MRN 0042-{number}"
            )
        else:
            write_nifti(tmp_path / f"scans/P{number}.nii.gz", hounsfield)
        if number == 0:
            write_segmentation(tmp_path / "masks/seg.dcm", series, {"Lung": mask})
        else:
            write_nifti(tmp_path / f"masks/P{number}.nii.gz", mask)
    return tmp_path


def test_records_hold_windowed_slices_from_feet_to_head(archive: Path) -> None:
    summary = run(config(archive))
    assert summary.num_refused_pairs == 0
    found = records(archive / "dataset")
    assert len(found) == 18
    patients = {name.partition("/")[0] for name in found}
    assert patients == {
        patient for split in summary.dataset.splits.values() for patient in split.patients
    }
    assert len(patients) == 3
    expected = [chest(seed=number) for number in range(3)]
    for patient in patients:
        names = sorted(name for name in found if name.startswith(patient))
        assert [name[-5:] for name in names] == [
            "z0000",
            "z0001",
            "z0002",
            "z0003",
            "z0004",
            "z0005",
        ]
        images, masks = (np.stack(each) for each in zip(*map(found.get, names), strict=True))
        gray_values = [
            np.rint(((hounsfield + 1350) / 1500).clip(0, 1) * 255) for hounsfield, _ in expected
        ]
        (number,) = (n for n in range(3) if np.array_equal(gray_values[n], images))
        np.testing.assert_array_equal(masks > 0, expected[number][1] > 0)
    assert summary.dataset.options["window_level_hu"] == -600
    assert summary.dataset.options["read"] == "volumes"


def test_nothing_tells_who_the_patient_is(archive: Path, caplog, capsys) -> None:
    write_series(archive / "scans/Doe Jane 0042", chest(seed=5)[0][:1])
    write_nifti(archive / "scans/Doe0042.nii.gz", chest(seed=6)[0])
    (archive / "scans/MRN.txt").write_text("hello")
    caplog.set_level(logging.DEBUG, logger="preprocessing")
    flags = ["--images", str(archive / "scans"), "--masks", str(archive / "masks")]
    flags += ["--allow-orphans", "--out", str(archive / "dataset")]
    assert main(["tfrecords", *flags]) == 0
    output = capsys.readouterr()
    # The terminal names files that are left out, as the user named them.
    assert "scans/Doe0042 has no mask" in output.out
    lines = output.out.splitlines()
    told = caplog.text + output.err + "".join(line for line in lines if "refused: " not in line)
    for path in (archive / "dataset").iterdir():
        told += path.read_bytes().decode("latin-1")
    for identity in IDENTITIES:
        assert identity not in told


def test_workers_are_told_pseudonyms_only(archive: Path, monkeypatch) -> None:
    from preprocessing.volumes import driver

    seen = []
    monkeypatch.setattr(driver, "collect", lambda plan, *, config, folder: seen.append(folder))
    folder = archive / ".dataset.slices"
    monkeypatch.setattr(
        driver,
        "write_text",
        lambda path, text: (seen.append(text), path.write_text(text)),
    )
    with pytest.raises(PreprocessingError, match="holds no BMP"):  # as there are no slices
        run(config(archive))
    assert folder in seen
    plans = [text for text in seen if isinstance(text, str)]
    assert len(plans) == 6  # three plans, and three reports
    for identity in IDENTITIES:
        assert not any(identity in text for text in plans)


def test_structures_that_were_taken_are_told(archive: Path, caplog) -> None:
    caplog.set_level(logging.INFO, logger="preprocessing")
    run(config(archive))
    assert "segments and structures that are the mask: Lung" in caplog.text


def test_marks_of_the_user_do_not_touch_names_of_slices(archive: Path) -> None:
    summary = run(config(archive, image_pattern="_?0000$"))
    assert sum(split.num_examples for split in summary.dataset.splits.values()) == 18


def test_same_salt_gives_the_same_bytes_on_every_engine(archive: Path) -> None:
    run(config(archive))
    first = DatasetManifest.load(archive / "dataset")
    run(config(archive, overwrite=True, runner="BundleBasedDirectRunner"))
    assert DatasetManifest.load(archive / "dataset") == first
    run(config(archive, out=archive / "other"))
    assert DatasetManifest.load(archive / "other").data_sha256() != first.data_sha256()
    run(config(archive, out=archive / "third", salt_file=archive / "dataset.salt"))
    assert DatasetManifest.load(archive / "third") == first
    assert sorted(path.name for path in archive.iterdir()) == [
        "dataset",
        "dataset.salt",
        "masks",
        "other",
        "other.salt",
        "scans",
        "third",
    ]


def test_earlier_dataset_pins_patients_by_their_pseudonyms(archive: Path) -> None:
    first = run(config(archive)).dataset
    other = config(
        archive,
        out=archive / "other",
        salt_file=archive / "dataset.salt",
        split_file=archive / "dataset/dataset.json",
        seed=5,
    )
    second = run(other).dataset
    for split in ("train", "validation"):
        assert second.splits[split].patients == first.splits[split].patients


def test_window_and_structure_are_chosen(archive: Path, tmp_path: Path) -> None:
    hounsfield, mask = chest(seed=0)
    series = sorted((archive / "scans/P0").iterdir())
    write_segmentation(archive / "masks/seg.dcm", series, {"Lung": mask, "Heart": 1 - mask})
    run(config(archive, structure="Heart", window_level_hu=40, window_width_hu=400))
    found = records(archive / "dataset")
    expected = np.rint(((hounsfield[3] + 160) / 400).clip(0, 1) * 255)
    (heart,) = (m for i, m in found.values() if np.array_equal(i, expected))
    np.testing.assert_array_equal(heart > 0, mask[3] == 0)


def test_refused_scan_ends_the_job_and_is_listed(archive: Path) -> None:
    (archive / "scans/P0/0003.dcm").unlink()
    with pytest.raises(PreprocessingError) as caught:
        run(config(archive))
    text = str(caught.value)
    assert text.startswith("1 of 3 scans are refused, more than --max-refused-fraction 0.01 allows")
    assert "scans/P0 is refused: P0/0002.dcm at -290.00 mm and P0/0004.dcm at" in text
    assert "slices missing between them: 1" in (archive / "dataset.refused.txt").read_text()
    assert not (archive / "dataset").exists()
    assert not list(archive.glob(".dataset*"))


def test_refused_scan_is_left_out_if_allowed(archive: Path) -> None:
    write_nifti(archive / "masks/P2.nii.gz", chest()[1][:, :, :4])
    write_nifti(archive / "scans/P3.nii.gz", chest()[0].clip(0, 99))
    write_nifti(archive / "masks/P3.nii.gz", chest()[1])
    write_nifti(archive / "scans/P4.nii.gz", chest(seed=4)[0])
    write_nifti(archive / "masks/P4.nii.gz", chest()[1])
    dataset = run(config(archive, max_refused_fraction=0.5)).dataset
    assert sum(split.num_examples for split in dataset.splits.values()) == 24
    (doubted,) = dataset.refused
    assert doubted.file.startswith("images/file-")
    assert doubted.reason.endswith("stands in dataset.refused.txt, beside the dataset")
    listed = (archive / "dataset.refused.txt").read_text()
    assert "scans/P3 holds values from 0 to 99 and so no air" in listed


def test_scan_without_a_mask_ends_the_job_unless_allowed(archive: Path) -> None:
    write_nifti(archive / "scans/P3.nii.gz", chest()[0])
    with pytest.raises(PreprocessingError, match=r"without a partner: 1.*scans/P3 has no mask"):
        run(config(archive))
    summary = run(config(archive, allow_orphans=True))
    assert len(summary.dataset.refused) == 1
    assert "scans/P3 has no mask" in (archive / "dataset.refused.txt").read_text()


def test_full_disk_is_told(archive: Path, monkeypatch) -> None:
    from preprocessing.volumes import slicing

    def fail(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(slicing, "_write", fail)
    with pytest.raises(ShardWriteError, match=r"cannot write slices of P0 .* No space left"):
        run(config(archive))


def test_left_overs_of_a_killed_run_are_cleared(archive: Path) -> None:
    (archive / ".dataset.slices/images").mkdir(parents=True)
    (archive / ".dataset.slices/images/old.png").write_bytes(b"")
    run(config(archive))
    assert not (archive / ".dataset.slices").exists()


def test_outlines_and_segments_make_the_same_records(tmp_path: Path) -> None:
    hounsfield, mask = chest()
    mask[...] = 0
    mask[2, 4:10, 2:9] = 1
    square = [(3.5, 1.5), (3.5, 8.5), (9.5, 8.5), (9.5, 1.5)]
    outline = [(-100 + 0.8 * x, -80 + 0.8 * y, -290.0) for y, x in square]
    for kind in ("seg", "rt"):
        for patient in range(2):
            folder = tmp_path / kind / f"P{patient}"
            series = write_series(folder / "ct", hounsfield, patient_id=str(patient))
            if kind == "seg":
                write_segmentation(folder / "lung.dcm", series, {"Lung": mask})
            else:
                write_outlines(folder / "lung.dcm", series, {"Lung": [outline]})
    (tmp_path / "salt").write_text("s" * 40)
    found = []
    for kind in ("seg", "rt"):
        out = tmp_path / f"dataset-{kind}"
        run(
            config(
                tmp_path, images=tmp_path / kind, masks=None, out=out, salt_file=tmp_path / "salt"
            )
        )
        found.append(sorted(mask.sum() for _, mask in records(out).values()))
    assert found[0] == found[1] == [0] * 10 + [42, 42]


def test_real_slices_as_scans_give_the_records_of_their_files(lctsc: Path, tmp_path: Path) -> None:
    expected = {}
    for patient in ("101", "104"):
        paths = sorted((lctsc / "images").glob(f"*-{patient}_z*.bmp"))[::4]
        images = np.stack([np.asarray(Image.open(path)) for path in paths])
        masks = np.stack([np.asarray(Image.open(lctsc / "masks" / path.name)) for path in paths])
        hounsfield = np.rint(images * (1500 / 255) - 1350).astype(np.int16)
        spacing = (5.0, 0.98, 0.98)
        series = write_series(
            tmp_path / f"scans/{patient}", hounsfield, patient_id=patient, spacing=spacing
        )
        write_segmentation(
            tmp_path / f"masks/{patient}.dcm", series, {"Lungs": (masks > 0).astype(np.uint8)}
        )
        expected |= {image.tobytes(): mask for image, mask in zip(images, masks, strict=True)}
    run(config(tmp_path))
    found = records(tmp_path / "dataset")
    assert len(found) == len(expected) > 20
    for image, mask in found.values():
        np.testing.assert_array_equal(mask > 0, expected[image.tobytes()] > 0)
