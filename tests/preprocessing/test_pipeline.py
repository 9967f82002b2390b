import hashlib
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from preprocessing import pipeline, shards
from preprocessing.config import TfrecordsConfig
from preprocessing.errors import EngineError, PreprocessingError
from preprocessing.images.reading import read_mask, read_slice
from preprocessing.manifest import DatasetManifest
from preprocessing.pipeline import run
from preprocessing.records import parse_example
from preprocessing.shards import ShardWriteError


def make_config(pairs, **changes):
    return TfrecordsConfig(
        **{"images": pairs.images, "masks": pairs.masks, "out": pairs.out} | changes
    )


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def read_split(out, split):
    paths = [str(out / shard.filename) for shard in split.shards]
    return [parse_example(record) for record in tf.data.TFRecordDataset(paths)]


def assert_records_equal_files(summary, config):
    slice_ids = []
    for split in summary.dataset.splits.values():
        for example in read_split(config.out, split):
            name = f"{example['slice_id'].numpy().decode()}.bmp"
            image, mask = read_slice(config.images / name), read_mask(config.masks / name)
            np.testing.assert_array_equal(example["image"][..., 0], image)
            np.testing.assert_array_equal(example["mask"][..., 0], mask)
            assert example["patient_id"].numpy().decode() in split.patients
            slice_ids.append(name)
    return slice_ids


def test_every_slice_is_in_the_dataset_once_and_pixel_by_pixel(pairs):
    config = make_config(pairs, num_shards=3)
    summary = run(config)
    written = assert_records_equal_files(summary, config)
    assert sorted(written) == sorted(path.name for path in pairs.images.iterdir())
    assert DatasetManifest.load(pairs.out) == summary.dataset
    assert {name: split.num_examples for name, split in summary.dataset.splits.items()} == {
        "train": 16,
        "validation": 4,
    }
    assert sorted(os.listdir(pairs.out)) == sorted(
        ["dataset.json"]
        + [each.filename for split in summary.dataset.splits.values() for each in split.shards]
    )
    assert os.listdir(pairs.out.parent).count("dataset") == 1
    assert summary.record_bytes == sum(path.stat().st_size for path in pairs.out.glob("*.tfrec*"))


def test_manifest_tells_hashes_patients_and_statistics(pairs):
    dataset = run(make_config(pairs)).dataset
    found = hashes(pairs.out)
    for split in dataset.splits.values():
        assert all(found[each.filename] == each.sha256 for each in split.shards)
        assert sum(split.patients.values()) == split.num_examples
    assert dataset.split_by == "patient"
    assert sorted(dataset.versions) == ["apache-beam", "numpy", "pillow", "python", "zlib-ng"]
    train = read_split(pairs.out, dataset.splits["train"])
    images = np.stack([example["image"] for example in train]).astype(np.float64)
    masks = np.stack([example["mask"] for example in train])
    assert dataset.statistics.gray_value_mean == pytest.approx(images.mean(), rel=1e-12)
    assert dataset.statistics.gray_value_std == pytest.approx(images.std(), rel=1e-12)
    assert dataset.statistics.foreground_fraction == pytest.approx(masks.mean(), rel=1e-12)


@pytest.mark.parametrize(
    "changes",
    [
        {"runner": "DirectRunner"},
        {"beam_options": ("--direct_num_workers=1",)},
        {"beam_options": ("--direct_num_workers=4",)},
        {"beam_options": ("--direct_running_mode=in_memory", "--direct_num_workers=1")},
        {"runner": "BundleBasedDirectRunner"},
    ],
)
def test_every_engine_writes_the_same_bytes(pairs, changes):
    run(make_config(pairs, num_shards=3))
    expected = hashes(pairs.out)
    run(make_config(pairs, num_shards=3, out=pairs.out.with_name("again"), **changes))
    assert hashes(pairs.out.with_name("again")) == expected


def test_same_slices_in_another_place_give_the_same_bytes(pairs):
    run(make_config(pairs))
    moved = pairs.images.with_name("ct")
    pairs.images.rename(moved)
    run(make_config(pairs, images=moved, out=pairs.out.with_name("again")))
    assert hashes(pairs.out.with_name("again")) == hashes(pairs.out)


def test_another_number_of_shards_leaves_no_stale_shard(pairs):
    run(make_config(pairs, num_shards=4))
    run(make_config(pairs, num_shards=2, overwrite=True))
    assert sorted(path.name for path in pairs.out.glob("train*")) == [
        "train-00000-of-00002.tfrecord",
        "train-00001-of-00002.tfrecord",
    ]


