"""Metrics as Prometheus reads them, under TensorFlow Serving's names."""

from pathlib import Path

import numpy as np
import pytest

from serving.client import SegmentationClient
from serving.config import ServeConfig
from serving.embedded.metrics import Metrics
from serving.embedded.server import EmbeddedServer
from serving.endpoint import Endpoint
from serving.errors import CallError
from serving.status import StatusCode, StatusError
from tests.serving.conftest import free_port
from tests.serving.test_rest import OPENER

CONFIG = "prometheus_config { enable: true PATH }"


def test_requests_are_counted_by_what_came_of_them() -> None:
    metrics = Metrics()
    for code in (StatusCode.OK, StatusCode.OK, StatusCode.NOT_FOUND):
        try:
            with metrics.request("Predict", "GRPC", 'a"b\\\n'):
                if code is not StatusCode.OK:
                    raise StatusError(code, "no")
        except StatusError:
            assert code == StatusCode.NOT_FOUND
    lines = metrics.page().splitlines()
    name = ":tensorflow:serving:request"
    assert f"# TYPE {name}_count counter" in lines
    assert f'{name}_count{{model_name="a\\"b\\\\\\n",status="NOT_FOUND"}} 1' in lines
    assert f'{name}_count{{model_name="a\\"b\\\\\\n",status="OK"}} 2' in lines
    labels = 'model_name="a\\"b\\\\\\n",API="Predict",entrypoint="GRPC"'
    assert f'{name}_latency_bucket{{{labels},le="+Inf"}} 2' in lines
    assert f"{name}_latency_count{{{labels}}} 2" in lines


def test_buckets_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, now_s = Metrics(), iter([0.0, 5e-6, 0.0, 15e-6, 0.0, 1e9])
    monkeypatch.setattr("serving.embedded.metrics.time.perf_counter", lambda: next(now_s))
    for _ in range(3):
        with metrics.request("predict", "REST", "m"):
            pass
    counts = [
        int(line.rsplit(" ", 1)[1]) for line in metrics.page().splitlines() if "_bucket{" in line
    ]
    assert counts == [1, *[2] * 32, 3]


@pytest.mark.parametrize(
    ("path", "expected"), [("", "/monitoring/prometheus/metrics"), ('path: "/m"', "/m")]
)
def test_metrics_are_told_at_the_rest_port(
    model_base_path: Path, tmp_path: Path, path: str, expected: str
) -> None:
    file = tmp_path / "monitoring.config"
    file.write_text(CONFIG.replace("PATH", path))
    config = ServeConfig(
        model_base_path=model_base_path,
        port=0,
        rest_api_port=free_port(),
        monitoring_config_file=file,
    )
    with EmbeddedServer(config) as server, SegmentationClient(server.target) as client:
        client.predict(np.zeros((2, 2), np.uint8))
        with (
            SegmentationClient(Endpoint(server.target, model_name="other")) as other,
            pytest.raises(CallError),
        ):
            other.predict(np.zeros((2, 2), np.uint8))
        with OPENER.open(f"http://127.0.0.1:{server.rest_api_port}{expected}") as response:
            assert response.headers["Content-Type"] == "text/plain"
            page = response.read().decode()
    assert ':tensorflow:serving:request_count{model_name="lung_unet",status="OK"} 1' in page
    assert ':tensorflow:serving:request_count{model_name="other",status="NOT_FOUND"} 1' in page
    folder = model_base_path / "3"
    loads = ":tensorflow:cc:saved_model:load_attempt_count"
    assert f'{loads}{{model_path="{folder}",status="success"}} 1' in page


def test_metrics_need_the_rest_port() -> None:
    with pytest.raises(ValueError, match="--monitoring_config_file needs --rest_api_port"):
        ServeConfig(model_base_path=Path("m"), monitoring_config_file=Path("c"))
