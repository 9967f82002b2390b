"""Each test runs in a process of its own: what is imported first is the question."""

import subprocess
import sys

import pytest

NO_TENSORFLOW = """
import sys
from serving import client, codec, predict, protos
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
assert "tensorflow" not in sys.modules
assert not [name for name in sys.modules if name.startswith("tensorflow.python")]
"""
MESSAGES_FIRST = """
from serving.protos import predict_pb2, tensor_pb2
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2 as same
assert int(tf.constant(1) + 1) == 2
assert same is tensor_pb2
request = predict_pb2.PredictRequest()
request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.5]))
assert request.inputs["x"].float_val[0] == 1.5
assert tf.io.parse_tensor(request.inputs["x"].SerializeToString(), tf.float32).numpy() == 1.5
"""
TENSORFLOW_FIRST = """
import sys
import tensorflow as tf
from serving.protos import predict_pb2
assert sys.modules["tensorflow"] is tf
assert int(tf.constant(1) + 1) == 2
predict_pb2.PredictRequest().inputs["x"].CopyFrom(tf.make_tensor_proto([1.5]))
"""


@pytest.mark.parametrize(
    "script",
    [NO_TENSORFLOW, MESSAGES_FIRST, TENSORFLOW_FIRST],
    ids=["without tensorflow", "tensorflow afterwards", "tensorflow before"],
)
def test_messages_and_tensorflow_get_on_in_any_order(script: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_missing_tensorflow_package_is_told() -> None:
    script = (
        "import importlib.util\n"
        "importlib.util.find_spec = lambda name, package=None: None\n"
        "import serving.protos\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert "install this project's `serving` extra" in ended.stderr