def test_relative_folders_work(pairs, monkeypatch):
    monkeypatch.chdir(pairs.images.parent)
    config = TfrecordsConfig(
        images=pairs.images.relative_to(pairs.images.parent),
        masks=pairs.masks.relative_to(pairs.images.parent),
        out=pairs.out.relative_to(pairs.images.parent),
    )
    run(config)
    assert (pairs.out / "dataset.json").exists()


def test_unknown_patients_are_said_loudly_and_split_by_slice(empty_pairs, caplog):
    for index in range(10):
        empty_pairs.add(f"slice{index}", seed=index)
    dataset = run(make_config(empty_pairs)).dataset
    assert "NO PATIENT ID IN THE NAMES" in caplog.text
    assert dataset.split_by == "slice"
    assert dataset.splits["validation"].num_examples == 2
    assert dataset.splits["train"].patients == {}


def test_split_by_slice_on_demand_is_told_too(pairs, caplog):
    assert run(make_config(pairs, split_by="slice")).dataset.split_by == "slice"
    assert "split by slice, as asked" in caplog.text


def test_skipped_files_are_told(pairs, caplog):
    (pairs.images / "Thumbs.txt").write_text("")
    dataset = run(make_config(pairs)).dataset
    assert (
        "skipped 1 files that are no images, listed in dataset.json: images/Thumbs" in caplog.text
    )
    assert dataset.skipped == ("images/Thumbs.txt",)


def damage(pairs):
    """Makes one slice of each kind of bad input; returns what the manifest must say."""
    data = (pairs.images / "P0_z000.bmp").read_bytes()
    (pairs.images / "P0_z000.bmp").write_bytes(data[:-5])
    (pairs.masks / "P1_z000.bmp").write_bytes(b"")
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(pairs.masks / "P3_z000.bmp")
    Image.fromarray(np.arange(120, dtype=np.uint8).reshape(12, 10)).save(
        pairs.masks / "P4_z000.bmp"
    )
    return [
        "images/P0_z000.bmp",
        "masks/P1_z000.bmp",
        "masks/P3_z000.bmp",
        "masks/P4_z000.bmp",
    ]


def test_refused_files_are_in_the_manifest_with_their_reasons(pairs):
    expected = damage(pairs)
    summary = run(make_config(pairs, max_refused_fraction=0.2))
    assert [entry.file for entry in summary.dataset.refused] == expected
    assert (summary.num_refused_pairs, summary.num_orphans) == (4, 0)
    assert sum(split.num_examples for split in summary.dataset.splits.values()) == 16


def test_too_many_refused_files_end_the_job_and_are_all_listed(pairs):
    run(make_config(pairs))
    before = hashes(pairs.out)
    damage(pairs)
    config = make_config(pairs, max_refused_fraction=0.1, overwrite=True)
    with pytest.raises(
        PreprocessingError,
        match=r"4 of 20 slices are refused \(20.0 %\), more than --max-refused-fraction 0.1 "
        r"allows; no dataset was written; mend the files listed in .*/dataset.refused.txt, or all"
        r"ow more. "
        r"First: .*/images/P0_z000.bmp is a truncated BMP.*Also: masks/P1_z000.bmp, ",
    ):
        run(config)
    assert hashes(pairs.out) == before
    lines = pairs.out.with_name("dataset.refused.txt").read_text().splitlines()
    assert len(lines) == 4
    assert lines[1].startswith(f"{pairs.masks}/P1_z000.bmp is empty (0 bytes)")
    run(make_config(pairs, max_refused_fraction=0.2, overwrite=True))
    assert not pairs.out.with_name("dataset.refused.txt").exists()


def remove_partners(pairs):
    (pairs.masks / "P1_z000.bmp").unlink()
    (pairs.images / "P2_z000.bmp").unlink()


def test_files_without_a_partner_end_the_job_before_it_starts(pairs, monkeypatch):
    remove_partners(pairs)
    monkeypatch.setattr(pipeline, "_run_pipeline", None)
    with pytest.raises(
        PreprocessingError,
        match="files without a partner: 2, so nothing was written; first: .*images/P1_z000.bmp has "
        "no mask P1_z000.bmp; .*; all are listed in .*refused.txt; mend them, or pass --allow-orph",
    ):
        run(make_config(pairs))
    lines = pairs.out.with_name("dataset.refused.txt").read_text().splitlines()
    assert lines[1].startswith(f"{pairs.masks}/P2_z000.bmp has no slice P2_z000.bmp")
    assert not pairs.out.exists()


def test_files_without_a_partner_are_left_out_and_listed_if_that_is_allowed(pairs):
    remove_partners(pairs)
    summary = run(make_config(pairs, allow_orphans=True, max_refused_fraction=0))
    assert [entry.file for entry in summary.dataset.refused] == [
        "images/P1_z000.bmp",
        "masks/P2_z000.bmp",
    ]
    assert (summary.num_refused_pairs, summary.num_orphans) == (0, 2)
    assert sum(split.num_examples for split in summary.dataset.splits.values()) == 18


