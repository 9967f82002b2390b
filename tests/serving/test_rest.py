"""REST as TensorFlow Serving speaks it; itself is held to these where the environment names it."""

import base64
import gzip
import io
import json
import socket
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serving.embedded import rest
from serving.embedded.server import EmbeddedServer
from serving.status import StatusCode, StatusError
from tests.serving.conftest import Served
from tests.serving.tiny_model import LUNG_BELOW

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(served: Served, path: str, *, data: bytes | None = None) -> tuple[int, Any]:
    url = f"{served.rest}{path}"
    try:
        with OPENER.open(url, data=data, timeout=10) as response:
            assert response.headers["Content-Type"] == "application/json"
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


@pytest.mark.parametrize("path", ["/v1/models/lung_unet", "/v1/models/lung_unet/versions/3"])
def test_status_is_as_tensorflow_serving_answers(served: Served, path: str) -> None:
    assert fetch(served, path) == (
        200,
        {
            "model_version_status": [
                {
                    "version": "3",
                    "state": "AVAILABLE",
                    "status": {"error_code": "OK", "error_message": ""},
                }
            ]
        },
    )


def test_metadata_holds_the_signatures(served: Served) -> None:
    status, document = fetch(served, "/v1/models/lung_unet/metadata")
    assert status == 200
    assert document["model_spec"] == {"name": "lung_unet", "signature_name": "", "version": "3"}
    signature = document["metadata"]["signature_def"]["signature_def"]["serving_default"]
    image = signature["inputs"]["image"]
    assert image["dtype"] == "DT_UINT8"
    assert [dim["size"] for dim in image["tensor_shape"]["dim"]] == ["-1", "-1", "-1", "1"]
    assert signature["method_name"] == "tensorflow/serving/predict"


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/v1/models/other", 404, "Could not find any versions of model other"),
        (
            "/v1/models/lung_unet/versions/9",
            404,
            "Could not find version 9 of model lung_unet",
        ),
        (
            "/v1/models/other/metadata",
            404,
            "Servable not found for request: Latest(other)",
        ),
        (
            "/v1/models/lung_unet/labels/canary/metadata",
            400,
            "Unrecognized servable version label: canary",
        ),
        (
            f"/v1/models/lung_unet/versions/{2**63}",
            400,
            f"Failed to convert version: {2**63} to numeric.",
        ),
        ("/v1/models", 400, "Missing model name in request."),
        ("/v1/nothing", 400, "Malformed request: GET /v1/nothing"),
    ],
)
def test_what_cannot_be_answered_is_an_error_in_json(
    served: Served, path: str, status: int, error: str
) -> None:
    assert fetch(served, path) == (status, {"error": error})


def test_prediction_in_rows_gives_rows(served: Served, gray_image: np.ndarray) -> None:
    body = json.dumps({"instances": [{"image": gray_image[..., np.newaxis].tolist()}] * 2})
    status, document = fetch(served, "/v1/models/lung_unet:predict", data=body.encode())
    assert status == 200
    rows = document["predictions"]
    assert [sorted(row) for row in rows] == [["predicted_mask", "probability"]] * 2
    mask = np.array(rows[1]["predicted_mask"])[..., 0]
    assert np.array_equal(mask, gray_image < LUNG_BELOW)
    probability = np.array(rows[0]["probability"], np.float32)[..., 0]
    expected = 1 / (1 + np.exp((gray_image.astype(np.float64) - LUNG_BELOW) / 16))
    np.testing.assert_allclose(probability, expected, atol=1e-6)


def test_prediction_in_columns_gives_columns(served: Served) -> None:
    body = json.dumps({"signature_name": "serving_default", "inputs": [[[[7]]], [[[200]]]]})
    path = "/v1/models/lung_unet/versions/3:predict"
    status, document = fetch(served, path, data=body.encode())
    assert status == 200
    assert document["outputs"]["predicted_mask"] == [[[[1]]], [[[0]]]]


def test_files_travel_as_base64(served: Served, gray_image: np.ndarray) -> None:
    file = io.BytesIO()
    Image.fromarray(gray_image).save(file, "PNG")
    item = {"b64": base64.b64encode(file.getvalue()).decode()}
    for key, content in (("instances", [item]), ("inputs", {"image_bytes": [item]})):
        body = json.dumps({"signature_name": "encoded", key: content})
        status, document = fetch(served, "/v1/models/lung_unet:predict", data=body.encode())
        assert status == 200
        (answer,) = document["predictions" if key == "instances" else "outputs"]
        mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["b64"]))))
        assert np.array_equal(mask > 0, gray_image < LUNG_BELOW)


