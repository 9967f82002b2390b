"""The command line that serves the same in production, with TensorFlow Serving's container."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving.config import ServeConfig
from serving.embedded.config_files import model_configs
from serving.embedded.models import ServedModel
from serving.embedded.server import host_and_port
from serving.tensors import type_name

IMAGE = "tensorflow/serving:2.21.0"
"""Image of TensorFlow Serving: the TensorFlow version that trains and exports the model."""

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


def docker_command(config: ServeConfig, *, port: int) -> str:
    """Gives the ``docker run`` line that serves the same model at the same ports.

    The image's own entry point is a shell script that runs as root and keeps signals for itself:
    the server is called directly instead, and ``--init`` passes signals on.

    Args:
        config: what the embedded server was started with.
        port: gRPC's port, where the configuration asked for a free one.

    Returns:
        A command over several lines, ready for a shell.
    """
    mounts, server_flags = _models(config)
    ports = [port, config.rest_api_port] if config.rest_api_port else [port]
    server_flags.insert(0, f"--port={port}")
    if config.rest_api_port:
        server_flags.append(f"--rest_api_port={config.rest_api_port}")
    lines: list[Sequence[str]] = [
        ["docker", "run", "--rm", "--init"],
        [word for option in _HARDENING for word in option],
        *(["-p", f"{host_and_port(config.bind_address, p)}:{p}"] for p in ports),
        *(["-v", f"{source}:{target}:ro"] for source, target in mounts),
        ["--entrypoint", "tensorflow_model_server", IMAGE],
        server_flags,
    ]
    return " \\\n    ".join(shlex.join(line) for line in lines)


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
    return mounts, flags


def describe_signatures(model: ServedModel) -> list[str]:
    """Gives one line for each signature: what goes in, and what comes out."""
    lines = []
    width = max(len(name) for name in model.session.signatures)
    for name, signature in sorted(model.session.signatures.items()):
        if name.startswith("__"):  # TensorFlow's own, such as __saved_model_init_op
            continue
        inputs, outputs = (
            ", ".join(f"{key} {_tensor_type(info)}" for key, info in sorted(tensors.items()))
            for tensors in (signature.inputs, signature.outputs)
        )
        lines.append(f"{name:{width}}  {inputs} -> {outputs}")
    return lines


def _tensor_type(info: Any) -> str:
    shape = info.tensor_shape
    sizes = ["?" if dim.size < 0 else str(dim.size) for dim in shape.dim]
    return f"{type_name(info.dtype)}[{','.join(sizes)}]"
