"""The command line that serves the same in production, with TensorFlow Serving's container."""

import shlex
from collections.abc import Sequence
from typing import Any

from serving.config import ServeConfig
from serving.embedded.answers import ServedModel
from serving.embedded.server import host_and_port
from serving.tensors import type_name

IMAGE = "tensorflow/serving:2.21.0"
"""Image of TensorFlow Serving: the TensorFlow version that trains and exports the model."""

_UNPRIVILEGED_USER = "65534:65534"
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
    mount = f"/models/{config.model_name}"
    ports = [port, config.rest_api_port] if config.rest_api_port else [port]
    server_flags = [f"--port={port}", f"--model_name={config.model_name}"]
    server_flags.append(f"--model_base_path={mount}")
    if config.rest_api_port:
        server_flags.append(f"--rest_api_port={config.rest_api_port}")
    lines: list[Sequence[str]] = [
        ["docker", "run", "--rm", "--init"],
        [word for option in _HARDENING for word in option],
        *(["-p", f"{host_and_port(config.bind_address, p)}:{p}"] for p in ports),
        ["-v", f"{config.model_base_path.resolve()}:{mount}:ro"],
        ["--entrypoint", "tensorflow_model_server", IMAGE],
        server_flags,
    ]
    return " \\\n    ".join(shlex.join(line) for line in lines)


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
