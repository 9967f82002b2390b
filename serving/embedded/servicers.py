"""TensorFlow Serving's gRPC services, over ``answers``."""

import logging
import math
from collections.abc import Callable
from typing import Any

import grpc

from serving.embedded import answers, codes
from serving.embedded.answers import RequestError, ServedModel
from serving.protos import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

logger = logging.getLogger(__name__)

_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}


def prediction_service(model: ServedModel) -> grpc.GenericRpcHandler:
    """Gives ``tensorflow.serving.PredictionService`` with Predict and GetModelMetadata."""

    def predict(request: Any, context: grpc.ServicerContext) -> bytes:
        timeout_ms = _timeout_ms(context.time_remaining())
        return answers.predict(model, request, timeout_ms=timeout_ms)

    def metadata(request: Any, context: grpc.ServicerContext) -> bytes:
        return bytes(answers.metadata(model, request).SerializeToString())

    return grpc.method_handlers_generic_handler(
        "tensorflow.serving.PredictionService",
        {
            "Predict": _handler(predict, predict_pb2.PredictRequest),
            "GetModelMetadata": _handler(metadata, get_model_metadata_pb2.GetModelMetadataRequest),
        },
    )


def model_service(model: ServedModel) -> grpc.GenericRpcHandler:
    """Gives ``tensorflow.serving.ModelService`` with GetModelStatus.

    ``HandleReloadConfigRequest`` is left out: whoever reaches the port could load any path.
    """

    def status(request: Any, context: grpc.ServicerContext) -> bytes:
        return bytes(answers.status(model, request).SerializeToString())

    return grpc.method_handlers_generic_handler(
        "tensorflow.serving.ModelService",
        {"GetModelStatus": _handler(status, get_model_status_pb2.GetModelStatusRequest)},
    )


def _handler(
    answer: Callable[[Any, grpc.ServicerContext], bytes], request_class: Any
) -> grpc.RpcMethodHandler:
    def answer_or_abort(request: Any, context: grpc.ServicerContext) -> bytes:
        try:
            return answer(request, context)
        except RequestError as error:
            logger.debug("answered with code %d: %s", error.code, error.message)
            context.abort(_STATUS_CODES[error.code], error.message)
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
        raise RequestError(codes.DEADLINE_EXCEEDED, "Deadline Exceeded")
    # Without a deadline gRPC reports a time of centuries, more than the field holds.
    return min(math.ceil(time_remaining_s * 1000), 2**31 - 1)