def test_masks_among_the_slices_give_the_same_records(pairs):
    run(make_config(pairs))
    both = pairs.images.with_name("both")
    shutil.copytree(pairs.images, both)
    for path in pairs.masks.iterdir():
        shutil.copy(path, both / f"{path.stem}_mask.bmp")
    out = pairs.out.with_name("again")
    run(make_config(pairs, images=both, masks=None, out=out))
    assert hashes(out) == hashes(pairs.out)


def test_labels_that_are_lung_can_be_named(pairs):
    for path in pairs.masks.iterdir():
        mask = np.asarray(Image.open(path)) // 255
        mask[:, 5:] *= 2
        mask[0, 0] = 7
        Image.fromarray(mask).save(path)
    summary = run(make_config(pairs, mask_foreground=(2,)))
    for example in read_split(pairs.out, summary.dataset.splits["train"]):
        stored = np.asarray(Image.open(pairs.masks / f"{example['slice_id'].numpy().decode()}.bmp"))
        np.testing.assert_array_equal(example["mask"][..., 0], stored == 2)
    assert summary.dataset.options["mask_foreground"] == [2]


def test_labels_that_occur_nowhere_are_told(pairs, caplog):
    run(make_config(pairs, mask_foreground=(255, 7)))
    assert (
        "--mask-foreground 255,7: no mask holds [7]; the masks hold [0, 255]; correct the labels"
    ) in caplog.text


def test_masks_without_any_of_the_labels_end_the_job(pairs):
    with pytest.raises(
        PreprocessingError, match="masks in which lung is --mask-foreground 7 and background is not"
    ):
        run(make_config(pairs, mask_foreground=(7,)))


def test_equal_slices_of_two_patients_are_said_loudly(pairs, caplog):
    run(make_config(pairs))
    assert "EQUAL SLICES" not in caplog.text
    for number in range(3):
        shutil.copy(pairs.images / f"P0_z00{number}.bmp", pairs.images / f"P3_z00{number}.bmp")
    run(make_config(pairs, overwrite=True))
    assert "EQUAL SLICES OF TWO PATIENTS: 3 slices equal those of another patient" in caplog.text
    assert "P0_z000" in caplog.text


def test_equal_slices_of_one_patient_and_flat_ones_are_no_matter(pairs, caplog):
    shutil.copy(pairs.images / "P0_z000.bmp", pairs.images / "P0_z001.bmp")
    for patient in (1, 2):
        flat = np.zeros((12, 10), np.uint8)
        Image.fromarray(flat).save(pairs.images / f"P{patient}_z000.bmp")
    run(make_config(pairs))
    assert "EQUAL SLICES" not in caplog.text


def test_raw_records_hold_the_same_pixels(pairs):
    config = make_config(pairs, encoding="raw")
    summary = run(config)
    assert len(assert_records_equal_files(summary, config)) == 20


def test_records_of_another_size_are_resized(pairs):
    summary = run(make_config(pairs, image_size=6))
    for example in read_split(pairs.out, summary.dataset.splits["train"]):
        assert example["image"].shape == example["mask"].shape == (6, 6, 1)
        assert set(np.unique(example["mask"])) <= {0, 1}
    assert summary.dataset.options["image_size"] == 6


def test_pair_of_two_bad_files_counts_once(pairs):
    (pairs.images / "P0_z000.bmp").write_bytes(b"")
    (pairs.masks / "P0_z000.bmp").write_bytes(b"")
    summary = run(make_config(pairs, max_refused_fraction=0.05))
    assert summary.num_refused_pairs == 1
    assert len(summary.dataset.refused) == 2


def test_split_of_which_all_slices_are_refused_ends_the_job(pairs):
    validation = run(make_config(pairs)).dataset.splits["validation"]
    (patient_id,) = validation.patients
    for path in pairs.masks.glob(f"{patient_id}_*"):
        path.write_bytes(b"")
    with pytest.raises(PreprocessingError, match="all slices of the validation split were refused"):
        run(make_config(pairs, max_refused_fraction=1, overwrite=True))


def fill_masks(pairs, gray_value, *, pattern="*"):
    for path in pairs.masks.glob(pattern):
        Image.fromarray(np.full((12, 10), gray_value, np.uint8)).save(path)


@pytest.mark.parametrize(("gray_value", "found"), [(0, "empty"), (255, "lung everywhere")])
def test_training_masks_from_which_nothing_can_be_learned_end_the_job(pairs, gray_value, found):
    fill_masks(pairs, gray_value)
    with pytest.raises(
        PreprocessingError, match=f"the masks of all 16 training slices are {found}; expected masks"
    ):
        run(make_config(pairs))
    assert not pairs.out.exists()


