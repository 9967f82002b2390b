import io
import os
import sys
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocessing.errors import PreprocessingError
from preprocessing.finding import FoundFile, by_unified_name, find_files, shorten, unify


def find(folder, *, leave_out=()):
    return find_files(folder, flag="--images", leave_out=leave_out)


def paths_in(folder, **options):
    return paths(find(folder, **options).files)


def paths(files):
    return [file.path for file in files]


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"12345")


def test_files_are_found_in_subfolders_with_their_sizes(tmp_path):
    touch(tmp_path, "b.bmp", "a/c.PNG", "a/d.x.TIF", "e.jpeg", ".hidden.bmp", ".git/e.bmp", "n.txt")
    found = find(tmp_path)
    assert [file.path for file in found.files] == ["a/c.PNG", "a/d.x.TIF", "b.bmp", "e.jpeg"]
    assert found.files[0] == FoundFile(path="a/c.PNG", num_bytes=5)
    assert paths(found.skipped) == ["n.txt"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/P1_z001.bmp", "a/P1_z001"),
        ("P1.z001.TIFF", "P1.z001"),
        ("P1_z001.ima", "P1_z001"),
        ("1.2.840.113619", "1.2.840.113619"),
        ("IM0001", "IM0001"),
        ("a.b/IM0001", "a.b/IM0001"),
    ],
)
def test_name_is_the_path_without_extension(path, name):
    assert FoundFile(path=path, num_bytes=0).name == name


@pytest.mark.parametrize("kind", ["BMP", "PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize("name", ["IM0001", "slice.ima", "1.2.840.113619"])
def test_images_are_known_by_their_content_too(tmp_path, kind, name):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(buffer, kind)
    (tmp_path / name).write_bytes(buffer.getvalue())
    touch(tmp_path, "notes", "BMW", "empty.dat")
    (tmp_path / "empty.dat").write_bytes(b"")
    found = find(tmp_path)
    assert [file.path for file in found.files] == [name]
    assert paths(found.skipped) == ["BMW", "empty.dat", "notes"]


def test_pipe_with_another_name_is_skipped_and_not_waited_for(tmp_path):
    touch(tmp_path, "a.bmp")
    os.mkfifo(tmp_path / "pipe")
    assert paths(find(tmp_path).skipped) == ["pipe"]


def test_file_that_may_not_be_opened_is_skipped(tmp_path, monkeypatch):
    touch(tmp_path, "a.bmp", "secret")
    opened = Path.open

    def deny(path, *arguments):
        if path.name == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments)

    monkeypatch.setattr(Path, "open", deny)
    assert paths(find(tmp_path).skipped) == ["secret"]


def test_masks_below_the_slices_are_not_slices(tmp_path):
    touch(tmp_path, "a.bmp", "masks/a.bmp", "out/b.bmp")
    assert paths_in(tmp_path, leave_out=(tmp_path / "masks", tmp_path / "out")) == ["a.bmp"]


def test_links_to_folders_are_followed(tmp_path):
    touch(tmp_path, "archive/P1/a.bmp", "curated/b.bmp")
    (tmp_path / "curated" / "P1").symlink_to(tmp_path / "archive" / "P1")
    found = find(tmp_path / "curated")
    assert (paths(found.files), found.skipped) == (["P1/a.bmp", "b.bmp"], ())


def test_folder_is_not_read_twice_and_the_link_is_told(tmp_path):
    touch(tmp_path, "p/a.bmp")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "q").symlink_to(tmp_path / "p")
    found = find(tmp_path)
    assert (paths(found.files), paths(found.skipped)) == (["p/a.bmp"], ["loop/", "q/"])


def test_link_to_nowhere_is_found_and_left_to_the_worker_to_refuse(tmp_path):
    (tmp_path / "a.bmp").symlink_to(tmp_path / "gone")
    assert find(tmp_path).files == (FoundFile(path="a.bmp", num_bytes=0),)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(
        PreprocessingError, match=r"--images .*/none does not exist; expected a fol"
    ):
        find(tmp_path / "none")


def test_file_in_place_of_a_folder_is_named(tmp_path):
    touch(tmp_path, "a.bmp")
    with pytest.raises(PreprocessingError, match=r"--images .*/a.bmp is a file; expected a folder"):
        find(tmp_path / "a.bmp")


def test_folder_without_slices_says_what_it_holds(tmp_path):
    with pytest.raises(PreprocessingError, match=r"PNG, TIFF or JPEG file \(it is empty\); point"):
        find(tmp_path)
    touch(tmp_path, "a.txt")
    with pytest.raises(
        PreprocessingError, match=r"JPEG file \(it holds a.txt\); point it to the f"
    ):
        find(tmp_path)


@pytest.mark.parametrize("name", ["b.dcm", "c.NII.GZ"])
def test_folder_of_volumes_where_images_are_wanted_says_so(tmp_path, name):
    touch(tmp_path, "a.txt", name)
    with pytest.raises(PreprocessingError, match="; slices and masks are of one kind: both vol"):
        find(tmp_path)


def test_system_that_reads_names_in_another_way_is_refused(tmp_path, monkeypatch):
    touch(tmp_path, "a.bmp")
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
    with pytest.raises(PreprocessingError, match="names as iso8859-1; expected UTF-8"):
        find(tmp_path)


def test_name_that_is_not_utf8_is_named(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff.bmp", "wb"):
        pass
    with pytest.raises(PreprocessingError, match=r"a file whose name is not UTF-8: '.udcff.bmp'"):
        find(tmp_path)


def test_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    def deny(*_):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(PermissionError, match="Permission denied"):
        find(tmp_path)


def test_spellings_of_a_name_are_one():
    assert unify("P1/Röntgen") == unify("p1/RO\u0308NTGEN")


def test_files_that_differ_in_extension_or_case_are_all_told(tmp_path):
    files = [FoundFile(path=path, num_bytes=0) for path in ("a.bmp", "a.png", "B.bmp", "b.bmp")]
    with pytest.raises(
        PreprocessingError,
        match="in nothing but extension or case: a.bmp and a.png, B.bmp and b.bmp; expected one",
    ):
        by_unified_name(files, attrgetter("name"), folder=tmp_path)


def test_long_lists_are_shortened():
    assert shorten(["a", "b", "c"]) == "a, b, c"
    assert shorten(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
