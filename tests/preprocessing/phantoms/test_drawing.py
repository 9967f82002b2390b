import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocessing.errors import PreprocessingError
from preprocessing.phantoms.drawing import (
    PhantomsConfig,
    slice_level,
    slice_name,
    write_phantoms,
)
from preprocessing.phantoms.painting import draw_slice
from preprocessing.phantoms.patient import sample_patient
from preprocessing.phantoms.scanner import sample_scan


def _lung_share(seed: int, z: float) -> float:
    rng = np.random.default_rng(seed)
    patient = sample_patient(rng)
    scan = sample_scan(rng, patient=patient)
    return float(draw_slice(patient, scan, z=z, image_size=64, rng=rng)[1].mean())


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _config(out: Path, **changes: int) -> PhantomsConfig:
    settings = {"num_patients": 2, "slices_per_patient": 3, "image_size": 64} | changes
    return PhantomsConfig(out=out, **settings)


def test_lung_fraction_and_share_of_empty_masks_are_as_in_real_scans() -> None:
    levels = [slice_level(k, slices_per_patient=12) for k in range(12)]
    fractions = np.array([[_lung_share(s, z) for z in levels] for s in range(15)])
    # Real scans: about one slice in five is empty; at most about a tenth of the image is lung.
    assert 0.15 <= (fractions == 0).mean() <= 0.3
    assert 0.07 <= fractions.max(axis=1).mean() <= 0.14
    assert fractions.max() < 0.25


def test_names_begin_with_the_patient_id() -> None:
    name = slice_name(patient_index=0, slice_index=3)
    assert name == "phantom-0001_z003"
    assert name.split("_z")[0] == "phantom-0001"


def test_levels_run_from_abdomen_to_neck() -> None:
    assert [slice_level(k, slices_per_patient=5) for k in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    assert slice_level(0, slices_per_patient=1) == 0.5


def test_folder_holds_gray_bmp_pairs_with_masks_of_0_and_255(tmp_path: Path) -> None:
    out = tmp_path / "new" / "phantoms"
    assert write_phantoms(_config(out)) == 6
    names = [f"phantom-{p:04d}_z{k:03d}.bmp" for p in (1, 2) for k in range(3)]
    for folder in ("images", "masks"):
        assert sorted(path.name for path in (out / folder).iterdir()) == names
    with Image.open(out / "images" / names[1]) as image:
        assert (image.format, image.mode, image.size) == ("BMP", "L", (64, 64))
    with Image.open(out / "masks" / names[1]) as mask:
        assert (mask.format, mask.mode) == ("BMP", "L")
        assert np.unique(np.asarray(mask)).tolist() == [0, 255]
    assert json.loads((out / "phantoms.json").read_text())["num_patients"] == 2
    assert [path.name for path in out.parent.iterdir()] == ["phantoms"]


def test_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for folder, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_phantoms(_config(tmp_path / folder, seed=seed))
    a, b, c = (_files(tmp_path / folder) for folder in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert not any(a[name] == c[name] for name in a if name.startswith("images"))


def test_patient_does_not_depend_on_the_number_of_patients(tmp_path: Path) -> None:
    write_phantoms(_config(tmp_path / "few", num_patients=1))
    write_phantoms(_config(tmp_path / "many", num_patients=3))
    few, many = _files(tmp_path / "few"), _files(tmp_path / "many")
    assert all(many[name] == few[name] for name in few if name.endswith(".bmp"))


def test_empty_folder_is_filled(tmp_path: Path) -> None:
    assert write_phantoms(_config(tmp_path, num_patients=1)) == 3


def test_folder_with_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(
        PreprocessingError, match="folder with files in it; expected a new or an empty"
    ):
        write_phantoms(_config(tmp_path))
    assert _files(tmp_path) == {"mine.txt": b"mine"}


def test_file_instead_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(
        PreprocessingError, match="out is a file; expected the name of a new folder"
    ):
        write_phantoms(_config(tmp_path / "out"))


def test_folder_that_cannot_be_made_is_told_with_the_flag(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(
        PreprocessingError, match=r"--out .*/file/out cannot be written: .*; choose another$"
    ):
        write_phantoms(_config(tmp_path / "file" / "out"))


def test_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(PreprocessingError, match="No space left"):
        write_phantoms(_config(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_patients", 0, "num_patients is 0; expected 1 to 9999"),
        ("num_patients", 10_000, "num_patients is 10000; expected 1 to 9999"),
        ("slices_per_patient", 0, "slices_per_patient is 0; expected 1 to 1000"),
        ("image_size", 31, "image_size is 31; expected 32 to 4096"),
        ("image_size", 4097, "image_size is 4097; expected 32 to 4096"),
        ("seed", -1, "seed is -1; expected 0 to"),
    ],
)
def test_number_out_of_range_is_refused(field: str, value: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PhantomsConfig(out=Path("out"), **{field: value})
