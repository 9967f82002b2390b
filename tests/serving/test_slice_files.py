import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.errors import InputError
from serving.slice_files import find_slices

WriteSlice = Callable[..., Path]
SMALL = np.array([[10, 200], [99, 101]], np.uint8)


def test_pipes_and_folders_named_like_slices_are_left_out(
    write_slice: WriteSlice, tmp_path: Path
) -> None:
    folder = write_slice("x.bmp/a.bmp", SMALL).parents[1]
    os.mkfifo(folder / "b.bmp")
    assert [item.name for item in find_slices([folder], results=[])] == [Path("x.bmp/a")]
    with pytest.raises(InputError, match=r"b.bmp is neither a file nor a folder; expected a slice"):
        find_slices([folder / "b.bmp"], results=[])


def test_masks_never_replace_the_slices_that_they_are_made_of(
    write_slice: WriteSlice, tmp_path: Path
) -> None:
    path = write_slice("masks/a.png", SMALL)
    for source in (path, path.parent):
        with pytest.raises(
            InputError, match="lies where results go, in .*masks; give another --out"
        ):
            find_slices([source], results=[tmp_path / "slices" / "masks"])


def test_folder_that_cannot_be_read_is_told(
    write_slice: WriteSlice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_slice("closed/a.bmp", SMALL).parents[1]

    def deny(path: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(InputError, match="slices cannot be read: Permission denied; check its"):
        find_slices([folder], results=[])


def test_links_to_folders_are_told(
    write_slice: WriteSlice, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_slice("a.bmp", SMALL).parent
    (folder / "more").symlink_to(tmp_path)
    assert len(find_slices([folder], results=[])) == 1
    assert f"links to folders are not followed: {folder / 'more'}; give" in caplog.text


def test_equal_names_with_other_suffixes_both_keep_their_mask(
    write_slice: WriteSlice, tmp_path: Path
) -> None:
    write_slice("a.bmp", SMALL)
    write_slice("a.PNG", SMALL)
    write_slice("b.png", SMALL)
    write_slice("a.bmp.bmp", SMALL)
    slices = find_slices([tmp_path / "slices"], results=[tmp_path / "out"])
    assert [str(item.name) for item in slices] == ["a.PNG", "a.bmp", "a.bmp.bmp", "b.png"]


def test_input_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere does not exist; expected a slice, or"):
        find_slices([tmp_path / "nowhere"], results=[tmp_path / "out"])
    with pytest.raises(InputError, match="holds no file named"):
        find_slices([tmp_path], results=[])


def test_several_inputs_are_named_below_the_folder_they_share(
    write_slice: WriteSlice, tmp_path: Path
) -> None:
    one = write_slice("P1/1.bmp", SMALL)
    other = write_slice("P2/1.bmp", SMALL)
    slices = find_slices([other, one.parent, one], results=[])
    assert [(item.path, str(item.name)) for item in slices] == [(one, "P1/1"), (other, "P2/1")]


def test_relative_and_absolute_inputs_mix(
    write_slice: WriteSlice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = write_slice("P1/1.bmp", SMALL)
    write_slice("P2/1.bmp", SMALL)
    monkeypatch.chdir(one.parents[1])
    slices = find_slices([one, Path("P2")], results=[])
    assert sorted(str(item.name) for item in slices) == ["P1/1", "P2/1"]


def test_input_above_the_folder_of_work_keeps_its_results_below_theirs(
    write_slice: WriteSlice, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = write_slice("set/P1/1.bmp", SMALL)
    write_slice("P2/1.bmp", SMALL)
    monkeypatch.chdir(one.parents[1])
    slices = find_slices([Path("P1"), Path("../P2")], results=[])
    assert [str(item.name) for item in slices] == ["P2/1", "set/P1/1"]
    assert all(item.path.is_file() for item in slices)


def test_slice_that_is_given_twice_in_two_ways_is_taken_once(
    write_slice: WriteSlice, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = write_slice("P1/1.bmp", SMALL)
    monkeypatch.chdir(one.parent)
    slices = find_slices([Path("."), one.parent, Path("../P1/1.bmp")], results=[])
    assert [str(item.name) for item in slices] == ["1"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("P1/*.bmp", ["1", "2"]), ("*/1.bmp", ["P1/1", "P2/1"]), ("**/*.png", ["3"]), ("P?", None)],
)
def test_pattern_is_expanded(
    write_slice: WriteSlice, tmp_path: Path, pattern: str, names: list[str] | None
) -> None:
    for name in ("P1/1.bmp", "P1/2.bmp", "P2/1.bmp", "P2/3.png"):
        write_slice(name, SMALL)
    write_slice("masks/1.png", SMALL)
    root = tmp_path / "slices"
    slices = find_slices([root / pattern], results=[root / "masks"])
    assert [str(item.name) for item in slices] == (names or ["P1/1", "P1/2", "P2/1", "P2/3"])


def test_pattern_without_a_match_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"P1/\*.bmp matches no file; expected slices, or folders"):
        find_slices([tmp_path / "P1" / "*.bmp"], results=[])


def test_file_with_the_name_of_a_pattern_is_taken_as_it_is(
    write_slice: WriteSlice, tmp_path: Path
) -> None:
    path = write_slice("[1]*.bmp", SMALL)
    write_slice("1.bmp", SMALL)
    assert [item.path for item in find_slices([path], results=[])] == [path]
