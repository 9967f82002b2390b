"""Workers that cannot find each other are told why, instead of waiting for an hour."""

import socket
import subprocess
import sys
import threading

import pytest

from tests.trainer.runs import command_of, free_address_pattern
from trainer.config import TrainerConfig
from trainer.rendezvous import meet

NAMES = {"train-0.train": "127.0.0.1", "train-1.train": "127.0.0.1"}


@pytest.fixture(autouse=True)
def names(monkeypatch):
    """A DNS that knows two pods, and localhost."""
    known, real = dict(NAMES), socket.getaddrinfo

    def look_up(host, *arguments, **options):
        if host == "localhost":
            return real(host, *arguments, **options)
        if host not in known:
            raise socket.gaierror(-2, "Name or service not known")
        return real(known[host], *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def addresses(port: int) -> list[str]:
    return [f"train-0.train:{port}", f"train-1.train:{port}"]


def test_chief_goes_on_once_it_knows_all_names(listener):
    meet(addresses(2222), 0, own_name_s=0, peers_s=0)


def test_other_worker_goes_on_once_the_chief_listens(listener):
    meet(addresses(listener.getsockname()[1]), 1, own_name_s=0, peers_s=0)


def test_names_that_come_late_are_waited_for(names, listener):
    late = names.pop("train-1.train")
    timer = threading.Timer(0.2, names.__setitem__, ("train-1.train", late))
    timer.start()
    meet(addresses(2222), 0, own_name_s=5, peers_s=5)
    timer.join()


def test_missing_service_is_told_with_what_was_expected(names):
    names.clear()
    told = (
        "worker 1 of 2 does not find its own name: no address is known for train-1.train after 0 s"
    )
    with pytest.raises(ValueError, match=f"{told}; expected a headless Service"):
        meet(addresses(2222), 1, own_name_s=0, peers_s=0)


def test_pod_that_never_comes_is_told_by_the_chief(names):
    del names["train-1.train"]
    told = "worker 0 of 2 does not find the others: no address is known for train-1.train after 0 s"
    with pytest.raises(ValueError, match=f"{told}; are their pods scheduled"):
        meet(addresses(2222), 0, own_name_s=0, peers_s=0)


def test_chief_that_does_not_answer_is_told(listener):
    port = listener.getsockname()[1]
    listener.close()
    told = f"worker 1 of 2 does not reach the chief: train-0.train:{port} does not answer"
    with pytest.raises(ValueError, match=f"{told} .*refused.* after 0 s; .* NetworkPolicy"):
        meet(addresses(port), 1, own_name_s=0, peers_s=0)


@pytest.mark.parametrize("address", ["train-0", "train-0:", ":2222", "train-0:port"])
def test_address_without_host_or_port_is_told(address):
    with pytest.raises(ValueError, match="address of a worker is .*; expected HOST:PORT"):
        meet([address, "b:1"], 0)


@pytest.mark.slow
def test_training_whose_service_is_missing_ends_as_a_final_failure(dataset, tmp_path, monkeypatch):
    """With the exit code that a Job does not try again."""
    config = TrainerConfig(data=dataset, out=tmp_path / "run", image_size=32, filters=2, depth=2)
    port = free_address_pattern().rpartition(":")[2].replace("{index}", "0")
    for name, value in (
        ("NUM_WORKERS", "2"),
        ("JOB_COMPLETION_INDEX", "1"),
        ("WORKER_ADDRESS", f"lung-ct-{{index}}.invalid:{port}"),
    ):
        monkeypatch.setenv(name, value)
    patient = command_of(config)
    code = (
        "import trainer.rendezvous as r, runpy, sys; r.meet.__kwdefaults__.update(own_name_s=1.0)"
    )
    code += (
        "; sys.argv = ['trainer', *sys.argv[1:]]; runpy.run_module('trainer', run_name='__main__')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *patient[3:]], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "error: worker 1 of 2 does not find its own name" in ended.stderr.splitlines()[-1]
