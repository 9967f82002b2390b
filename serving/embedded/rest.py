"""TensorFlow Serving's REST paths for status, metadata and predictions.

Source: tensorflow_serving/model_servers/http_rest_api_handler.cc and http_server.cc,
util/net_http/server/internal/evhttp_request.cc; https://www.tensorflow.org/tfx/serving/api_rest
"""

import json
import logging
import re
import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.json_format import MessageToDict

from serving import tensors
from serving.embedded import answers, examples, rest_json
from serving.embedded.models import LARGEST_VERSION, ModelStore
from serving.protos import get_model_metadata_pb2, model_pb2, predict_pb2
from serving.status import StatusCode, StatusError, invalid

logger = logging.getLogger(__name__)

_VERSION = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_MODEL_PATH = re.compile(
    rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?P<metadata>/metadata)?", re.IGNORECASE
)
_PREDICTION_PATH = re.compile(
    rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<method>classify|regress|predict)", re.IGNORECASE
)
_CLIENT_CLOSED_REQUEST = 499
_MAX_BODY_BYTES = 2**31
_MAX_UNCOMPRESSED_BYTES = 100 * 2**20
_HTTP_STATUS: dict[StatusCode, int] = {
    StatusCode.CANCELLED: _CLIENT_CLOSED_REQUEST,
    StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    StatusCode.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
    StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    StatusCode.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    StatusCode.OUT_OF_RANGE: HTTPStatus.BAD_REQUEST,
    StatusCode.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
    StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}


class RestServer(ThreadingHTTPServer):
    """Answers over HTTP.

    Attributes:
        thread: answers once it is started.
    """

    daemon_threads = True

    def __init__(self, address: tuple[str, int], models: ModelStore, metrics_path: str) -> None:
        """Listens at once; ``thread`` answers.

        Args:
            address: host and port.
            models: what is served.
            metrics_path: path at which metrics are told; empty for none.

        Raises:
            OSError: if the address is taken or is not one of this computer.
        """
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)
        self.models, self.metrics_path = models, metrics_path
        self.thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._changed = threading.Condition()
        self._num_under_way = 0

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Counts a request, until its answer is written."""
        with self._changed:
            self._num_under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_under_way -= 1
                self._changed.notify_all()

    def stop(self, drain_s: float) -> None:
        """Takes no more requests, and waits for answers under way, for a while at most."""
        if self.thread.is_alive():  # or it would be waited for for ever
            self.shutdown()
        self.server_close()
        with self._changed:
            self._changed.wait_for(lambda: self._num_under_way == 0, timeout=drain_s)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    """Connections stay, and clients do not wait for leave to send a large body."""
    disable_nagle_algorithm = True
    """Or a body would wait for 40 ms until the client has confirmed the head before it."""
    server: RestServer

    def do_GET(self) -> None:
        try:
            body = self._read_body()
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST, "the size of the body cannot be read")
            return
        if self.server.metrics_path and self.path == self.server.metrics_path:
            self._send_body(HTTPStatus.OK, "text/plain", self.server.models.metrics.page())
            return
        with self.server.answering():
            try:
                answer = _answer(self.server.models, self.command, self.path, body)
                self._send_json(HTTPStatus.OK, answer)
            except StatusError as error:
                http_status = _HTTP_STATUS.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR)
                self._send_json(http_status, {"error": error.message})

    do_POST = do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET

    def _read_body(self) -> bytes:
        """Reads all that was sent; what is left would be taken for the next request."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b"".join(self._chunks())
        else:
            body = self.rfile.read(_size(self.headers.get("Content-Length", "0"), 10))
        return _uncompressed(body) if "gzip" in self.headers.get("Content-Encoding", "") else body

    def _chunks(self) -> Iterator[bytes]:
        while size := _size(self.rfile.readline().partition(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answers in JSON; where the next request begins is not known."""
        self.close_connection = True
        self._send_json(code, {"error": message or HTTPStatus(code).phrase})

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug("REST %s: " + format, self.address_string(), *args)

    def _send_json(self, http_status: int, document: dict[str, Any]) -> None:
        self._send_body(http_status, "application/json", json.dumps(document) + "\n")

    def _send_body(self, http_status: int, content_type: str, text: str) -> None:
        body = text.encode()
        self.send_response(http_status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _size(text: str | bytes, base: int) -> int:
    """Reads how many bytes follow.

    Raises:
        ValueError: if that is no number, or more than 2 GiB.
    """
    size = int(text, base)
    if not 0 <= size <= _MAX_BODY_BYTES:
        raise ValueError(f"{size} bytes")
    return size


def _uncompressed(body: bytes) -> bytes:
    """Gives what gzip made smaller; nothing, as there, if it is damaged or too large."""
    unzip = zlib.decompressobj(zlib.MAX_WBITS + 16)
    try:
        content = unzip.decompress(body, _MAX_UNCOMPRESSED_BYTES)
    except zlib.error:
        return b""
    return content if unzip.eof else b""


def _answer(models: ModelStore, method: str, path: str, body: bytes) -> dict[str, Any]:
    """Answers a request.

    Raises:
        StatusError: with TensorFlow Serving's code and text.
    """
    if not path.lower().startswith("/v1/"):
        raise StatusError(StatusCode.NOT_FOUND, f"Not Found: {path}; expected /v1/models/MODEL")
    if method == "POST" and (match := _PREDICTION_PATH.fullmatch(path)):
        return _predict(models, match, body)
    if method == "GET" and (match := _MODEL_PATH.fullmatch(path)):
        return _describe(models, match)
    raise invalid(f"Malformed request: {method} {path}")


def _predict(models: ModelStore, match: re.Match[str], body: bytes) -> dict[str, Any]:
    request = predict_pb2.PredictRequest(model_spec=_model_spec(match))
    method = match["method"].lower()
    with models.metrics.request(method, "REST", match["name"]):
        if method != "predict":
            examples.refuse(method, models, request)
        with models.use(request.model_spec) as model:
            asked = rest_json.read_request(body, lambda name: answers.input_infos(model, name))
            request.model_spec.signature_name = asked.signature_name
            for key, array in asked.inputs.items():
                request.inputs[key].ParseFromString(tensors.write_typed(array))
            outputs = answers.run(model, request)
        return rest_json.write_answer(outputs, is_rows=asked.is_rows)


def _describe(models: ModelStore, match: re.Match[str]) -> dict[str, Any]:
    if not match["name"]:
        raise invalid("Missing model name in request.")
    spec = _model_spec(match)
    if not match["metadata"]:
        return _as_json(models.status(spec))
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec=spec, metadata_field=["signature_def"]
    )
    document = _as_json(answers.metadata(models, request))
    del document["metadata"]["signature_def"]["@type"]
    return document


def _model_spec(match: re.Match[str]) -> Any:
    spec = model_pb2.ModelSpec(name=match["name"])
    if match["version"]:
        version = int(match["version"])
        if version > LARGEST_VERSION:
            raise invalid(f"Failed to convert version: {version} to numeric.")
        spec.version.value = version
    elif match["label"]:
        spec.version_label = match["label"]
    return spec


def _as_json(message: Any) -> dict[str, Any]:
    return MessageToDict(
        message, always_print_fields_with_no_presence=True, preserving_proto_field_name=True
    )