def test_error_of_the_graph_is_an_error_in_json(served: Served) -> None:
    body = json.dumps({"signature_name": "encoded", "instances": ["no image"]})
    status, document = fetch(served, "/v1/models/lung_unet:predict", data=body.encode())
    assert status == 400
    assert "Unknown image file format" in document["error"]


def test_other_post_is_malformed(served: Served) -> None:
    assert fetch(served, "/v1/models/lung_unet", data=b"{}") == (
        400,
        {"error": "Malformed request: POST /v1/models/lung_unet"},
    )


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (StatusCode.CANCELLED, 499),
        (StatusCode.DEADLINE_EXCEEDED, 504),
        (StatusCode.RESOURCE_EXHAUSTED, 429),
        (StatusCode.OUT_OF_RANGE, 400),
        (StatusCode.INTERNAL, 500),
        (StatusCode.UNAVAILABLE, 503),
    ],
)
def test_error_of_a_run_has_the_status_of_its_code(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, code: StatusCode, status: int
) -> None:
    def fail(*arguments: Any) -> None:
        raise StatusError(code, "so it is")

    monkeypatch.setattr(rest.answers, "run", fail)
    url = f"http://127.0.0.1:{server.rest_api_port}"
    body = b'{"instances": [{"image": [[[0]]]}]}'
    path = "/v1/models/lung_unet:predict"
    assert fetch(Served(server.target, url), path, data=body) == (status, {"error": "so it is"})


def test_path_outside_of_the_api_is_told_where_models_are(server: EmbeddedServer) -> None:
    url = f"http://127.0.0.1:{server.rest_api_port}"
    error = "Not Found: /; expected /v1/models/MODEL"
    assert fetch(Served(server.target, url), "/") == (404, {"error": error})


def send(served: Served, *parts: bytes) -> bytes:
    """Sends bytes over one connection, and gives all that comes back until it is closed."""
    host, port = served.rest.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"".join(parts))
        connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").read()


PREDICT = b"POST /v1/models/lung_unet:predict HTTP/1.1\r\nHost: here\r\n"
ROW = b'{"inputs": [[[[7]]]]}'


def test_connection_stays_for_the_next_request(served: Served) -> None:
    length = f"Content-Length: {len(ROW)}\r\n\r\n".encode()
    answer = send(served, *[PREDICT, length, ROW] * 3)
    assert answer.count(b"HTTP/1.1 200 ") == answer.count(b'"predicted_mask": [[[[1]]]]') == 3


def test_body_may_come_in_chunks(served: Served) -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (ROW[:5], ROW[5:]))
    head = PREDICT + b"Transfer-Encoding: chunked\r\n\r\n"
    answer = send(served, head, chunks, b"0\r\n\r\n", head, b"0\r\n\r\n")
    assert b'"predicted_mask": [[[[1]]]]' in answer
    assert b"JSON Parse error: The document is empty" in answer


@pytest.mark.parametrize(
    "head",
    [
        b"Transfer-Encoding: chunked\r\n\r\nno number\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n80000001\r\n",
        b"Content-Length: 20 bytes\r\n\r\n",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: 9999999999999999999999\r\n\r\n",
    ],
)
def test_body_of_unknown_size_is_told_and_ends_the_connection(
    server: EmbeddedServer, head: bytes
) -> None:
    served = Served(server.target, f"http://127.0.0.1:{server.rest_api_port}")
    answer = send(served, PREDICT, head, ROW, PREDICT)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.count(b"HTTP/1.1") == answer.count(b"\r\nConnection: close\r\n") == 1
    assert b'{"error": "the size of the body cannot be read"}' in answer


@pytest.mark.parametrize(
    ("packed", "expected"),
    [
        (gzip.compress(ROW), b'"predicted_mask": [[[[1]]]]'),
        (gzip.compress(ROW)[:-9], b"JSON Parse error: The document is empty"),
        (b"no gzip", b"JSON Parse error: The document is empty"),
        (gzip.compress(bytes(101 * 2**20), 1), b"JSON Parse error: The document is empty"),
    ],
    ids=["whole", "cut short", "none", "bomb"],
)
def test_body_may_be_compressed(served: Served, packed: bytes, expected: bytes) -> None:
    head = f"Content-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    assert expected in send(served, PREDICT, head, packed)


def test_client_need_not_wait_to_send_a_large_body(served: Served) -> None:
    head = f"Expect: 100-continue\r\nContent-Length: {len(ROW)}\r\n\r\n".encode()
    assert send(served, PREDICT, head, ROW).startswith(b"HTTP/1.1 100 Continue\r\n")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_malformed(served: Served, method: str) -> None:
    answer = send(served, f"{method} /v1/models/lung_unet HTTP/1.1\r\nHost: here\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert f"Malformed request: {method} /v1/models/lung_unet".encode() in answer
