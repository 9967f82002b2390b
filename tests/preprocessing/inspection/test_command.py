"""The verb as a user types it."""

import logging

import pytest

from preprocessing.__main__ import main


@pytest.fixture(autouse=True)
def _restore_loggers():
    ours, root = logging.getLogger("preprocessing"), logging.getLogger()
    levels = ours.level, root.level
    yield
    ours.setLevel(levels[0])
    root.setLevel(levels[1])


def inspect(tiny, *more):
    return main(["inspect", str(tiny.folder), *map(str, more)])


def test_sound_dataset_ends_well_and_names_the_next_step(tiny, capsys):
    tiny.write()
    assert inspect(tiny) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{tiny.folder}: 4 slices, patients: 2, ")
    assert out.splitlines()[-2:] == [
        "shards: each has its size",
        "masks: not looked at; pass --gallery page.html to see them, the worst first",
    ]
    assert err == ""


def test_verified_dataset_says_so(tiny, capsys):
    tiny.write()
    assert inspect(tiny, "--verify") == 0
    assert "shards: each has its size and SHA-256\n" in capsys.readouterr().out


def test_gallery_is_written_and_summed_up(tiny, tmp_path, capsys):
    tiny.add("P_z4", shift=6)
    tiny.write()
    page = tmp_path / "new" / "page.html"
    assert inspect(tiny, "--gallery", page, "--gallery-slices", 3) == 0
    out = capsys.readouterr().out
    assert "P_z4   train  off the edges\n" in out
    assert out.splitlines()[-1] == f"{page}: 3 of 5 slices, the worst first; 0.0 MiB"
    assert page.read_text().startswith("<!doctype html>")


def test_missing_shard_is_an_error_after_the_tables_and_no_page_is_written(tiny, tmp_path, capsys):
    tiny.write()
    tiny.path().unlink()
    page = tmp_path / "page.html"
    assert inspect(tiny, "--gallery", page) == 1
    out, err = capsys.readouterr()
    assert out.endswith("refused files: none\nskipped files, no images: none\n")
    first, second = err.splitlines()
    assert first.startswith(f"error: {tiny.path()} is missing; ")
    assert second == f"error: so {page} was not written"
    assert not page.exists()


def test_damaged_record_is_one_line_and_the_old_page_stays(tiny, tmp_path, capsys):
    tiny.write()
    content = bytearray(tiny.path().read_bytes())
    content[-1] ^= 1
    tiny.path().write_bytes(content)
    page = tmp_path / "page.html"
    page.write_text("old")
    assert inspect(tiny, "--gallery", page) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tiny.path()} is damaged or truncated at record 2; ")
    assert page.read_text() == "old"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "error: {folder} holds no dataset.json, so it is not a whole dataset; "),
        (["--gallery", "page.bmp"], "error: --gallery is page.bmp; expected the name of a page"),
        (["--gallery-slices", "3"], "error: --gallery-slices is 3, but there is no --gallery; "),
    ],
)
def test_user_error_is_one_line_and_a_failing_status(tiny, more, message, capsys):
    assert inspect(tiny, *more) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(message.format(folder=tiny.folder))


def test_page_inside_of_the_dataset_is_refused_before_any_table(tiny, capsys):
    tiny.write()
    assert inspect(tiny, "--gallery", tiny.folder / "page.html") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "is inside of the dataset" in err
