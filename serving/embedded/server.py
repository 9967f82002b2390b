"""The embedded server: one model behind TensorFlow Serving's protocol.

A stand-in for development, tests and the demo. Production runs the ``tensorflow/serving``
container, which answers the same calls (``production.py`` gives its command line).
"""

import errno
import logging
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from serving.config import ServeConfig
from serving.embedded import servicers
from serving.embedded.answers import ServedModel
from serving.embedded.engine import EngineError, SavedModelSession
from serving.embedded.rest import RestServer
from serving.errors import BrokenModelError, ListenError, NoModelError

logger = logging.getLogger(__name__)

DRAIN_S = 10.0
"""How long calls that are under way may take to end when the server stops."""

_SAVED_MODEL = "saved_model.pb"
_NO_LIMIT = -1


class EmbeddedServer:
    """Serves the highest version of a model until ``stop``.

    Attributes:
        model: what is served.
        port: port of gRPC, also where the configuration asks for a free one.
        rest_api_port: port of REST; 0 if it is off.
    """

    def __init__(self, config: ServeConfig) -> None:
        """Loads the model and listens; ``start`` answers.

        Raises:
            NoModelError: if there is no version to load.
            BrokenModelError: if TensorFlow cannot load the SavedModel.
            ListenError: if a port is taken, or the address is not one of this computer.
        """
        # Before the model is loaded: a port that is taken is told at once.
        _check_free(config.bind_address, config.port)
        _check_free(config.bind_address, config.rest_api_port)
        self.model = load_latest(config.model_base_path, config.model_name)
        self._address = config.bind_address
        self._grpc_server, self.port = _listen_grpc(config, self.model)
        self._rest_server = _listen_rest(config, self.model)
        self.rest_api_port = self._rest_server.server_port if self._rest_server else 0

    @property
    def target(self) -> str:
        """``HOST:PORT`` for a client on this computer."""
        return host_and_port(_reachable(self._address), self.port)

    @property
    def rest_url(self) -> str:
        """Address of the model over REST; empty if it is off."""
        if not self.rest_api_port:
            return ""
        host = host_and_port(_reachable(self._address), self.rest_api_port)
        return f"http://{host}/v1/models/{self.model.name}"

    def start(self) -> None:
        """Begins to answer."""
        self._grpc_server.start()
        if self._rest_server:
            threading.Thread(target=self._rest_server.serve_forever, daemon=True).start()

    def stop(self, drain_s: float = DRAIN_S) -> None:
        """Takes no more calls, and gives the model's memory back.

        Args:
            drain_s: seconds for the calls under way to end; what runs longer is cut off.
        """
        stopped = self._grpc_server.stop(drain_s)
        if self._rest_server:
            self._rest_server.shutdown()
            self._rest_server.server_close()
        stopped.wait()
        self.model.session.close()

    def __enter__(self) -> Self:
        """Starts."""
        self.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stops."""
        self.stop()


def load_latest(model_base_path: Path, model_name: str) -> ServedModel:
    """Loads the highest version below a folder.

    Raises:
        NoModelError: if there is none.
        BrokenModelError: if TensorFlow cannot load it.
    """
    version_dir = _latest_version_dir(model_base_path)
    if not (version_dir / _SAVED_MODEL).is_file():
        raise BrokenModelError(
            f"{version_dir} holds no {_SAVED_MODEL}; export the model again, or remove this folder "
            "so that the version before it is served"
        )
    try:
        session = SavedModelSession(version_dir)
    except EngineError as error:
        reason = " ".join(error.message.split())
        raise BrokenModelError(
            f"{version_dir} cannot be loaded: {reason}; export the model again, or remove this "
            "folder so that the version before it is served"
        ) from error
    return ServedModel(name=model_name, version=int(version_dir.name), session=session)


def host_and_port(host: str, port: int) -> str:
    """Joins both; an IPv6 address gets its brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _latest_version_dir(base: Path) -> Path:
    if not base.is_dir():
        raise NoModelError(
            f"{base} is no folder; expected one with a numbered folder for each version, as "
            "`make train-multigpu` and `python -m trainer export` write it"
        )
    versions = [path for path in base.iterdir() if path.is_dir() and path.name.isdecimal()]
    if versions:
        return max(versions, key=lambda path: int(path.name))
    if (base / _SAVED_MODEL).is_file():
        parent = base.resolve().parent
        hint = f"it is a SavedModel itself; give the folder above it, {parent}"
        if not base.resolve().name.isdecimal():
            hint = f"it is a SavedModel itself; move it to {base}/1"
    else:
        below = sorted(path.parent.parent.name for path in base.glob(f"*/*/{_SAVED_MODEL}"))
        hint = f"did you mean {base / below[0]}?" if below else "export a model first"
    raise NoModelError(f"{base} holds no numbered version such as {base / '1'}; {hint}")


def _listen_grpc(config: ServeConfig, model: ServedModel) -> tuple[grpc.Server, int]:
    server = grpc.server(
        ThreadPoolExecutor(max_workers=max(4, 2 * (os.cpu_count() or 1))),
        handlers=(servicers.prediction_service(model), servicers.model_service(model)),
        options=[
            # As TensorFlow Serving. And two servers must not share one port without a word.
            ("grpc.max_receive_message_length", _NO_LIMIT),
            ("grpc.max_send_message_length", _NO_LIMIT),
            ("grpc.so_reuseport", 0),
        ],
    )
    address = host_and_port(config.bind_address, config.port)
    try:
        return server, server.add_insecure_port(address)
    except RuntimeError as error:
        raise ListenError(f"cannot listen at {address}: {error}") from error


def _listen_rest(config: ServeConfig, model: ServedModel) -> RestServer | None:
    if not config.rest_api_port:
        return None
    try:
        return RestServer((config.bind_address, config.rest_api_port), model)
    except OSError as error:
        raise _listen_error(config.bind_address, config.rest_api_port, error) from error


def _check_free(host: str, port: int) -> None:
    """Tries the address first: gRPC itself only says that it failed, not why."""
    if not port:
        return
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise _listen_error(host, port, error) from error


def _listen_error(host: str, port: int, error: OSError) -> ListenError:
    address = host_and_port(host, port)
    if error.errno == errno.EADDRINUSE:
        return ListenError(
            f"cannot listen at {address}: the port is in use; stop the other server, or choose "
            "another port (--port 0 takes a free one for gRPC)"
        )
    reason = error.strerror or error
    return ListenError(f"cannot listen at {address}: {reason}; check --bind_address and the port")


def _reachable(host: str) -> str:
    """Gives an address that a client can dial; 0.0.0.0 can only be listened at."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
