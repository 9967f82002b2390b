"""A client for the served model: a slice in, its mask out."""

import json
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
import numpy.typing as npt

from serving import codec
from serving.config import DEFAULT_TIMEOUT_S, check_target
from serving.errors import (
    CallError,
    DeadlineExceededError,
    MessageTooLargeError,
    ModelNotFoundError,
    RefusedInputError,
    ServerUnavailableError,
    SignatureError,
    UnexpectedAnswerError,
)
from trainer.signature import (
    ARRAY_SIGNATURE,
    DEFAULT_MODEL_NAME,
    ENCODED_SIGNATURE,
    PREDICTED_MASK,
    PROBABILITY,
)
from trainer.test_time import NO_FLIPS, check_flips, flipped, mean_of_flips

MAX_MESSAGE_BYTES = 256 * 2**20
"""gRPC's own limit of 4 MiB is below one answer of 1024x1024 probabilities."""

_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_SERVICE_CONFIG = {
    # Spreads the calls over all addresses of the target and goes around a server that died.
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "tensorflow.serving.PredictionService"}],
            # A prediction changes nothing on the server, so it may be asked for again.
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
_WRONG_INPUTS = (
    "input size does not match signature",
    "input tensor alias not found in signature",
    "output tensor alias not found in signature",
    "Expects arg[",
)
"""How TensorFlow Serving begins when the signature takes something else, whatever the slice."""


