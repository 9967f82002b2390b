"""Servers over the tiny model, and slices as files."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from serving.config import ServeConfig
from serving.embedded.server import EmbeddedServer
from serving.protos import predict_pb2
from tests.serving.tiny_model import LUNG_BELOW, TINY_VERSION, export_tiny_model
from trainer.signature import DEFAULT_MODEL_NAME

GRPC_VARIABLE, REST_VARIABLE = "TENSORFLOW_SERVING_GRPC", "TENSORFLOW_SERVING_REST"


@pytest.fixture(scope="session")
def model_base_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with version 3 of the tiny model, and an older version that must not be served."""
    base = tmp_path_factory.mktemp("models")
    export_tiny_model(base / str(TINY_VERSION))
    (base / "2").mkdir()
    (base / "not-a-version").mkdir()
    return base


@pytest.fixture(scope="session")
def server(model_base_path: Path) -> Iterator[EmbeddedServer]:
    """The embedded server on free ports, with REST."""
    with EmbeddedServer(
        ServeConfig(model_base_path=model_base_path, port=0, rest_api_port=free_port())
    ) as running:
        yield running


@dataclass(frozen=True)
class Served:
    """Where a server answers that has the tiny model, ours or TensorFlow Serving."""

    grpc: str
    """HOST:PORT."""

    rest: str
    """http://HOST:PORT."""


@pytest.fixture(scope="session")
def served(request: pytest.FixtureRequest) -> Served:
    """TensorFlow Serving where the environment says that it is there; else the embedded server."""
    addresses = [os.environ.get(name) for name in (GRPC_VARIABLE, REST_VARIABLE)]
    if all(addresses):
        return Served(*addresses)
    if any(addresses):
        pytest.fail(f"give both {GRPC_VARIABLE}=HOST:PORT and {REST_VARIABLE}=http://HOST:PORT")
    server = request.getfixturevalue("server")
    return Served(server.target, f"http://127.0.0.1:{server.rest_api_port}")


@pytest.fixture
def gray_image() -> np.ndarray:
    """[20, 30] with every kind of gray value; left of column 10 is lung for the tiny model."""
    image = np.random.default_rng(5).integers(LUNG_BELOW + 1, 256, (20, 30), dtype=np.uint8)
    image[:, :10] = np.random.default_rng(6).integers(0, LUNG_BELOW, (20, 10), dtype=np.uint8)
    return image


@pytest.fixture
def write_slice(tmp_path: Path) -> Callable[..., Path]:
    """Writes an array below ``tmp_path/slices`` as BMP or PNG."""

    def write(name: str, image: np.ndarray) -> Path:
        path = tmp_path / "slices" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        return path

    return write


class FakeServer:
    """A gRPC server whose Predict is a function of the test."""

    def __init__(self, answer: Callable[[Any, grpc.ServicerContext], bytes]) -> None:
        self.requests: list[Any] = []
        self.release = threading.Event()

        def predict(request: Any, context: grpc.ServicerContext) -> bytes:
            self.requests.append(request)
            return answer(request, context)

        handler = grpc.unary_unary_rpc_method_handler(
            predict, request_deserializer=predict_pb2.PredictRequest.FromString
        )
        self._server = grpc.server(
            ThreadPoolExecutor(max_workers=4),
            handlers=[
                grpc.method_handlers_generic_handler(
                    "tensorflow.serving.PredictionService", {"Predict": handler}
                )
            ],
            options=[("grpc.max_receive_message_length", -1)],
        )
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.target = f"127.0.0.1:{port}"
        self._server.start()

    def stop(self) -> None:
        self.release.set()
        self._server.stop(0).wait()


@pytest.fixture
def fake_server() -> Iterator[Callable[..., FakeServer]]:
    """Starts fake servers and stops them after the test."""
    running: list[FakeServer] = []

    def start(answer: Callable[[Any, grpc.ServicerContext], bytes]) -> FakeServer:
        running.append(FakeServer(answer))
        return running[-1]

    yield start
    for fake in running:
        fake.stop()


@pytest.fixture
def slow_server(fake_server: Callable[..., FakeServer]) -> FakeServer:
    """A server that takes requests and does not answer before the end of the test."""
    holder: list[FakeServer] = []

    def never(request: Any, context: grpc.ServicerContext) -> bytes:
        holder[0].release.wait(30)
        return b""

    holder.append(fake_server(never))
    return holder[0]


@pytest.fixture
def closed_port() -> int:
    """A port of this computer at which nobody listens."""
    return free_port()


@pytest.fixture
def predict_request() -> Callable[..., Any]:
    """Makes a plain PredictRequest, as any TensorFlow Serving client does."""

    def make(name: str = DEFAULT_MODEL_NAME, signature_name: str = "", **inputs: Any) -> Any:
        import tensorflow as tf

        request = predict_pb2.PredictRequest()
        request.model_spec.name = name
        request.model_spec.signature_name = signature_name
        for key, value in inputs.items():
            request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
        return request

    return make


def free_port() -> int:
    """Gives a port that was free a moment ago."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
