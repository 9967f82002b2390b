import argparse
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from preprocessing import pipeline
from preprocessing.__main__ import build_parser, main
from preprocessing.config import TfrecordsConfig
from preprocessing.download.config import DownloadConfig
from preprocessing.inspection.config import InspectConfig
from preprocessing.phantoms import drawing
from preprocessing.phantoms.drawing import PhantomsConfig


def tfrecords(pairs, *more):
    folders = ["--images", pairs.images, "--masks", pairs.masks, "--out", pairs.out]
    return main(["tfrecords", *map(str, folders), *more])


def flags_of(verb):
    (verbs,) = (
        action
        for action in build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return {action.dest: action for action in verbs.choices[verb]._actions if action.dest != "help"}


@pytest.mark.parametrize(
    ("verb", "config_class", "without_flag"),
    [
        ("tfrecords", TfrecordsConfig, {"beam_options"}),
        ("inspect", InspectConfig, set()),
        ("phantoms", PhantomsConfig, set()),
        ("download", DownloadConfig, set()),
    ],
)
def test_flags_are_the_fields_with_the_same_defaults(verb, config_class, without_flag):
    flags = flags_of(verb)
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    assert set(flags) == set(fields) - without_flag
    for name, action in flags.items():
        assert action.required == (fields[name].default is dataclasses.MISSING)
        if not action.required:
            assert action.default == fields[name].default, name


def test_job_ends_with_a_short_summary(pairs, capsys):
    assert tfrecords(pairs) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "train: 16 slices, patients: 4, shards: 1",
        "validation: 4 slices, patients: 1, shards: 1",
    ]
    assert lines[2].startswith(f"{pairs.out}: 20 pairs, 0 refused; 0.0 MiB of records from")


def test_refused_files_are_told_up_to_a_number(pairs, capsys):
    for path in list(pairs.masks.iterdir())[:7]:
        path.write_bytes(b"")
    assert tfrecords(pairs, "--max-refused-fraction", "0.5") in (0, 1)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("refused: ")]
    assert len(told) == 6
    assert told[0].endswith("export it again as an 8-bit grayscale BMP or PNG")
    assert told[5] == "refused: 2 more, see dataset.json"


def test_options_after_the_separator_go_to_beam(pairs, monkeypatch):
    seen = []

    def run_nothing(config, **_):
        seen.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run", run_nothing)
    tfrecords(pairs, "--runner", "X", "--", "--direct_num_workers=3", "--", "--x")
    assert seen[0].runner == "X"
    assert seen[0].beam_options == ("--direct_num_workers=3", "--", "--x")


@pytest.mark.parametrize("changed", ["--imagez", "--image", "--max-refused"])
def test_misspelled_or_shortened_flag_is_refused(pairs, changed, capsys):
    with pytest.raises(SystemExit, match="2"):
        tfrecords(pairs, changed, "1")
    assert f"unrecognized arguments: {changed} 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--validation-fraction", "2"], "error: received validation_fraction 2.0; expected"),
        (["--", "--no_such_option"], "error: Beam has no option --no_such_option; expected"),
        (["--images", "/none"], "error: --images /none does not exist; expected a folder"),
        (["--out", "/dev/null/x"], "error: --out /dev/null/x cannot be made (File exists: "),
    ],
)
def test_user_error_is_one_line_and_a_failing_status(pairs, more, message, capsys):
    assert tfrecords(pairs, *more) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)


def test_interrupt_is_one_line_and_its_own_status(pairs, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run", interrupt)
    assert tfrecords(pairs) == 130
    assert capsys.readouterr().err == "error: interrupted; nothing was published\n"


def test_phantoms_gets_its_options(tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(drawing, "write_phantoms", lambda config: seen.append(config) or 6)
    out = str(tmp_path / "p")
    assert main(["phantoms", "--out", out, "--num-patients", "2", "--image-size", "64"]) == 0
    assert seen == [PhantomsConfig(out=Path(out), num_patients=2, image_size=64)]
    assert capsys.readouterr().out == f"{out}: 6 pairs in images/ and masks/\n"


@pytest.mark.parametrize("verb", [["phantoms", "--out"], ["inspect"]])
def test_other_verbs_take_nothing_for_beam(verb, tmp_path, capsys):
    assert main([*verb, str(tmp_path), "--", "--x"]) == 1
    assert f"`{verb[0]}` takes nothing after `--`" in capsys.readouterr().err


def test_command_line_says_no_more_than_it_must(pairs):
    command = [sys.executable, "-m", "preprocessing", "tfrecords", "--out", str(pairs.out)]
    folders = ["--images", str(pairs.images), "--masks", str(pairs.masks)]
    done = subprocess.run([*command, *folders], capture_output=True, text=True, check=True)
    assert [line.split(":")[:2] for line in done.stderr.splitlines()] == [
        ["INFO", " options"],
        ["INFO", " planned for train"],
        ["INFO", " planned for validation"],
    ]
    again = subprocess.run([*command, *folders], capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert again.stderr == (
        f"error: --out {pairs.out} holds a dataset; "
        "pass --overwrite to replace it, or choose another folder\n"
    )


def test_help_of_each_verb_explains_it(capsys):
    for verb, explained in (
        ("tfrecords", "own options go after `--`"),
        ("inspect", "the oddest first"),
        ("phantoms", "chest-like"),
        ("download", "the same command goes on from there"),
    ):
        with pytest.raises(SystemExit, match="0"):
            main([verb, "--help"])
        assert explained in capsys.readouterr().out


THREAD_THAT_NEVER_ENDS = """
import os, runpy, signal, sys, threading
from preprocessing import pipeline

def complain(interrupted):
    interrupted.wait()
    print("Traceback of an engine", file=sys.stderr, flush=True)
    threading.Event().wait()

def run(*_, **__):
    interrupted = threading.Event()
    threading.Thread(target=complain, args=(interrupted,)).start()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        interrupted.wait(60)
    finally:
        interrupted.set()
        threading.Event().wait(0.5)

pipeline.run = run
sys.argv[0] = "preprocessing"
runpy.run_module("preprocessing", run_name="__main__")
"""


def test_threads_of_an_engine_neither_keep_nor_drown_an_interrupted_command(pairs):
    folders = ["--images", pairs.images, "--masks", pairs.masks, "--out", pairs.out]
    done = subprocess.run(
        [sys.executable, "-c", THREAD_THAT_NEVER_ENDS, "tfrecords", *folders],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 130
    # Beam has a word to say where it is loaded before the command sets up the log.
    assert done.stderr.endswith("error: interrupted; nothing was published\n")
    assert "Traceback" not in done.stderr


def test_name_that_a_terminal_cannot_show_does_not_end_a_job(pairs):
    (pairs.masks / "P0_z000.bmp").rename(pairs.masks / "Pж\n_z000.bmp")
    (pairs.images / "P0_z000.bmp").rename(pairs.images / "Pж\n_z000.bmp")
    (pairs.masks / "Pж\n_z000.bmp").write_bytes(b"")
    folders = ["--images", pairs.images, "--masks", pairs.masks, "--out", pairs.out]
    done = subprocess.run(
        [sys.executable, "-m", "preprocessing", "tfrecords", *folders]
        + ["--max-refused-fraction", "0.5"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        check=True,
    )
    assert "P\\u0436\\n_z000.bmp is empty (0 bytes)" in done.stdout
    assert (pairs.out / "dataset.json").exists()
