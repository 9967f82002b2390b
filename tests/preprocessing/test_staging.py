import os
import threading

import pytest

from preprocessing import staging
from preprocessing.errors import PreprocessingError
from preprocessing.staging import check_output, replace_output, staging_folder

SHARD = "train-00000-of-00001.tfrecord"


def make_dataset(folder, text="old"):
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text(text)
    (folder / SHARD).write_text(text)


def write_new(out, *, overwrite=False):
    with staging_folder(out, overwrite=overwrite) as folder:
        (folder / "dataset.json").write_text("new")
        (folder / f"{SHARD}.progress").write_text("...")
        replace_output(folder, out, filenames=["dataset.json"])


def write_half(out):
    with staging_folder(out, overwrite=True) as folder:
        (folder / SHARD).write_text("new")
        raise RuntimeError("boom")


def test_dataset_appears_whole_with_its_parents_and_nothing_is_left_beside(tmp_path):
    out = tmp_path / "a" / "b" / "dataset"
    write_new(out)
    assert os.listdir(out) == ["dataset.json"]
    assert os.listdir(out.parent) == ["dataset"]


def test_empty_folder_is_taken(tmp_path):
    (tmp_path / "dataset").mkdir()
    write_new(tmp_path / "dataset")
    assert os.listdir(tmp_path / "dataset") == ["dataset.json"]


def test_dataset_is_replaced_only_on_demand(tmp_path):
    out = tmp_path / "dataset"
    make_dataset(out)
    with pytest.raises(PreprocessingError, match="holds a dataset; pass --overwrite to replace it"):
        write_new(out)
    assert (out / "dataset.json").read_text() == "old"
    write_new(out, overwrite=True)
    assert os.listdir(out) == ["dataset.json"]
    assert (out / "dataset.json").read_text() == "new"
    assert os.listdir(tmp_path) == ["dataset"]


def test_folder_with_other_files_is_never_replaced(tmp_path):
    make_dataset(tmp_path / "dataset")
    (tmp_path / "dataset" / "thesis.tex").write_text("")
    with pytest.raises(PreprocessingError, match=r"holds 'thesis.tex', which is no part of a data"):
        check_output(tmp_path / "dataset", overwrite=True)


def test_file_is_never_replaced(tmp_path):
    (tmp_path / "dataset").write_text("")
    with pytest.raises(PreprocessingError, match="dataset is a file; expected a folder"):
        check_output(tmp_path / "dataset", overwrite=True)


def test_mount_point_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda _: True)
    with pytest.raises(PreprocessingError, match=r"is a mount point.*such as .*/dataset"):
        check_output(tmp_path, overwrite=True)


def test_failure_leaves_the_old_dataset_and_nothing_beside(tmp_path):
    out = tmp_path / "dataset"
    make_dataset(out)
    with pytest.raises(RuntimeError, match="boom"):
        write_half(out)
    assert (out / SHARD).read_text() == "old"
    assert os.listdir(tmp_path) == ["dataset"]


def test_rename_that_fails_gives_the_old_dataset_back(tmp_path):
    out = tmp_path / "dataset"
    make_dataset(out)
    with pytest.raises(FileNotFoundError), staging_folder(out, overwrite=True) as folder:
        replace_output(GoneFolder(folder), out, filenames=[])
    assert (out / SHARD).read_text() == "old"


class GoneFolder:
    """A folder that cannot be renamed."""

    def __init__(self, folder):
        self.folder = folder

    def __fspath__(self):
        return str(self.folder)

    def iterdir(self):
        return iter(())

    def rename(self, _):
        raise FileNotFoundError


def test_what_a_killed_run_left_is_cleared_away(tmp_path):
    (tmp_path / ".dataset.staging").mkdir()
    (tmp_path / ".dataset.staging" / SHARD).write_text("half")
    write_new(tmp_path / "dataset")
    assert os.listdir(tmp_path) == ["dataset"]


def test_dataset_comes_back_after_a_kill_between_two_renames(tmp_path):
    make_dataset(tmp_path / ".dataset.old")
    with pytest.raises(PreprocessingError, match="pass --overwrite"):
        write_new(tmp_path / "dataset")
    assert (tmp_path / "dataset" / SHARD).read_text() == "old"


def test_second_run_to_the_same_place_is_refused(tmp_path):
    out = tmp_path / "dataset"
    with (
        staging_folder(out, overwrite=False),
        pytest.raises(PreprocessingError, match=r"another run is writing to .*/dataset; wait"),
    ):
        write_new(out)
    write_new(out)


def test_folder_of_the_next_run_is_not_touched(tmp_path):
    out = tmp_path / "dataset"
    with staging_folder(out, overwrite=True) as folder:
        (folder / "dataset.json").write_text("new")
        replace_output(folder, out, filenames=["dataset.json"])
        folder.mkdir()
    assert sorted(os.listdir(tmp_path)) == [".dataset.staging", "dataset"]


def test_folder_published_before_it_was_locked_is_not_touched(tmp_path, monkeypatch):
    out = tmp_path / "dataset"

    def publish_first(*_):
        os.rename(tmp_path / ".dataset.staging", out)

    monkeypatch.setattr(staging.fcntl, "flock", publish_first)
    with pytest.raises(PreprocessingError, match="another run is writing"):
        write_new(out)


def test_folder_to_which_a_worker_still_writes_is_removed(tmp_path):
    def write_on(folder):
        for number in range(1000):
            try:
                (folder / f"{number}.progress").write_bytes(b"x" * 1000)
            except FileNotFoundError:
                return

    with pytest.raises(KeyboardInterrupt):  # noqa: PT012, the thread belongs to the block
        with staging_folder(tmp_path / "out", overwrite=False) as staging:
            worker = threading.Thread(target=write_on, args=(staging,))
            worker.start()
            raise KeyboardInterrupt
    worker.join()
    assert list(tmp_path.iterdir()) == []


def test_link_in_the_place_of_the_staging_folder_is_not_followed(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis").write_text("x")
    (tmp_path / ".dataset.staging").symlink_to(tmp_path / "precious")
    with pytest.raises(PreprocessingError, match="cannot be made .*Not a directory: .*staging"):
        write_new(tmp_path / "dataset")
    assert (tmp_path / "precious" / "thesis").exists()


def test_folder_in_the_staging_folder_is_cleared_away(tmp_path):
    (tmp_path / ".dataset.staging" / "more").mkdir(parents=True)
    write_new(tmp_path / "dataset")
    assert os.listdir(tmp_path) == ["dataset"]
