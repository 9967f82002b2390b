import logging
import time

from preprocessing import progress
from preprocessing.progress import count_done, show_progress


def test_done_slices_of_all_shards_are_counted(tmp_path):
    (tmp_path / "a.progress").write_bytes(b"..")
    (tmp_path / "b.progress").write_bytes(b"...")
    (tmp_path / "b").write_bytes(b"not counted")
    assert count_done(tmp_path) == 5


def test_bar_on_a_terminal_reaches_the_end(tmp_path, capsys):
    with show_progress(tmp_path, num_slices=3, is_terminal=True):
        (tmp_path / "a.progress").write_bytes(b"...")
    assert "3/3" in capsys.readouterr().err


def test_log_line_now_and_then_without_a_terminal(tmp_path, caplog, capsys, monkeypatch):
    monkeypatch.setattr(progress, "POLL_S", 0.01)
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0.02)
    (tmp_path / "a.progress").write_bytes(b"..")
    with (
        caplog.at_level(logging.INFO, "preprocessing"),
        show_progress(tmp_path, num_slices=3, is_terminal=False),
    ):
        time.sleep(0.1)
    assert "2 of 3 slices" in caplog.text
    assert capsys.readouterr().err == ""
