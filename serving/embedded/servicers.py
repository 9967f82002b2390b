"""TensorFlow Serving's gRPC services, over ``answers``."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from serving.embedded import answers, examples
from serving.embedded.models import ModelStore
from serving.protos import model_service_pb2_grpc, prediction_service_pb2_grpc
from serving.status import StatusCode, StatusError

logger = logging.getLogger(__name__)


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """``tensorflow.serving.PredictionService``; each method answers the message of its name."""

    def __init__(self, models: ModelStore) -> None:
        """Takes what is served."""
        self._models, self._metrics = models, models.metrics

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Runs a model."""
        with _aborting(context), self._metrics.request("Predict", "GRPC", request.model_spec.name):
            timeout_ms = _timeout_ms(context.time_remaining())
            return answers.predict(self._models, request, timeout_ms=timeout_ms)

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Tells the signatures of a model."""
        with _aborting(context):
            return answers.metadata(self._models, request)

    def Classify(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Refuses."""
        with _aborting(context), self._metrics.request("Classify", "GRPC", request.model_spec.name):
            examples.refuse("classify", self._models, request)

    def Regress(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Refuses."""
        with _aborting(context), self._metrics.request("Regress", "GRPC", request.model_spec.name):
            examples.refuse("regress", self._models, request)

    def MultiInference(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Refuses."""
        with _aborting(context):
            examples.refuse_multi_inference(self._models, request)


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """``tensorflow.serving.ModelService``."""

    def __init__(self, models: ModelStore, *, may_reload: bool) -> None:
        """Takes what is served.

        Args:
            models: what is served.
            may_reload: whether a client may have other models served: whoever reaches the port
                could load any path then.
        """
        self._models, self._may_reload = models, may_reload

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Tells the versions of a model."""
        with _aborting(context):
            return self._models.status(answers.spec_of(request))

    def HandleReloadConfigRequest(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Has other models served."""
        with _aborting(context):
            if not self._may_reload:
                raise StatusError(
                    StatusCode.UNIMPLEMENTED,
                    "HandleReloadConfigRequest is off; --allow_reload_config switches it on",
                )
            return answers.reload(self._models, request)


@contextmanager
def _aborting(context: grpc.ServicerContext) -> Iterator[None]:
    """Ends the call with the status of a ``StatusError``."""
    try:
        yield
    except StatusError as error:
        logger.debug("answered with %s: %s", error.code.name, error.message)
        context.abort(error.code, error.message)


def _timeout_ms(time_remaining_s: float | None) -> int:
    """Gives the caller's deadline as TensorFlow takes it; 0 is no limit."""
    if time_remaining_s is None:
        return 0
    if time_remaining_s <= 0:
        raise StatusError(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
    # Without a deadline gRPC reports a time of centuries, more than the field holds.
    return min(math.ceil(time_remaining_s * 1000), 2**31 - 1)
