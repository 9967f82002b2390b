"""A run that is killed or told to stop, at any moment, goes on as if it had not been."""

import json
import os
import random
import signal
import subprocess
import time
from dataclasses import replace

import numpy as np
import pytest

from tests.trainer.conftest import small_config
from tests.trainer.runs import PATIENCE_S, Workers, command_of, history_of, latest_arrays
from trainer import train
from trainer.checkpoints import best_checkpoint
from trainer.interruption import EXIT_CTRL_C, EXIT_RETRY, Interruption, Terminated
from trainer.run_folder import load_best_model
from trainer.train import run

NUM_KILLS = 5


def lasting_config(dataset, out, **settings):
    """A run of some seconds after its start, which stops early: 10 steps an epoch."""
    return small_config(
        dataset,
        out,
        **{
            "image_size": 64,
            "filters": 16,
            "depth": 3,
            "global_batch_size": 1,
            "epochs": 40,
            "patience": 2,
            "learning_rate": 2e-2,
            "normalization": "instance",
            "ema_decay": 0.5,
            "noise": 5.0,
            "magnify": 0.2,
            "deterministic": True,
            "checkpoint_steps": 3,
            **settings,
        },
    )


def start(config, **popen):
    return subprocess.Popen(
        command_of(config), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, **popen
    )


def wait_for(process, text):
    """Reads what a process says until a line holds a text; gives all lines."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return lines
    pytest.fail(f"{text!r} was not said: {''.join(lines)}")


def newest(run_dir):
    return max((entry.name for entry in run_dir.glob("checkpoints/latest/e*")), default=None)


def wait_for_another_checkpoint(process, run_dir, last):
    deadline = time.monotonic() + PATIENCE_S
    while newest(run_dir) == last and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


@pytest.mark.slow
def test_run_that_is_killed_five_times_ends_as_one_that_was_not(dataset, tmp_path):
    whole = lasting_config(dataset, tmp_path / "whole")
    subprocess.run(command_of(whole), check=True, capture_output=True)
    rng = random.Random(4)
    killed = replace(whole, out=tmp_path / "killed")
    places = []
    for _ in range(NUM_KILLS):
        with start(killed) as process:
            wait_for_another_checkpoint(process, killed.out, places[-1] if places else None)
            time.sleep(rng.uniform(0, 0.4))
            process.kill()
            process.communicate(timeout=PATIENCE_S)
        places.append(newest(killed.out))
    assert len(set(places)) == NUM_KILLS, places
    subprocess.run(command_of(killed), check=True, capture_output=True)

    assert (killed.out / "history.csv").read_bytes() == (whole.out / "history.csv").read_bytes()
    assert 3 < len(history_of(whole.out)) < whole.epochs  # it stopped early
    for name, array in latest_arrays(whole.out).items():
        assert np.array_equal(array, latest_arrays(killed.out)[name]), name
    best = [best_checkpoint(config.out) for config in (whole, killed)]
    assert best[0].name == best[1].name
    weights = [load_best_model(config.out)[1].get_weights() for config in (whole, killed)]
    for first, second in zip(*weights, strict=True):
        assert np.array_equal(first, second)
    evaluations = [
        json.loads((config.out / "evaluation.json").read_text())["overall"]
        for config in (whole, killed)
    ]
    assert evaluations[0] == evaluations[1]
    assert not list(killed.out.rglob("*.partial*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, EXIT_RETRY), (signal.SIGINT, EXIT_CTRL_C)]
)
def test_signal_saves_and_ends_with_a_code_of_its_own(dataset, tmp_path, number, code):
    config = lasting_config(
        dataset, tmp_path / "run", checkpoint_steps=None, epochs=50, patience=50
    )
    with start(config) as process:
        wait_for(process, "epoch 1/")
        time.sleep(0.3)
        process.send_signal(number)
        said = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == code
    assert "the state is saved, and the same command goes on from there" in said
    assert said.endswith("stopped\n")
    assert "Traceback" not in said


def wait_for_an_epoch(workers, run_dir):
    deadline = time.monotonic() + PATIENCE_S
    while not (run_dir / "history.csv").exists() or not history_of(run_dir):
        assert all(process.poll() is None for process in workers.processes)
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_signal_to_one_worker_stops_all_of_them(dataset, tmp_path):
    config = lasting_config(
        dataset, tmp_path / "run", deterministic=False, global_batch_size=2, epochs=99, patience=99
    )
    with Workers(config) as workers:
        wait_for_an_epoch(workers, config.out)
        workers.processes[1].terminate()
        ended = workers.end()
    assert [code for code, _ in ended] == [EXIT_RETRY, EXIT_RETRY], ended
    assert "the state is saved" in ended[0][1]


@pytest.mark.slow
def test_worker_that_is_killed_ends_its_peer_with_the_code_for_a_retry(dataset, tmp_path):
    config = lasting_config(
        dataset, tmp_path / "run", deterministic=False, global_batch_size=2, epochs=99, patience=99
    )
    with Workers(config) as workers:
        wait_for_an_epoch(workers, config.out)
        workers.processes[1].kill()
        (code, said), _ = workers.end()
    assert code == EXIT_RETRY, said
    assert "error: another worker is gone, so training cannot go on; start all workers" in said


def test_run_that_was_stopped_within_an_epoch_goes_on_within_it(config, monkeypatch, no_pictures):
    config = replace(
        config,
        epochs=3,
        coarse_share=0.5,
        global_batch_size=2,
        checkpoint_steps=2,
        ema_decay=0.5,
        magnify=0.3,
        noise=9.0,
        local_contrast=0.3,
    )
    whole = replace(config, out=config.out.with_name("whole"))
    run(whole)
    monkeypatch.setattr(train, "SECONDS_IN_A_CALL", 0.0)  # one step in each call
    calls = iter(range(100))
    real = train._Training._call

    def stop_in_the_eighth_call(*arguments):
        if next(calls) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    for _ in range(2):  # the second time within the rest of the run
        monkeypatch.setattr(train._Training, "_call", stop_in_the_eighth_call)
        with pytest.raises(Terminated):
            run(config)
        calls = iter(range(100))
    monkeypatch.undo()
    for name in ("draw_curves", "evaluate", "write_model_card"):
        monkeypatch.setattr(train, name, lambda *_: None)
    run(config)
    assert (config.out / "history.csv").read_bytes() == (whole.out / "history.csv").read_bytes()
    for name, array in latest_arrays(whole.out).items():
        assert np.array_equal(array, latest_arrays(config.out)[name]), name


def test_second_signal_ends_at_once():
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.is_requested
        assert not isinstance(interruption.exception(), Terminated)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
    assert isinstance(interruption.exception(), Terminated)
    assert signal.getsignal(signal.SIGTERM) == before
