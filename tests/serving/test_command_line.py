import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving import __main__ as command_line
from serving.__main__ import main
from serving.client import SegmentationClient
from serving.embedded.server import EmbeddedServer

SERVE = [sys.executable, "-m", "serving", "serve"]
SMALL = np.array([[10, 200], [99, 101]], np.uint8)


def test_folder_ends_with_a_summary_and_exit_code_zero(
    server: EmbeddedServer,
    write_slice: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = write_slice("a.bmp", SMALL).parent
    out = tmp_path / "out"
    assert main(["predict", str(folder), "--out", str(out), "--target", server.target]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("1 mask in ")
    assert printed.out.endswith(f"results in {out}, a table in {out / 'summary.csv'}\n")
    assert printed.err == ""


def test_bad_file_is_told_in_one_line_and_exit_code_one(
    server: EmbeddedServer,
    write_slice: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = write_slice("a.bmp", SMALL).parent
    (folder / "b.bmp").write_bytes(b"BM but no more")
    out = tmp_path / "out"
    assert main(["predict", str(folder), "--out", str(out), "--target", server.target]) == 1
    printed = capsys.readouterr()
    assert (out / "masks" / "a.png").is_file()
    assert printed.err.count("\n") == 1
    assert printed.err.startswith(f"failed: {folder / 'b.bmp'} ")
    assert "1 slice failed" in printed.out


def test_demo_that_cannot_write_says_so_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert main(["demo", "--out", str(out)]) == 1
        printed = capsys.readouterr().err
        assert printed == f"error: --out {out} cannot be written: Not a directory; choose another\n"


def test_help_names_no_default_where_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("serve", "predict", "demo"):
        with pytest.raises(SystemExit, match="0"):
            main([verb, "--help"])
        assert "None" not in capsys.readouterr().out


def test_demo_never_replaces_the_slices_it_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "demo.json").write_text("{}")
    (tmp_path / "images").mkdir()
    folders = ["--images", str(tmp_path / "images"), "--masks", str(tmp_path / "masks")]
    assert main(["demo", "--out", str(tmp_path), *folders]) == 1
    assert "which the demo replaces; give another OUT" in capsys.readouterr().err
    assert (tmp_path / "images").is_dir()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--target", "localhost:{closed_port}"], "error: no server answers at localhost:"),
        (["--model-name", "other"], "serves no model other"),
        (["--model-version", "9"], "serves no model lung_unet version 9"),
        (["--timeout-s", "0"], "error: --timeout-s is 0.0"),
    ],
)
def test_one_line_says_why_there_is_no_mask(
    server: EmbeddedServer,
    closed_port: int,
    write_slice: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    path = write_slice("a.bmp", SMALL)
    filled = [flag.format(closed_port=closed_port) for flag in flags]
    argv = ["predict", str(path), "--out", str(tmp_path / "out"), "--target", server.target]
    assert main([*argv, *filled]) == 1
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert message in printed.err
    assert printed.out == ""


@pytest.mark.parametrize("stage", ["preprocessing", "trainer", "serving"])
def test_ctrl_c_while_modules_load_ends_the_program_without_a_traceback(
    tmp_path: Path, stage: str
) -> None:
    # Found before Python's own, this is what the command line loads first.
    (tmp_path / "argparse.py").write_text(
        "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(9)"
    )
    ended = subprocess.run(
        [sys.executable, "-m", stage, "--help"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")


def test_ctrl_c_before_the_first_slice_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "_predict", interrupt)
    assert main(["predict", str(tmp_path), "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_abbreviated_and_unknown_flags_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for flags in (["--targ", "x"], ["--batch", "4"]):
        with pytest.raises(SystemExit) as caught:
            main(["predict", "i", "--out", "o", *flags])
        assert caught.value.code == 2
    assert "unrecognized arguments" in capsys.readouterr().err


def test_flag_of_tensorflow_serving_that_this_server_lacks_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--model_base_path", "m", "--tensorflow_session_parallelism=2"])
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert "this server has no --tensorflow_session_parallelism=2; expected flags that" in told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_server_says_when_it_is_ready_and_ends_in_order(
    model_base_path: Path, number: signal.Signals
) -> None:
    with subprocess.Popen(
        [*SERVE, "--model_base_path", str(model_base_path), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("READY "):
                break
        ready: dict[str, Any] = json.loads(lines[-1].removeprefix("READY "))
        assert ready["model_version"] == 3
        with SegmentationClient(ready["target"]) as client:
            assert client.predict(SMALL).tolist() == [[1, 0], [1, 0]]
        process.send_signal(number)
        try:
            _, err = process.communicate(timeout=20)
        finally:
            process.kill()  # a server that does not end fails the test and does not hang it
    assert process.returncode == 0
    assert err == "stopping; calls under way have 10 s to end\n"
    text = "".join(lines)
    assert "lung_unet version 3 from" in text
    assert "docker run" in text
    assert "REST off" in text


def test_server_that_cannot_start_says_why_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = subprocess.run(
            [*SERVE, "--model_base_path", str(tmp_path), "--port", port],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"error: cannot listen at 127.0.0.1:{port}: the port is in use")
    assert ended.stderr.count("\n") == 1


def test_damaged_model_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"<html>")
    ended = subprocess.run(
        [*SERVE, "--model_base_path", str(tmp_path), "--port", "0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: {tmp_path / '1'} cannot be loaded: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "allowed"), [([""], True), (["=true"], True), (["=false"], False), ([], False)]
)
def test_switches_are_written_as_tensorflow_model_server_has_them(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], allowed: bool
) -> None:
    seen = []
    monkeypatch.setattr(command_line, "_serve", seen.append)
    name = "--allow_version_labels_for_unavailable_models"
    main(["serve", "--model_base_path", "m", *(name + each for each in flags)])
    assert seen[0][name.removeprefix("--")] is allowed


def test_switch_that_is_neither_true_nor_false_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--model_base_path", "m", "--enable_batching=yes"])
    assert "received 'yes'; expected true or false" in capsys.readouterr().err


def test_batching_is_taken_with_a_line_that_says_it_does_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--enable_batching", "--batching_parameters_file", "b.config", "--port", "0"]
    assert main(["serve", "--model_base_path", str(tmp_path), *flags]) == 1
    said = capsys.readouterr()
    assert said.out == "this server does not batch: what is said about batching does nothing here\n"
    assert "holds no numbered version" in said.err


def test_models_come_from_one_place(capsys: pytest.CaptureFixture[str]) -> None:
    both = ["--model_base_path", "m", "--model_config_file", "c"]
    for flags in ([], both):
        assert main(["serve", *flags]) == 1
        assert "give --model_base_path or --model_config_file, one" in capsys.readouterr().err
