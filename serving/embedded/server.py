"""The embedded server: models behind TensorFlow Serving's protocol.

A stand-in for development, tests and the demo. Production runs the ``tensorflow/serving``
container, which answers the same calls (``production.py`` gives its command line).
"""

import errno
import logging
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import grpc
from grpc_health.v1 import health, health_pb2_grpc

from serving.config import ServeConfig, host_and_port
from serving.embedded import servicers
from serving.embedded.config_files import metrics_path, model_configs, server_credentials
from serving.embedded.models import ModelStore
from serving.embedded.rest import RestServer
from serving.embedded.warm_up import warm_up
from serving.errors import ConfigFileError, ListenError
from serving.protos import model_service_pb2_grpc, prediction_service_pb2_grpc
from serving.status import StatusCode, StatusError

logger = logging.getLogger(__name__)

DRAIN_S = 10.0
"""How long calls that are under way may take to end when the server stops."""

_NO_LIMIT = -1


class EmbeddedServer:
    """Serves models until ``stop``, and the newest versions of them.

    Attributes:
        models: what is served.
        port: port of gRPC, also where the configuration asks for a free one.
        rest_api_port: port of REST; 0 if it is off.
    """

    def __init__(self, config: ServeConfig) -> None:
        """Loads the models and listens; ``start`` answers.

        Raises:
            NoModelError: if there is no version to load.
            BrokenModelError: if TensorFlow cannot load the SavedModel.
            ConfigFileError: if a configuration cannot be read or followed.
            ListenError: if a port is taken, or the address is not one of this computer.
        """
        # Before a model is loaded: a port that is taken is told at once.
        _check_free(config.bind_address, config.port)
        _check_free(config.bind_address, config.rest_api_port)
        path = metrics_path(config.monitoring_config_file)
        tls = server_credentials(config.ssl_config_file) if config.ssl_config_file else None
        self.models = _load(config)
        self._address = config.bind_address
        try:
            self._grpc_server, self.port = _listen_grpc(config, self.models, tls)
            self._rest_server = _listen_rest(config, self.models, path)
        except ListenError:
            self.models.close()
            raise
        self.rest_api_port = self._rest_server.server_port if self._rest_server else 0

    @property
    def target(self) -> str:
        """``HOST:PORT`` for a client on this computer."""
        return host_and_port(_reachable(self._address), self.port)

    @property
    def rest_url(self) -> str:
        """Address of the first model over REST; empty if it is off."""
        if not self.rest_api_port:
            return ""
        host = host_and_port(_reachable(self._address), self.rest_api_port)
        return f"http://{host}/v1/models/{self.models.served()[0].name}"

    def start(self) -> None:
        """Begins to answer."""
        self._grpc_server.start()
        if self._rest_server:
            self._rest_server.thread.start()

    def stop(self, drain_s: float = DRAIN_S) -> None:
        """Takes no more calls, and gives the memory of the models back.

        Args:
            drain_s: seconds for the calls under way to end; what runs longer is cut off.
        """
        stopped = self._grpc_server.stop(drain_s)
        if self._rest_server:
            self._rest_server.stop(drain_s)  # meanwhile gRPC drains by itself
        stopped.wait()
        self.models.close()

    def __enter__(self) -> Self:
        """Starts."""
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stops."""
        self.stop()


def _load(config: ServeConfig) -> ModelStore:
    try:
        return ModelStore(
            model_configs(config),
            poll_wait_s=config.file_system_poll_wait_seconds,
            labels_may_wait=config.allow_version_labels_for_unavailable_models,
            warm_up=warm_up,
        )
    except StatusError as error:
        hint = ""
        if error.code == StatusCode.FAILED_PRECONDITION:
            # So it is in TensorFlow Serving too.
            hint = "; --allow_version_labels_for_unavailable_models lets labels wait"
        raise ConfigFileError(f"{config.model_config_file}: {error.message}{hint}") from error


def _listen_grpc(
    config: ServeConfig, models: ModelStore, tls: grpc.ServerCredentials | None
) -> tuple[grpc.Server, int]:
    server = grpc.server(
        ThreadPoolExecutor(max_workers=max(4, 2 * (os.cpu_count() or 1))),
        options=[
            # As TensorFlow Serving. And two servers must not share one port without a word.
            ("grpc.max_receive_message_length", _NO_LIMIT),
            ("grpc.max_send_message_length", _NO_LIMIT),
            ("grpc.so_reuseport", 0),
        ],
    )
    prediction = servicers.PredictionService(models)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(prediction, server)
    model = servicers.ModelService(models, may_reload=config.allow_reload_config)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(model, server)
    if config.enable_grpc_healthcheck_service:
        # All models are loaded before the server answers at all.
        health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    address = host_and_port(config.bind_address, config.port)
    try:
        if tls:
            return server, server.add_secure_port(address, tls)
        return server, server.add_insecure_port(address)
    except RuntimeError as error:
        hint = f"; is {config.ssl_config_file} right?" if tls else ""
        raise ListenError(f"cannot listen at {address}: {error}{hint}") from error


def _listen_rest(config: ServeConfig, models: ModelStore, path: str) -> RestServer | None:
    if not config.rest_api_port:
        return None
    try:
        return RestServer((config.bind_address, config.rest_api_port), models, path)
    except OSError as error:
        raise _listen_error(config.bind_address, config.rest_api_port, error) from error


def _check_free(host: str, port: int) -> None:
    """Tries the address first: gRPC itself only says that it failed, not why."""
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
