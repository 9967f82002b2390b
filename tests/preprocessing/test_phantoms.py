import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocessing.errors import PreprocessingError
from preprocessing.phantoms.acquisition import (
    ScanSettings,
    acquire,
    pose,
    sample_scan,
    to_gray_values,
)
from preprocessing.phantoms.anatomy import CARINA_LEVEL, PatientAnatomy, profile, sample_patient
from preprocessing.phantoms.body import paint_abdomen, paint_body, paint_lungs
from preprocessing.phantoms.bones import paint_spine
from preprocessing.phantoms.canvas import AIR_HU, Canvas, Grid, Pose, smooth_max
from preprocessing.phantoms.drawing import (
    PhantomsConfig,
    draw_slice,
    slice_level,
    slice_name,
    write_phantoms,
)
from preprocessing.phantoms.section import cut_section

SIZE = 128
NO_WARP = np.zeros((2, 7, 7), np.float32)


def _patient(seed: int) -> tuple[PatientAnatomy, ScanSettings]:
    rng = np.random.default_rng(seed)
    patient = sample_patient(rng)
    return patient, sample_scan(rng, patient=patient)


def _draw(seed: int, z: float, image_size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    patient, scan = _patient(seed)
    return draw_slice(patient, scan, z=z, image_size=image_size, rng=np.random.default_rng(9))


def _canvas(image_size: int = 64) -> Canvas:
    """A canvas on which a pixel is a millimeter, and x = y = 0 is a corner of four pixels."""
    grid = Grid(image_size=image_size, fov_mm=float(image_size), x_mm=0, y_mm=0)
    pose = Pose(width_scale=1, depth_scale=1, roll_degrees=0, back_mm=0)
    return Canvas(grid=grid, pose=pose, warp_mm=NO_WARP)


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _config(out: Path, **changes: int) -> PhantomsConfig:
    settings = {"num_patients": 2, "slices_per_patient": 3, "image_size": 64} | changes
    return PhantomsConfig(out=out, **settings)


def test_painting_covers_lung_and_only_paint_lung_adds_it() -> None:
    canvas = _canvas()
    canvas.paint_lung(np.ones((64, 64), np.float32), np.full((64, 64), -850, np.float32))
    canvas.ellipse((0, 0), (10, 5), 40)
    assert canvas.lung[32, 32] == 0
    assert canvas.hu[32, 32] == 40
    assert canvas.lung[32, 45] == 1
    assert canvas.hu[32, 45] == -850
    # The covered area is that of the ellipse, 157.1 pixels, although its edge is soft.
    assert 64 * 64 - canvas.lung.sum() == pytest.approx(np.pi * 10 * 5, abs=2)


def test_ellipse_without_size_paints_nothing() -> None:
    canvas = _canvas()
    canvas.ellipse((0, 0), (0, 5), 40)
    assert (canvas.hu == AIR_HU).all()


def test_ellipse_stays_within_a_given_shape() -> None:
    canvas = _canvas()
    canvas.ellipse((0, 0), (10, 10), 0.0, within=canvas.x)
    assert (canvas.hu[:, 33:] == AIR_HU).all()
    assert (canvas.hu - AIR_HU).sum() / 1000 == pytest.approx(np.pi * 100 / 2, abs=2)


def test_capsule_has_the_area_of_a_rectangle_and_a_circle() -> None:
    canvas = _canvas()
    canvas.capsule((-10, 3), (10, 3), 4, 0.0)
    assert (canvas.hu - AIR_HU).sum() / 1000 == pytest.approx(20 * 8 + np.pi * 16, abs=2)


def test_shape_beyond_the_border_is_cut_off() -> None:
    canvas = _canvas()
    canvas.ellipse((-32, -32), (10, 10), 0.0)
    canvas.ellipse((500, 500), (10, 10), 0.0)
    assert (canvas.hu - AIR_HU).sum() / 1000 == pytest.approx(np.pi * 100 / 4, abs=2)
    assert (canvas.hu[32:, 32:] == AIR_HU).all()


def test_pixel_is_the_inverse_of_the_coordinates() -> None:
    grid = Grid(image_size=100, fov_mm=300, x_mm=7, y_mm=-120)
    pose = Pose(width_scale=0.9, depth_scale=1.1, roll_degrees=6, back_mm=4)
    canvas = Canvas(grid=grid, pose=pose, warp_mm=NO_WARP)
    column, row = canvas.pixel(float(canvas.x[20, 70]), float(canvas.y[20, 70]))
    assert (column, row) == (pytest.approx(70.5, abs=1e-3), pytest.approx(20.5, abs=1e-3))


def test_smooth_max_differs_from_max_only_near_the_corner() -> None:
    a, b = np.float32([0, 5, -9]), np.float32([0, -5, 3])
    np.testing.assert_allclose(smooth_max(a, b, rounding_mm=4), [1, 5, 3])


def test_window_maps_its_ends_to_the_gray_range() -> None:
    hu = np.float32([-3024, -1350, -1000, -600, 150, 3000])
    gray_values = to_gray_values(hu, low_hu=-1350, high_hu=150)
    # Air: 350 / 1500 * 255 = 59.5, which float32 may round either way.
    assert gray_values[2] in (59, 60)
    assert gray_values.dtype == np.uint8
    assert gray_values[[0, 1, 3, 4, 5]].tolist() == [0, 0, 128, 255, 255]


def test_noise_has_the_asked_deviation_and_blur_does_not_wrap_around() -> None:
    _, scan = _patient(0)
    scan = dataclasses.replace(
        scan, couch="none", gantry_radius=2.0, fov_mm=100.0, blur_mm=0.6, noise_hu=20.0
    )
    hu = np.zeros((256, 256), np.float32)
    hu[:, -1] = 3000
    scan = dataclasses.replace(scan, window_low_hu=-500.0, window_high_hu=500.0)
    middle = np.zeros_like(hu)
    image = acquire(hu, scan, body_distance=middle, rng=np.random.default_rng(0))
    # 0 HU is gray value 127.5, and 1,000 HU are 255 gray values.
    assert image[:, :128].mean() == pytest.approx(127.5, abs=0.3)
    assert image[:, 0].mean() == pytest.approx(127.5, abs=1)
    assert image[:, :128].std() * 1000 / 255 == pytest.approx(20, rel=0.05)


def test_profile_is_interpolated_between_levels() -> None:
    assert profile("lung_x", 0.625) == pytest.approx((68 + 58) / 2)
    assert profile("lung_x", 7.0) == 41


@pytest.mark.parametrize("image_size", [64, 101])
def test_slice_has_the_asked_size_and_a_binary_mask(image_size: int) -> None:
    image, mask = _draw(seed=1, z=0.5, image_size=image_size)
    assert image.shape == mask.shape == (image_size, image_size)
    assert image.dtype == mask.dtype == np.uint8
    assert np.unique(mask).tolist() == [0, 1]


def test_ends_of_every_patient_show_no_lung_and_the_middle_shows_both() -> None:
    for seed in range(12):
        assert not _draw(seed, z=0.0)[1].any(), f"lung in the abdomen of patient {seed}"
        assert not _draw(seed, z=1.0)[1].any(), f"lung in the neck of patient {seed}"
        _, mask = _draw(seed, z=0.55)
        halves = mask[:, : SIZE // 2].mean(), mask[:, SIZE // 2 :].mean()
        assert min(halves) > 0.02, f"a lung of patient {seed} is missing: {halves}"


def test_lung_fraction_and_share_of_empty_masks_are_as_in_real_scans() -> None:
    levels = [slice_level(k, slices_per_patient=12) for k in range(12)]
    fractions = np.array([[_draw(s, z, 64)[1].mean() for z in levels] for s in range(15)])
    # Real scans: about one slice in five is empty; at most about a tenth of the image is lung.
    assert 0.15 <= (fractions == 0).mean() <= 0.3
    assert 0.07 <= fractions.max(axis=1).mean() <= 0.14
    assert fractions.max() < 0.25


def test_lungs_are_small_at_both_ends_and_large_in_the_middle() -> None:
    for seed in range(5):
        patient, _ = _patient(seed)
        span = patient.apex_z - patient.base_z
        base, middle, apex = (
            _draw(seed, z=patient.base_z + share * span)[1].sum() for share in (0.08, 0.6, 0.96)
        )
        assert 0 < base < middle / 4
        assert 0 < apex < middle / 4


def test_lungs_lie_in_the_darkest_part_of_the_body() -> None:
    for seed in range(5):
        image, mask = _draw(seed, z=0.6)
        assert 60 <= np.median(image[mask == 1]) <= 125
        assert np.percentile(image[mask == 1], 99) > 150, "no vessels inside the lungs"


def test_right_of_the_patient_is_on_the_left_of_the_image() -> None:
    patient, scan = _patient(0)
    patient = dataclasses.replace(patient, dome_level=(0.45, 0.3), roll_degrees=0.0)
    # At this level only the right half of the diaphragm, with the liver under it, is cut.
    z = patient.base_z + 0.4 * (patient.apex_z - patient.base_z)
    canvas = Canvas(grid=scan.grid(SIZE), pose=pose(patient), warp_mm=NO_WARP)
    section = cut_section(canvas, patient, z=z, rng=np.random.default_rng(0))
    paint_lungs(canvas, section)
    middle = round(canvas.pixel(0.0, 0.0)[0])
    left_of_image, right_of_image = canvas.lung[:, :middle].sum(), canvas.lung[:, middle:].sum()
    assert left_of_image == pytest.approx(right_of_image, rel=0.1)
    paint_abdomen(canvas, section)
    assert canvas.lung[:, :middle].sum() < 0.8 * left_of_image
    assert canvas.lung[:, middle:].sum() == pytest.approx(right_of_image, rel=0.01)


def test_spine_is_at_the_bottom_of_the_image_above_the_couch() -> None:
    for seed in range(4):
        patient, scan = _patient(seed)
        canvas = Canvas(grid=scan.grid(SIZE), pose=pose(patient), warp_mm=NO_WARP)
        section = cut_section(canvas, patient, z=0.5, rng=np.random.default_rng(0))
        paint_body(canvas, section)
        body_rows = np.nonzero((canvas.hu > -200).any(axis=1))[0]
        paint_spine(canvas, section)
        bone_rows = np.nonzero((canvas.hu > 300).any(axis=1))[0]
        assert np.median(body_rows) < bone_rows.min()
        assert bone_rows.max() < body_rows.max()
        couch_row = -scan.grid(SIZE).axes()[1][0, 0] / scan.grid(SIZE).pixel_mm
        assert body_rows.max() == pytest.approx(couch_row, abs=5)


def test_windpipe_is_dark_and_not_in_the_mask() -> None:
    for seed in range(6):
        patient, scan = _patient(seed)
        level = CARINA_LEVEL + 0.15
        z = patient.base_z + level * (patient.apex_z - patient.base_z)
        image, mask = _draw(seed, z=z, image_size=256)
        row, column = _windpipe(patient, scan, level=level)
        window = slice(row - 5, row + 6), slice(column - 5, column + 6)
        air = image[window] < to_gray_values(
            np.float32([-850]), low_hu=scan.window_low_hu, high_hu=scan.window_high_hu
        )
        assert air.any(), f"no air in the windpipe of patient {seed}"
        assert not mask[window][air].any(), f"windpipe of patient {seed} is in the mask"


def _windpipe(patient: PatientAnatomy, scan: ScanSettings, *, level: float) -> tuple[int, int]:
    canvas = Canvas(grid=scan.grid(256), pose=pose(patient), warp_mm=NO_WARP)
    column, row = canvas.pixel(0.0, profile("spine_y", level) - 36)
    return int(row), int(column)


def test_no_threshold_on_gray_values_finds_the_lungs() -> None:
    """Air around the body and in the windpipe is as dark as lung."""
    image, mask = _draw(seed=3, z=0.5)
    assert (mask == 1).any()
    best = max(
        2 * ((image < t) & (mask == 1)).sum() / ((image < t).sum() + mask.sum())
        for t in range(1, 256)
    )
    assert best < 0.5


def test_outside_of_the_gantry_circle_all_pixels_are_black() -> None:
    for seed in range(30):
        patient, scan = _patient(seed)
        if scan.gantry_radius < 1.05 and scan.outside_hu < AIR_HU:
            image, _ = _draw(seed, z=0.5)
            assert image[0, 0] == image[0, -1] == image[-1, 0] == image[-1, -1] == 0
            return
    pytest.fail("none of 30 patients has a gantry circle")


def test_noise_is_drawn_anew_for_each_generator() -> None:
    patient, scan = _patient(2)
    images = [
        draw_slice(patient, scan, z=0.5, image_size=64, rng=np.random.default_rng(seed))[0]
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(images[0], images[1])
    assert (images[0] != images[2]).mean() > 0.1


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
