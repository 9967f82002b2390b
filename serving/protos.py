"""TensorFlow Serving's generated messages, without TensorFlow.

``tensorflow_serving.apis`` imports ``tensorflow.core.framework.tensor_pb2``, and Python runs
``tensorflow/__init__.py`` before it looks into that folder: seconds and half a gigabyte for a few
message classes, in a client that never runs a model. The messages themselves need only protobuf.

So while they are imported, a bare package stands in for ``tensorflow``: it has TensorFlow's folder
as its path and runs nothing. It is taken away again at once, so a later ``import tensorflow`` finds
no ``tensorflow`` and runs the real one, which then picks up the message modules that are already
loaded: each message is registered once, and both sides share its class. Where TensorFlow was there
before, nothing is replaced and the import is the ordinary one.
"""

import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager

_TENSORFLOW = "tensorflow"


@contextmanager
def _bare_tensorflow() -> Iterator[None]:
    if _TENSORFLOW in sys.modules:
        yield
        return
    spec = importlib.util.find_spec(_TENSORFLOW)
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(
            "the package tensorflow is not installed, and it holds the messages of its serving "
            "protocol; install this project's `serving` extra"
        )
    stand_in = types.ModuleType(_TENSORFLOW)
    stand_in.__path__ = list(spec.submodule_search_locations)
    sys.modules[_TENSORFLOW] = stand_in
    try:
        yield
    finally:
        del sys.modules[_TENSORFLOW]


with _bare_tensorflow():
    from tensorflow.core.framework import tensor_pb2, types_pb2
    from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
    from tensorflow_serving.apis import (
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        inference_pb2,
        model_management_pb2,
        model_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_log_pb2,
        prediction_service_pb2_grpc,
        regression_pb2,
    )
    from tensorflow_serving.config import model_server_config_pb2

    # Loaded for the generated stubs (`*_pb2_grpc`), which import them: with these in place the
    # stubs no longer reach for TensorFlow either.
    importlib.import_module("tensorflow_serving.apis.prediction_service_pb2")
    importlib.import_module("tensorflow_serving.apis.model_service_pb2")

__all__ = [
    "classification_pb2",
    "config_pb2",
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "inference_pb2",
    "meta_graph_pb2",
    "model_management_pb2",
    "model_pb2",
    "model_server_config_pb2",
    "model_service_pb2_grpc",
    "predict_pb2",
    "prediction_log_pb2",
    "prediction_service_pb2_grpc",
    "regression_pb2",
    "tensor_pb2",
    "types_pb2",
]
