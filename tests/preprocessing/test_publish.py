import os
import re
from pathlib import Path

import pytest

from preprocessing import publish
from preprocessing.publish import whole_file, whole_folder, write_bytes, write_text


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_file_appears_whole_with_its_folder(tmp_path):
    write_text(tmp_path / "a" / "b.txt", "grün")
    write_bytes(tmp_path / "a" / "c.bin", b"\0")
    assert (tmp_path / "a" / "b.txt").read_text(encoding="utf-8") == "grün"
    assert names_in(tmp_path / "a") == ["b.txt", "c.bin"]


def test_file_aside_keeps_its_ending(tmp_path):
    with whole_file(tmp_path / "curves.png") as aside:
        assert aside.suffix == ".png"
        assert aside.parent == tmp_path
        aside.write_bytes(b"png")


def test_file_that_fails_leaves_the_old_one_and_nothing_aside(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def write_half() -> None:
        with whole_file(path) as aside:
            aside.write_text("ne")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["table.csv"]


def test_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(publish, "sync", lambda path: synced.append(path.name))
    monkeypatch.setattr(os, "replace", lambda *paths: synced.append("rename"))
    write_text(tmp_path / "x.txt", "x")
    assert re.fullmatch(r"\.x\.[0-9a-f]{32}\.partial\.txt", synced[0])
    assert synced[1:] == ["rename", tmp_path.name]


def test_name_that_is_a_folder_is_left_alone(tmp_path):
    (tmp_path / "mask.png").mkdir()
    with pytest.raises(OSError, match="mask.png"):
        write_bytes(tmp_path / "mask.png", b"new")
    assert names_in(tmp_path) == ["mask.png"]


def test_folder_appears_whole(tmp_path):
    with whole_folder(tmp_path / "model" / "1") as aside:
        (aside / "variables").mkdir()
        (aside / "variables" / "data").write_text("weights")
        assert not (tmp_path / "model" / "1").exists()
        assert not aside.name.isdecimal()
    assert names_in(tmp_path / "model") == ["1"]
    assert (tmp_path / "model" / "1" / "variables" / "data").read_text() == "weights"


def test_folder_that_fails_leaves_nothing(tmp_path):
    def write_half() -> None:
        with whole_folder(tmp_path / "1") as aside:
            (aside / "half").write_text("x")
            raise ValueError("not the same")

    with pytest.raises(ValueError, match="not the same"):
        write_half()
    assert names_in(tmp_path) == []


def test_what_a_killed_writer_left_aside_is_removed(tmp_path):
    (tmp_path / ".1.0123.partial" / "variables").mkdir(parents=True)
    with whole_folder(tmp_path / "1"):
        assert not (tmp_path / ".1.0123.partial").exists()
    assert names_in(tmp_path) == ["1"]


def test_two_writers_of_one_folder_do_not_mix(tmp_path):
    def finish_second() -> None:
        with whole_folder(tmp_path / "1") as late:
            with whole_folder(tmp_path / "1") as early:
                (early / "who").write_text("early")
            (late / "who").write_text("late")

    with pytest.raises(FileExistsError, match="exists already"):
        finish_second()
    assert (tmp_path / "1" / "who").read_text() == "early"
    assert names_in(tmp_path) == ["1"]


def test_empty_folder_is_replaced(tmp_path):
    (tmp_path / "1").mkdir()
    with whole_folder(tmp_path / "1") as aside:
        (aside / "x").write_text("x")
    assert names_in(tmp_path / "1") == ["x"]


def test_folder_that_exists_is_refused(tmp_path):
    (tmp_path / "1" / "precious").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="exists already; choose another path"):
        with whole_folder(tmp_path / "1"):
            pass
