"""The demo at a small size, as a user starts it: every stage in a process of its own."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from serving import demo
from serving.__main__ import main
from serving.config import DemoConfig
from serving.errors import InputError, StageFailedError

SMALL = {
    "num_patients": 4,
    "slices_per_patient": 5,
    "image_size": 32,
    "filters": 4,
    "epochs": 1,
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "runs" / "demo"
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    assert main(["demo", "--out", str(folder), *flags]) == 0
    return folder


def test_report_shows_every_stage_and_the_served_masks(out):
    page = (out / "report.html").read_text()
    for stage in ("phantoms", "tfrecords", "train", "evaluate", "export", "serve", "predict"):
        assert re.search(rf"<tr><td>{stage}</td><td class=\"number\">\d+\.\d</td>", page), stage
    assert "<b>5 of 5</b>served masks equal the trainer's own" in page.replace("&#39;", "'")
    assert "This is not a medical device." in page
    assert page.count("data:image/png;base64,") >= 3
    assert "of patients that the model was not trained on" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)  # one file, nothing beside it


def test_figures_of_the_report_are_those_of_the_evaluation(out):
    overall = json.loads((out / "evaluation" / "evaluation.json").read_text())["overall"]
    assert f"<b>{overall['dice_pooled']:.4f}</b>Dice" in (out / "report.html").read_text()


def test_masks_and_overlays_have_the_size_of_the_slices(out):
    masks = sorted((out / "predictions" / "masks").glob("*.png"))
    overlays = sorted((out / "predictions" / "overlays").glob("*.png"))
    assert len(masks) == len(overlays) == 5
    for path in (*masks, *overlays):
        with Image.open(path) as picture:
            assert picture.size == (512, 512)


def test_server_of_the_demo_is_gone_at_its_end(out):
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert f"--model_base_path {out / 'model'}" not in running.stdout


def test_next_demo_replaces_the_last_one(tmp_path):
    config = DemoConfig(out=tmp_path / "demo")
    demo._claim(config)
    (config.out / "dataset").mkdir()
    (config.out / ".run.partial").mkdir()
    (config.out / "report.html").write_text("x")
    (config.out / "model").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(config.out)
    demo._claim(DemoConfig(out=tmp_path / "link"))
    assert tmp_path.is_dir()
    assert [entry.name for entry in config.out.iterdir()] == [demo.MARKER]


def test_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "holiday.jpg").write_text("x")
    with pytest.raises(InputError, match="holds something that is no demo: holiday.jpg; expected"):
        demo.run(DemoConfig(out=tmp_path))
    assert (tmp_path / "holiday.jpg").exists()


def test_folder_of_a_demo_with_a_file_of_ones_own_is_refused(tmp_path):
    demo._claim(DemoConfig(out=tmp_path))
    (tmp_path / "dataset").mkdir()
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match=r"no demo: thesis.txt; .*give another OUT"):
        demo._claim(DemoConfig(out=tmp_path))
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("text", ['{"mine": 1}', "[1]", "not JSON"])
def test_marker_of_another_program_is_none(tmp_path, text):
    (tmp_path / demo.MARKER).write_text(text)
    (tmp_path / "model").write_text("mine")
    with pytest.raises(InputError, match=r"no demo: demo.json; .*give another OUT"):
        demo._claim(DemoConfig(out=tmp_path))
    assert (tmp_path / "model").read_text() == "mine"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"images": Path("i")}, "IMAGES is given without MASKS; give both folders, or none"),
        ({"masks": Path("m")}, "MASKS is given without IMAGES; give both folders, or none"),
    ],
)
def test_slices_without_masks_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        DemoConfig(out=Path("o"), **given)


def test_stage_that_fails_ends_the_demo_and_is_named(tmp_path):
    config = DemoConfig(out=tmp_path / "demo", images=tmp_path / "none", masks=tmp_path / "none")
    with pytest.raises(StageFailedError, match="the stage tfrecords ended with exit code 1"):
        demo.run(config)


def test_options_of_the_records_are_handed_on(tmp_path, monkeypatch):
    commands = []

    def run_nothing(stages, *command):
        commands.append([str(word) for word in command])
        raise StageFailedError

    monkeypatch.setattr(demo, "_run", run_nothing)
    folders = {"images": tmp_path / "i", "masks": tmp_path / "m", "out": tmp_path / "demo"}
    for given in ({}, {"patient_pattern": "-(?P<patient_id>.)", "max_refused_fraction": 0.0}):
        with pytest.raises(StageFailedError):
            demo.run(DemoConfig(**folders, **given))
    assert commands[0][-2:] == ["--out", str(tmp_path / "demo" / "dataset")]
    assert commands[1][-2:] == [
        "--patient-pattern=-(?P<patient_id>.)",
        "--max-refused-fraction=0.0",
    ]


def start_demo(out):
    """Starts a demo and waits until one of its stages runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "serving", "demo", "--out", str(out), "--num-patients", "999"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while not list(out.glob(".phantoms*/images/*.bmp")) and time.monotonic() < deadline:
        time.sleep(0.05)
    return process


def end_of(process):
    """Waits for the end of a demo and gives what it said; one that does not end is killed."""
    try:
        return process.communicate(timeout=30)[1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def is_running(out):
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return str(out) in listed.stdout


def test_sigterm_ends_the_stage_in_order_too(tmp_path):
    with start_demo(tmp_path / "demo") as process:
        process.terminate()
        err = end_of(process)
    assert process.returncode == 130
    assert err.endswith("\nerror: interrupted; the next demo starts anew\n")
    assert err.count("error: interrupted") == 2  # the stage, and the demo
    assert "Traceback" not in err
    assert not is_running(tmp_path)
    assert [entry.name for entry in (tmp_path / "demo").iterdir()] == [demo.MARKER]


def test_ctrl_c_reaches_the_stage_once(tmp_path):
    with start_demo(tmp_path / "demo") as process:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        err = end_of(process)
    assert process.returncode == 130
    assert err.count("error: interrupted") == 2
    assert "Traceback" not in err
    assert not is_running(tmp_path)


def test_server_that_does_not_start_is_named(tmp_path):
    with pytest.raises(StageFailedError, match="the server ended before it answered; see above"):
        with demo._server([], tmp_path / "no_model"):
            pass


def test_commands_run_with_the_interpreter_of_the_demo():
    assert demo._command("train", "trainer train", ["--out", 1])[0] == sys.executable
