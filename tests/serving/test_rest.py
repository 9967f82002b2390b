import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from serving.embedded.server import EmbeddedServer

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(server: EmbeddedServer, path: str, *, data: bytes | None = None) -> tuple[int, Any]:
    url = f"http://127.0.0.1:{server.rest_api_port}{path}"
    try:
        with OPENER.open(url, data=data, timeout=10) as response:
            assert response.headers["Content-Type"] == "application/json"
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


@pytest.mark.parametrize("path", ["/v1/models/lung_unet", "/v1/models/lung_unet/versions/3"])
def test_status_is_as_tensorflow_serving_answers(server: EmbeddedServer, path: str) -> None:
    assert fetch(server, path) == (
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


def test_metadata_holds_the_signatures(server: EmbeddedServer) -> None:
    status, document = fetch(server, "/v1/models/lung_unet/metadata")
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
        ("/", 404, "Not Found: /; expected /v1/models/MODEL"),
    ],
)
def test_what_cannot_be_answered_is_an_error_in_json(
    server: EmbeddedServer, path: str, status: int, error: str
) -> None:
    assert fetch(server, path) == (status, {"error": error})


def test_prediction_points_to_grpc(server: EmbeddedServer) -> None:
    status, document = fetch(server, "/v1/models/lung_unet:predict", data=b"x" * 100_000)
    assert status == 501
    assert "call Predict over gRPC" in document["error"]


def test_other_post_is_malformed(server: EmbeddedServer) -> None:
    assert fetch(server, "/v1/models/lung_unet", data=b"{}") == (
        400,
        {"error": "Malformed request: POST /v1/models/lung_unet"},
    )