def test_validation_without_lung_is_said_loudly(pairs, caplog):
    (patient_id,) = run(make_config(pairs)).dataset.splits["validation"].patients
    assert caplog.text == ""
    fill_masks(pairs, 0, pattern=f"{patient_id}_*")
    run(make_config(pairs, overwrite=True))
    assert "NO LUNG IN VALIDATION: the masks of all 4 validation slices are empty" in caplog.text


def test_masks_in_place_of_slices_are_said_loudly(pairs, caplog):
    copies = shutil.copytree(pairs.masks, pairs.out.with_name("copies"))
    run(make_config(pairs, images=copies))
    assert "SLICES THAT LOOK LIKE MASKS: none of 20 slices holds more than two" in caplog.text


def test_swapped_folders_are_asked_for(pairs):
    (pairs.images / "P0_z000.bmp").write_bytes(b"")
    with pytest.raises(
        PreprocessingError, match="; are --images and --masks swapped[?] If not, me"
    ):
        run(make_config(pairs, images=pairs.masks, masks=pairs.images))


def test_same_folder_for_slices_and_masks_is_refused(pairs):
    with pytest.raises(PreprocessingError, match="--images and --masks are the same folder"):
        run(make_config(pairs, masks=pairs.images))


def test_failed_write_in_a_worker_is_one_clear_line(pairs, monkeypatch):
    def fail(_):
        raise OSError(28, "No space left on device")

    run(make_config(pairs))
    before = hashes(pairs.out)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ShardWriteError) as caught:
        run(make_config(pairs, overwrite=True))
    assert str(caught.value).startswith("cannot write ")
    assert str(caught.value).endswith(
        "No space left on device; make room or choose another --out, then run again"
    )
    assert hashes(pairs.out) == before
    assert sorted(os.listdir(pairs.out.parent)) == ["dataset", "images", "masks"]


def test_other_failure_in_a_worker_is_not_hidden(pairs, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(shards, "write_record", fail)
    with pytest.raises(
        EngineError, match="^the engine FnApiRunner failed: ZeroDivisionError: a bug"
    ):
        run(make_config(pairs))
    assert not pairs.out.exists()
    report = pairs.out.with_name("dataset.engine.txt")
    assert "in write_shard\n" in report.read_text()
    monkeypatch.undo()
    run(make_config(pairs))
    assert not report.exists()


KILL_BEFORE_RENAME = """
import os, signal, sys
from preprocessing import __main__ as command

rename, left = os.rename, int(sys.argv[1])
def rename_or_die(source, target):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(source, target)

os.rename = os.replace = rename_or_die
sys.exit(command.main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("num_renames", "is_old_readable"),
    [(1, True), (2, True), (3, True), (4, True), (5, False)],
    ids=[
        "before the first shard",
        "after it",
        "before the manifest",
        "before the old one moves",
        "after it moved",
    ],
)
def test_killed_run_leaves_the_old_dataset_or_none_and_the_next_completes(
    pairs, num_renames, is_old_readable
):
    run(make_config(pairs, seed=1))
    old = hashes(pairs.out)
    arguments = ["--images", pairs.images, "--masks", pairs.masks, "--out", pairs.out]
    killed = subprocess.run(
        [sys.executable, "-c", KILL_BEFORE_RENAME, str(num_renames), "tfrecords", "--overwrite"]
        + arguments,
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert pairs.out.exists() == is_old_readable
    if is_old_readable:
        assert hashes(pairs.out) == old
    summary = run(make_config(pairs, overwrite=True))
    assert DatasetManifest.load(pairs.out) == summary.dataset
    assert hashes(pairs.out) != old
    assert sorted(os.listdir(pairs.out.parent)) == ["dataset", "images", "masks"]


def test_no_worker_loads_tensorflow():
    code = (
        "import sys, preprocessing.pipeline, preprocessing.shards, preprocessing.records;"
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_worker_loads_no_more_than_it_needs():
    code = (
        "import sys, preprocessing.shards;"
        "sys.exit(bool({'tensorflow', 'apache_beam', 'tqdm'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_real_slices_come_back_equal(lctsc, tmp_path):
    config = TfrecordsConfig(
        images=lctsc / "images", masks=lctsc / "masks", out=tmp_path / "dataset"
    )
    summary = run(config)
    assert len(assert_records_equal_files(summary, config)) == 236
    assert len(summary.dataset.splits["train"].patients) == 4
    assert len(summary.dataset.splits["validation"].patients) == 1
    assert summary.record_bytes < 0.25 * summary.input_bytes
