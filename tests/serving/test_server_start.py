import re
import shutil
import socket
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.client import SegmentationClient
from serving.config import ServeConfig, host_and_port
from serving.embedded.config_files import model_configs
from serving.embedded.models import ModelStore
from serving.embedded.server import EmbeddedServer
from serving.engine import describe_signatures
from serving.errors import BrokenModelError, ListenError, NoModelError, ServerUnavailableError
from tests.serving.conftest import free_port


def load(model_base_path: Path) -> ModelStore:
    return ModelStore(model_configs(ServeConfig(model_base_path=model_base_path)), poll_wait_s=0)


def test_highest_version_is_loaded_by_number(model_base_path: Path, tmp_path: Path) -> None:
    shutil.copytree(model_base_path / "3", tmp_path / "10")
    (tmp_path / "9").mkdir()
    store = load(tmp_path)
    assert [(model.name, model.version) for model in store.served()] == [("lung_unet", 10)]
    store.close()


def test_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(NoModelError, match=r"nowhere is no folder; expected one with a numbered"):
        load(tmp_path / "nowhere")


def test_folder_without_a_version_is_told(tmp_path: Path) -> None:
    with pytest.raises(NoModelError, match=r"holds no numbered version.*export a model first"):
        load(tmp_path)


def test_version_folder_given_instead_of_its_parent_is_told(model_base_path: Path) -> None:
    with pytest.raises(NoModelError, match="give the folder above it, " + str(model_base_path)):
        load(model_base_path / "3")


def test_saved_model_without_a_number_is_told(model_base_path: Path, tmp_path: Path) -> None:
    shutil.copytree(model_base_path / "3", tmp_path / "model")
    with pytest.raises(NoModelError, match=re.escape(f"move it to {tmp_path}/model/1")):
        load(tmp_path / "model")


def test_folder_above_the_model_is_told(model_base_path: Path, tmp_path: Path) -> None:
    shutil.copytree(model_base_path, tmp_path / "lung_unet")
    with pytest.raises(NoModelError, match=re.escape(f"did you mean {tmp_path}/lung_unet?")):
        load(tmp_path)


def test_version_without_a_graph_is_told(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    with pytest.raises(
        BrokenModelError, match="1 cannot be loaded: Could not find SavedModel .pb or"
    ):
        load(tmp_path)


def test_damaged_graph_is_told(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"<html>")
    with pytest.raises(BrokenModelError, match=r"1 cannot be loaded: .*; export the model again"):
        load(tmp_path)


def test_damaged_variables_are_told(model_base_path: Path, tmp_path: Path) -> None:
    shutil.copytree(model_base_path / "3", tmp_path / "1")
    (tmp_path / "1" / "variables" / "variables.index").write_bytes(b"\0" * 64)
    with pytest.raises(BrokenModelError, match="1 cannot be loaded: "):
        load(tmp_path)


@pytest.mark.parametrize("flag", ["port", "rest_api_port"])
def test_port_in_use_is_told_before_the_model_is_loaded(tmp_path: Path, flag: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = ServeConfig(model_base_path=tmp_path / "nowhere", **{flag: port})
        with pytest.raises(ListenError, match=f"127.0.0.1:{port}: the port is in use"):
            EmbeddedServer(config)


def test_address_of_another_computer_is_told(tmp_path: Path) -> None:
    config = ServeConfig(model_base_path=tmp_path, bind_address="203.0.113.7")
    with pytest.raises(ListenError, match=r"203.0.113.7:8500: .*check --bind_address"):
        EmbeddedServer(config)


def test_second_server_does_not_share_the_port(
    server: EmbeddedServer, model_base_path: Path
) -> None:
    with pytest.raises(ListenError, match="the port is in use"):
        EmbeddedServer(ServeConfig(model_base_path=model_base_path, port=server.port))


def test_server_on_all_addresses_tells_one_that_can_be_dialed(model_base_path: Path) -> None:
    config = ServeConfig(model_base_path=model_base_path, port=0, bind_address="0.0.0.0")
    with EmbeddedServer(config) as running, SegmentationClient(running.target) as client:
        assert running.target == f"127.0.0.1:{running.port}"
        assert running.rest_url == ""
        assert client.predict(np.zeros((2, 2), np.uint8)).tolist() == [[1, 1], [1, 1]]


def test_rest_answers_at_an_ipv6_address(model_base_path: Path) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as probe:
            port = probe.getsockname()[1]
    except OSError:
        pytest.skip("this computer has no IPv6")
    config = ServeConfig(
        model_base_path=model_base_path, port=0, rest_api_port=port, bind_address="::1"
    )
    with EmbeddedServer(config) as running:
        assert (
            running.rest_url == f"http://[::1]:{port}/v1/models/{running.models.served()[0].name}"
        )
        with urllib.request.urlopen(running.rest_url) as response:
            assert response.status == 200


def test_ipv6_address_gets_brackets() -> None:
    assert host_and_port("::1", 8500) == "[::1]:8500"


def test_server_that_never_started_can_be_stopped(model_base_path: Path) -> None:
    config = ServeConfig(model_base_path=model_base_path, port=0, rest_api_port=free_port())
    EmbeddedServer(config).stop()


def test_signatures_are_described_without_tensorflows_own(server: EmbeddedServer) -> None:
    lines = describe_signatures(server.models.served()[0].session.signatures)
    assert [line.split()[0] for line in lines] == ["encoded", "serving_default"]
    assert "image uint8[?,?,?,1] -> predicted_mask uint8[?,?,?,1], probability" in lines[1]


def test_calls_under_way_are_answered_when_the_server_stops(
    model_base_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = EmbeddedServer(
        ServeConfig(model_base_path=model_base_path, port=0, rest_api_port=free_port())
    )
    running.start()
    began, run = threading.Semaphore(0), running.models.served()[0].session.run

    def slow_run(*arguments: Any, **options: Any) -> Any:
        began.release()
        time.sleep(0.5)
        return run(*arguments, **options)

    monkeypatch.setattr(running.models.served()[0].session, "run", slow_run)

    def ask_over_rest() -> bytes:
        body = b'{"instances": [{"image": [[[0]]]}]}'
        with urllib.request.urlopen(f"{running.rest_url}:predict", body, timeout=10) as response:
            return response.read()

    with SegmentationClient(running.target) as client, ThreadPoolExecutor(2) as pool:
        mask = pool.submit(client.predict, np.zeros((2, 2), np.uint8))
        answer = pool.submit(ask_over_rest)
        assert began.acquire(timeout=10)
        assert began.acquire(timeout=10)
        running.stop()
        assert mask.result().all()
        assert b'"predicted_mask": [[[1]]]' in answer.result()
        with pytest.raises(ServerUnavailableError):
            client.predict(np.zeros((2, 2), np.uint8))