class SegmentationClient:
    """Calls one model on one target. May be shared between threads.

    A call that finds no server is repeated a few times within its deadline. The target is dialed
    directly, never through an HTTP proxy of the environment.

    Example::

        with SegmentationClient("localhost:8500") as client:
            mask = client.predict(image)

    Attributes:
        target: HOST:PORT that is called.
        model_name: model that is asked for.
        answered_version: version of the model that gave the last answer; None before the first.
    """

    def __init__(
        self,
        target: str,
        *,
        model_name: str = DEFAULT_MODEL_NAME,
        model_version: int | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        """Prepares the channel; the first call connects.

        Args:
            target: HOST:PORT of a TensorFlow Serving gRPC endpoint.
            model_name: as the server serves it.
            model_version: None asks for the latest.
            timeout_s: deadline of each call in seconds, retries included.
            max_message_bytes: limit on a request and on an answer.

        Raises:
            ValueError: if the target is not HOST:PORT.
        """
        check_target(target)
        self.target = target
        self.model_name = model_name
        self.answered_version: int | None = None
        self._model_version = model_version
        self._timeout_s = timeout_s
        self._channel = grpc.insecure_channel(
            target,
            options=[
                ("grpc.max_send_message_length", max_message_bytes),
                ("grpc.max_receive_message_length", max_message_bytes),
                # gRPC silently does not retry a request above this, by default 256 KiB: just
                # below a slice of 512x512 with its header.
                ("grpc.per_rpc_retry_buffer_size", max_message_bytes),
                ("grpc.enable_http_proxy", 0),
                ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
            ],
        )
        # The answer stays bytes: `codec` reads it faster than the generated class does.
        self._predict = self._channel.unary_unary(
            _PREDICT, request_serializer=lambda request: request.SerializeToString()
        )

    def predict(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Segments one slice.

        Args:
            image: [height, width] uint8 gray values.

        Returns:
            [height, width] uint8; 1 is lung, 0 is background.

        Raises:
            ValueError: if the image has another type or shape.
            CallError: one of its kinds, if there is no mask.
        """
        answer = self._call_with_pixels(image[np.newaxis], PREDICTED_MASK.key)
        return codec.mask_of(answer, height=image.shape[0], width=image.shape[1])

    def probability(
        self, image: npt.NDArray[np.uint8], *, flips: str = NO_FLIPS
    ) -> npt.NDArray[np.float32]:
        """Gives the lung probability of each pixel of one slice, before the threshold.

        Args:
            image: [height, width] uint8 gray values.
            flips: set of flips that travel with it, in one request, to be averaged: a name in
                ``trainer.test_time.FLIP_SETS``.

        Returns:
            [height, width] float32 in [0, 1].

        Raises:
            ValueError: if the image has another type or shape, or there is no such set.
            CallError: one of its kinds, if there is no answer.
        """
        check_flips(flips)
        images = flipped(image, flips)
        answer = self._call_with_pixels(images, PROBABILITY.key)
        batch, height, width = images.shape
        return mean_of_flips(
            codec.probabilities_of(answer, batch=batch, height=height, width=width), flips
        )

    def predict_encoded(self, data: bytes) -> bytes:
        """Segments one slice as a file; the server decodes it and encodes the mask.

        Args:
            data: a whole PNG or BMP file.

        Returns:
            A PNG file of the slice's size; 255 is lung, 0 is background.

        Raises:
            ValueError: if there are no bytes.
            CallError: one of its kinds, if there is no mask.
        """
        request = codec.encoded_request(
            data, model_name=self.model_name, model_version=self._model_version
        )
        return codec.mask_file_of(self._call(request, ENCODED_SIGNATURE.name))

    def close(self) -> None:
        """Closes the channel; calls that are under way end with an error."""
        self._channel.close()

    def __enter__(self) -> Self:
        """Gives the client itself."""
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the channel."""
        self.close()

    def _call_with_pixels(self, images: npt.NDArray[np.uint8], output_key: str) -> codec.Answer:
        request = codec.array_request(
            images,
            model_name=self.model_name,
            model_version=self._model_version,
            output_key=output_key,
        )
        return self._call(request, ARRAY_SIGNATURE.name)

    def _call(self, request: Any, signature_name: str) -> codec.Answer:
        try:
            response = self._predict(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise self._as_call_error(error, signature_name) from error
        answer = codec.read_answer(response)
        self.answered_version = answer.model_version
        return answer

    def _as_call_error(self, error: grpc.RpcError, signature_name: str) -> CallError:
        """Gives the exception for a status code, with the mend in its message."""
        code, details = error.code(), _for_people(error.details() or "")
        model = self.model_name
        if self._model_version is not None:
            model += f" version {self._model_version}"
        kind: type[CallError] = UnexpectedAnswerError
        message = f"{self.target} failed with {code.name}: {details}; see the server's log"
        if code is grpc.StatusCode.UNAVAILABLE:
            kind = ServerUnavailableError
            message = (
                f"no server answers at {self.target} ({_last_part(details)}); start one with "
                "`make serve MODEL=DIR`, or give the gRPC address of yours with --target HOST:PORT"
            )
        elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
            kind = DeadlineExceededError
            message = (
                f"{self.target} gave no answer within {self._timeout_s:g} s; "
                "give it longer with --timeout-s, or check its load"
            )
        elif code is grpc.StatusCode.NOT_FOUND:
            kind = ModelNotFoundError
            message = (
                f"{self.target} serves no model {model} ({details}); "
                "check --model-name and --model-version against what the server printed"
            )
        elif code is grpc.StatusCode.FAILED_PRECONDITION or details.startswith(_WRONG_INPUTS):
            kind = SignatureError
            message = (
                f"model {model} at {self.target} has no signature {signature_name} of this "
                f"project ({details}); serve a model that `python -m trainer export` wrote"
            )
        elif code is grpc.StatusCode.INVALID_ARGUMENT:
            kind = RefusedInputError
            message = f"{self.target} refuses it: {details}"
            if signature_name == ENCODED_SIGNATURE.name:
                message += "; --signature serving_default leaves the decoding to the client"
        elif code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            kind = MessageTooLargeError
            message = f"a message limit was passed: {details}"
        elif code is grpc.StatusCode.UNIMPLEMENTED:
            message = (
                f"{self.target} answers gRPC but is no TensorFlow Serving ({details}); "
                "check --target"
            )
        return kind(message, code=code.name, details=error.details() or "")


def _for_people(details: str) -> str:
    """Gives one line, without the names of graph nodes that TensorFlow puts at the end."""
    return " ".join(details.partition("[[{{")[0].split())


def _last_part(details: str) -> str:
    """Gives the cause at the end of gRPC's chain of reports: ``Connection refused (111)``."""
    return details.rsplit(": ", 1)[-1].rstrip("]") if details else "gRPC gives no reason"
