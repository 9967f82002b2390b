"""TensorFlow Serving's container: its command line and its files."""

import os
import re
import subprocess
import sys
import urllib.request
from importlib.metadata import version
from pathlib import Path

import pytest

from serving.__main__ import main
from serving.config import ServeConfig
from serving.container.command import TAG, as_shell, docker_command
from serving.embedded.metrics import DEFAULT_PATH
from serving.embedded.server import EmbeddedServer
from tests.serving.conftest import free_port
from trainer.signature import WARM_UP_BATCHES

FOLDER = Path(__file__).parents[2] / "serving" / "container"


def test_production_command_serves_the_same(model_base_path: Path) -> None:
    config = ServeConfig(model_base_path=model_base_path, model_name="lungs", rest_api_port=8501)
    command = as_shell(docker_command(config, port=8500)).replace("\\\n", " ")
    words = command.split()
    assert words[:2] == ["docker", "run"]
    assert f"{model_base_path.resolve()}:/models/lungs:ro" in words
    for expected in (
        "127.0.0.1:8500:8500",
        "127.0.0.1:8501:8501",
        "--port=8500",
        "--rest_api_port=8501",
        "--model_name=lungs",
        "--model_base_path=/models/lungs",
        "--cap-drop",
        "--read-only",
        "--init",
    ):
        assert expected in words
    assert re.search(r"tensorflow/serving:\d+\.\d+\.\d+ ", command)
    assert command.index("tensorflow/serving:") < command.index("--port=8500")


def test_production_command_has_the_files_and_switches_too(
    model_base_path: Path, tmp_path: Path
) -> None:
    path = tmp_path / "models.config"
    path.write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{model_base_path}" '
        'model_platform: "tensorflow" } }'
    )
    config = ServeConfig(
        model_config_file=path,
        ssl_config_file=tmp_path / "ssl.config",
        enable_grpc_healthcheck_service=True,
    )
    words = as_shell(docker_command(config, port=8500)).replace("\\\n", " ").split()
    for expected in (
        f"{path}:/config/model_config_file:ro",
        f"{model_base_path}:{model_base_path}:ro",
        f"{tmp_path}/ssl.config:/config/ssl_config_file:ro",
        "--model_config_file=/config/model_config_file",
        "--ssl_config_file=/config/ssl_config_file",
        "--enable_grpc_healthcheck_service",
    ):
        assert expected in words


def test_production_image_is_of_the_installed_tensorflow() -> None:
    major_minor = version("tensorflow").rsplit(".", 1)[0]
    assert TAG.startswith(f"{major_minor}.")


def test_tag_and_waiting_time_are_passed_on(model_base_path: Path) -> None:
    config = ServeConfig(model_base_path=model_base_path, file_system_poll_wait_seconds=30)
    words = [word for line in docker_command(config, port=8500, tag="2.21.0-gpu") for word in line]
    assert words[words.index("--gpus") + 1] == "all"
    assert "--gpus" not in docker_command(config, port=8500, tag="2.21.0")[0]
    assert "tensorflow/serving:2.21.0-gpu" in words
    assert "--file_system_poll_wait_seconds=30" in words


def test_command_is_printed(model_base_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--model_base_path", str(model_base_path), "--tag", "1.2", "--print"]
    assert main(["container", *flags]) == 0
    told = capsys.readouterr().out
    assert told.startswith("docker run --rm --init")
    assert "tensorflow/serving:1.2" in told


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_container_takes_the_place_of_the_command(
    model_base_path: Path, tmp_path: Path, name: str
) -> None:
    program = tmp_path / name
    program.write_text('#!/bin/sh\necho "$@"\nexit 7\n')
    program.chmod(0o755)
    ended = subprocess.run(
        [sys.executable, "-m", "serving", "container", "--model_base_path", model_base_path],
        env={**os.environ, "PATH": f"{tmp_path}:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 7
    last = ended.stdout.splitlines()[-1]
    assert last.startswith("run --rm --init --user 65534:65534 --cap-drop ALL")
    assert last.endswith("--model_name=lung_unet --model_base_path=/models/lung_unet")


def test_missing_docker_is_told(
    model_base_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["container", "--model_base_path", str(model_base_path)]) == 1
    assert "neither docker nor podman is installed; install one" in capsys.readouterr().err


def test_port_has_to_be_known_before(
    model_base_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["container", "--model_base_path", str(model_base_path), "--port", "0"]) == 1
    assert "--port is 0; expected a port that is known" in capsys.readouterr().err


def test_monitoring_file_is_one_that_the_server_reads(model_base_path: Path) -> None:
    config = ServeConfig(
        model_base_path=model_base_path,
        port=0,
        rest_api_port=free_port(),
        monitoring_config_file=FOLDER / "monitoring.config",
    )
    with (
        EmbeddedServer(config) as server,
        urllib.request.urlopen(f"http://127.0.0.1:{server.rest_api_port}{DEFAULT_PATH}") as answer,
    ):
        assert answer.status == 200


def test_batching_file_allows_what_the_client_sends() -> None:
    # TensorFlow Serving's package for Python holds no BatchingParameters.
    text = (FOLDER / "batching.config").read_text()
    sizes = [int(size) for size in re.findall(r"^allowed_batch_sizes: (\d+)$", text, re.MULTILINE)]
    (largest,) = re.findall(r"^max_batch_size { value: (\d+) }$", text, re.MULTILINE)
    assert sizes == sorted(sizes)
    assert sizes[-1] == int(largest)
    assert set(WARM_UP_BATCHES) <= set(sizes)
    assert not re.search("^pad_variable_length_inputs", text, re.MULTILINE)


def test_dockerfile_serves_the_same_as_nobody() -> None:
    text = (FOLDER / "Dockerfile").read_text()
    assert f"ARG TAG={TAG}\n" in text
    assert "USER 65534:65534\n" in text
    assert 'ENTRYPOINT ["tensorflow_model_server"]\n' in text
    for flag in re.findall(r'"--([a-z_]+)', text):
        assert hasattr(ServeConfig, flag) or flag in ServeConfig.__dataclass_fields__, flag
    for source in re.findall(r"^COPY (serving/\S+)", text, re.MULTILINE):
        assert (FOLDER.parents[1] / source).is_file()
