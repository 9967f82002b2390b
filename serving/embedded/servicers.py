"""TensorFlow Serving's gRPC services, over ``answers``."""

import logging
import math
from collections.abc import Callable
from typing import Any

import grpc

from serving.embedded import answers, examples
from serving.embedded.metrics import Metrics
from serving.embedded.models import ModelStore
from serving.protos import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)
from serving.status import StatusCode, StatusError

logger = logging.getLogger(__name__)


def prediction_service(models: ModelStore, metrics: Metrics) -> grpc.GenericRpcHandler:
    """Gives ``tensorflow.serving.PredictionService``."""

    def predict(request: Any, context: grpc.ServicerContext) -> bytes:
        with metrics.request("Predict", "GRPC", request.model_spec.name):
            timeout_ms = _timeout_ms(context.time_remaining())
            return answers.predict(models, request, timeout_ms=timeout_ms)

    def metadata(request: Any, context: grpc.ServicerContext) -> bytes:
        return bytes(answers.metadata(models, request).SerializeToString())

    def classify(request: Any, context: grpc.ServicerContext) -> bytes:
        with metrics.request("Classify", "GRPC", request.model_spec.name):
            examples.refuse("classify", models, request)

    def regress(request: Any, context: grpc.ServicerContext) -> bytes:
        with metrics.request("Regress", "GRPC", request.model_spec.name):
            examples.refuse("regress", models, request)

    def multi_inference(request: Any, context: grpc.ServicerContext) -> bytes:
        examples.refuse_multi_inference(models, request)

    return grpc.method_handlers_generic_handler(
        "tensorflow.serving.PredictionService",
        {
            "Predict": _handler(predict, predict_pb2.PredictRequest),
            "GetModelMetadata": _handler(metadata, get_model_metadata_pb2.GetModelMetadataRequest),
            "Classify": _handler(classify, classification_pb2.ClassificationRequest),
            "Regress": _handler(regress, regression_pb2.RegressionRequest),
            "MultiInference": _handler(multi_inference, inference_pb2.MultiInferenceRequest),
        },
    )


def model_service(models: ModelStore, *, may_reload: bool) -> grpc.GenericRpcHandler:
    """Gives ``tensorflow.serving.ModelService``.

    Args:
        models: what is served.
        may_reload: whether a client may have other models served: whoever reaches the port could
            load any path then.
    """

    def status(request: Any, context: grpc.ServicerContext) -> bytes:
        return bytes(answers.status(models, request).SerializeToString())

    def reload(request: Any, context: grpc.ServicerContext) -> bytes:
        if not may_reload:
            raise StatusError(
                StatusCode.UNIMPLEMENTED,
                "HandleReloadConfigRequest is off; --allow_reload_config switches it on",
            )
        return bytes(answers.reload(models, request).SerializeToString())

    return grpc.method_handlers_generic_handler(
        "tensorflow.serving.ModelService",
        {
            "GetModelStatus": _handler(status, get_model_status_pb2.GetModelStatusRequest),
            "HandleReloadConfigRequest": _handler(reload, model_management_pb2.ReloadConfigRequest),
        },
    )


def _handler(
    answer: Callable[[Any, grpc.ServicerContext], bytes], request_class: Any
) -> grpc.RpcMethodHandler:
    def answer_or_abort(request: Any, context: grpc.ServicerContext) -> bytes:
        try:
            return answer(request, context)
        except StatusError as error:
            logger.debug("answered with %s: %s", error.code.name, error.message)
            context.abort(error.code, error.message)
            raise  # Not reached: abort raises.

    # The answers are bytes already, so there is no response serializer.
    return grpc.unary_unary_rpc_method_handler(
        answer_or_abort, request_deserializer=request_class.FromString
    )


def _timeout_ms(time_remaining_s: float | None) -> int:
    """Gives the caller's deadline as TensorFlow takes it; 0 is no limit."""
    if time_remaining_s is None:
        return 0
    if time_remaining_s <= 0:
        raise StatusError(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
    # Without a deadline gRPC reports a time of centuries, more than the field holds.
    return min(math.ceil(time_remaining_s * 1000), 2**31 - 1)
