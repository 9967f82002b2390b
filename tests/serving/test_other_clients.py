"""A client that another project wrote must not see that this is not TensorFlow Serving."""

import json
import subprocess
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.config import ServeConfig
from serving.embedded.server import EmbeddedServer
from tests.serving.conftest import Served

# It always names a version: its default, 0, means the latest to OpenVINO's server only. In a
# process of its own: it brings copies of the messages that tensorflow-serving-api registers.
OVMSCLIENT = """
import json, sys
import numpy as np
import ovmsclient

grpc_address, rest_address = sys.argv[1:]
said = []
for client in (
    ovmsclient.make_grpc_client(grpc_address),
    ovmsclient.make_http_client(rest_address),
):
    image = np.array([[[[10], [200]]]], np.uint8)
    answer = client.predict({"image": image}, "lung_unet", 3)
    status = client.get_model_status("lung_unet", 3)
    metadata = client.get_model_metadata("lung_unet", 3)
    try:
        client.predict({"image": image}, "other", 3)
        error = ""
    except ovmsclient.ModelNotFoundError as raised:
        error = str(raised)
    # Over REST it knows the layout of OpenVINO's server only, and hands any other on as it is.
    served = metadata.get("metadata", {}).get("signature_def", {}).get("signature_def", {})
    inputs = metadata.get("inputs") or served["serving_default"]["inputs"]
    said.append({
        "mask": answer["predicted_mask"].ravel().tolist(),
        "state": status[3]["state"],
        "input": inputs["image"]["dtype"],
        "error": error,
    })
print(json.dumps(said))
"""


def test_ovmsclient_finds_what_it_expects(served: Served) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", OVMSCLIENT, served.grpc, served.rest.removeprefix("http://")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    for said in json.loads(ended.stdout):
        assert said["mask"] == [1, 0]
        assert said["state"] == "AVAILABLE"
        assert said["input"] == "DT_UINT8"
        assert "Servable not found for request: Specific(other, 3)" in said["error"]


def test_probe_is_answered_where_health_is_asked_for(server: EmbeddedServer) -> None:
    request = health_pb2.HealthCheckRequest()
    config = ServeConfig(
        model_base_path=server.models.served()[0].folder.parent,
        port=0,
        enable_grpc_healthcheck_service=True,
    )
    with EmbeddedServer(config) as healthy, grpc.insecure_channel(healthy.target) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
