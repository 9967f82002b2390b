"""A disk that fills up at any moment ends a run in a clear line and leaves nothing behind."""

import errno
import os
import subprocess
import threading
from pathlib import Path

import pytest

from preprocessing import __main__ as command
from preprocessing.config import TfrecordsConfig
from preprocessing.manifest import DatasetManifest
from preprocessing.pipeline import run

PAGE_BYTES = 4096


class LimitedDisk:
    """Files of a folder take so many bytes in all; what is removed makes room again."""

    def __init__(self, folder, *, num_bytes):
        self.folder, self.num_bytes, self.most_used = folder, num_bytes, 0
        self.lock = threading.Lock()

    def open(self, path, mode="r", *arguments, **options):
        file = OPEN(path, mode, *arguments, **options)
        return LimitedFile(file, self) if set(mode) & set("wxa") else file

    def write(self, file, content):
        with self.lock:
            used = len(content.encode() if isinstance(content, str) else content)
            used += sum(size_of(path) for path in self.folder.rglob("*"))
            if used > self.num_bytes:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.most_used = max(used, self.most_used)
            file.write(content)
            file.flush()


def size_of(path):
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0  # another worker has just removed or renamed it


class LimitedFile:
    def __init__(self, file, disk):
        self.file, self.disk = file, disk

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, content):
        self.disk.write(self.file, content)


OPEN = Path.open


def run_on_limited_disk(pairs, monkeypatch, *, num_bytes):
    disk = LimitedDisk(pairs.out.with_name(".dataset.staging"), num_bytes=num_bytes)
    arguments = ["--images", pairs.images, "--masks", pairs.masks, "--out", pairs.out]
    with monkeypatch.context() as patch:
        patch.setattr(
            Path, "open", lambda path, *more, **options: disk.open(path, *more, **options)
        )
        status = command.main(["tfrecords", *map(str, arguments), "--overwrite"])
    return status, disk


def test_run_ends_in_one_line_wherever_the_disk_fills_up(pairs, monkeypatch, capsys):
    status, disk = run_on_limited_disk(pairs, monkeypatch, num_bytes=2**30)
    assert status == 0
    num_bytes = disk.most_used
    run(
        TfrecordsConfig(
            images=pairs.images, masks=pairs.masks, out=pairs.out, seed=5, overwrite=True
        )
    )
    old = sorted(path.read_bytes() for path in pairs.out.iterdir())
    capsys.readouterr()
    # Everywhere from the first byte to the last ones, which are those of dataset.json; at least so
    # much that the reason finds room once the shards are gone.
    limits = [*range(600, num_bytes, num_bytes // 12), num_bytes - 1000, num_bytes - 1]
    for limit in limits:
        status, _ = run_on_limited_disk(pairs, monkeypatch, num_bytes=limit)
        assert status == 1, limit
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: cannot write "), limit
        assert line.endswith(
            "No space left on device; make room or choose another --out, then run again"
        )
        assert sorted(path.read_bytes() for path in pairs.out.iterdir()) == old
        assert sorted(os.listdir(pairs.out.parent)) == ["dataset", "images", "masks"]
    status, _ = run_on_limited_disk(pairs, monkeypatch, num_bytes=num_bytes)
    assert status == 0


@pytest.fixture
def small_disk(tmp_path):
    """Gives a function that mounts an empty disk of so many pages at a folder."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = []

    def mount(num_pages):
        if mounted:
            subprocess.run(["umount", folder], check=True)
            mounted.clear()
        options = f"size={num_pages * PAGE_BYTES}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"a disk of its own needs the rights to mount one: {done.stderr}")
        mounted.append(folder)
        return folder

    yield mount
    for path in mounted:
        subprocess.run(["umount", path], check=True)


@pytest.mark.slow
def test_real_disk_that_is_too_small_is_left_empty(empty_pairs, small_disk, capsys):
    for index in range(8):
        empty_pairs.add(f"P{index}_z0", seed=index, shape=(80, 80))  # 52 KiB of records
    arguments = ["--images", empty_pairs.images, "--masks", empty_pairs.masks, "--num-shards", 3]
    num_failed = 0
    for num_pages in (*range(1, 26, 3), 64):
        disk = small_disk(num_pages)
        status = command.main(["tfrecords", *map(str, arguments), "--out", str(disk / "dataset")])
        error = capsys.readouterr().err
        if status == 0:
            DatasetManifest.load(disk / "dataset")
            assert os.listdir(disk) == ["dataset"]
        else:
            num_failed += 1
            assert "No space left on device" in error
            assert error.count("\n") == 1
            assert "make room or choose another" in error
            assert os.listdir(disk) == []
    assert status == 0  # on the last disk, which is large enough
    assert num_failed >= 5
