"""The command line of TensorFlow Serving's container, which serves the same in production."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from serving.config import ServeConfig, host_and_port
from serving.embedded.config_files import model_configs

IMAGE = "tensorflow/serving"

TAG = "2.21.0"
"""The TensorFlow version that trains and exports the model."""

_UNPRIVILEGED_USER = "65534:65534"
_FILES = (
    "model_config_file",
    "ssl_config_file",
    "monitoring_config_file",
    "batching_parameters_file",
)
_SWITCHES = (
    "allow_version_labels_for_unavailable_models",
    "enable_grpc_healthcheck_service",
    "enable_batching",
)
_HARDENING = [
    ["--user", _UNPRIVILEGED_USER],
    ["--cap-drop", "ALL"],
    ["--security-opt", "no-new-privileges"],
    ["--read-only"],
    ["--tmpfs", "/tmp"],
]


def docker_command(config: ServeConfig, *, port: int, tag: str = TAG) -> list[list[str]]:
    """Gives the ``docker run`` line that serves the same model at the same ports.

    The image's own entry point is a shell script that runs as root and keeps signals for itself:
    the server is called directly instead. It handles no SIGTERM, which the first process of a
    container would not even see; with ``--init`` it is not the first, and SIGTERM ends it at once.

    Args:
        config: what the embedded server was started with.
        port: gRPC's port, where the configuration asked for a free one.
        tag: of the image; a GPU needs one such as ``2.21.0-gpu``.

    Returns:
        The words of the command, those of a line together.

    Raises:
        StartError: if a file of the configuration cannot be read.
    """
    mounts, server_flags = _models(config)
    ports = [port, config.rest_api_port] if config.rest_api_port else [port]
    server_flags.insert(0, f"--port={port}")
    if config.rest_api_port:
        server_flags.append(f"--rest_api_port={config.rest_api_port}")
    return [
        ["docker", "run", "--rm", "--init", *(["--gpus", "all"] if tag.endswith("-gpu") else [])],
        [word for option in _HARDENING for word in option],
        *(["-p", f"{host_and_port(config.bind_address, p)}:{p}"] for p in ports),
        *(["-v", f"{source}:{target}:ro"] for source, target in mounts),
        ["--entrypoint", "tensorflow_model_server", f"{IMAGE}:{tag}"],
        server_flags,
    ]


def as_shell(command: Sequence[Sequence[str]]) -> str:
    """Writes a command over several lines, ready for a shell."""
    return " \\\n    ".join(shlex.join(line) for line in command)


def _models(config: ServeConfig) -> tuple[list[tuple[str, str]], list[str]]:
    """Gives what is mounted where, and the flags for models, files and switches."""
    configs = model_configs(config)
    if config.model_config_file is None:
        mount = f"/models/{config.model_name}"
        flags = [f"--model_name={config.model_name}", f"--model_base_path={mount}"]
        mounts = [(configs[0].base_path, mount)]
    else:
        # The file holds the paths, so they are the same inside.
        mounts = [(folder, folder) for folder in sorted({model.base_path for model in configs})]
        flags = []
    for name in _FILES:
        path: Path | None = getattr(config, name)
        if path:
            mounts.append((str(path.absolute()), f"/config/{name}"))
            flags.append(f"--{name}=/config/{name}")
    flags += [f"--{name}" for name in _SWITCHES if getattr(config, name)]
    if config.file_system_poll_wait_seconds != ServeConfig.file_system_poll_wait_seconds:
        seconds = max(0, round(config.file_system_poll_wait_seconds))
        flags.append(f"--file_system_poll_wait_seconds={seconds}")
    return mounts, flags
