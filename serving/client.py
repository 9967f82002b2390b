"""A client for the served model: a slice in, its mask out."""

import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
import numpy.typing as npt

from serving import codec
from serving.endpoint import PREDICT, Endpoint
from serving.pipeline import in_order
from trainer.signature import (
    ARRAY_SIGNATURE,
    ENCODED_SIGNATURE,
    PREDICTED_MASK,
    PROBABILITY,
    PROBABILITY_THRESHOLD,
)
from trainer.test_time import NO_FLIPS, check_flips, flipped, mean_of_flips


class SegmentationClient:
    """Calls one model on one target. May be shared between threads.

    Example::

        with SegmentationClient("localhost:8500") as client:
            mask = client.predict(image)

        endpoint = Endpoint("lungs.example:443", tls=Tls(), model_label="stable")
        with SegmentationClient(endpoint) as client:
            for mask in client.predict_each(images):
                ...

    Attributes:
        endpoint: what is called, and how.
    """

    def __init__(self, endpoint: Endpoint | str) -> None:
        """Prepares the channel; the first call connects.

        Args:
            endpoint: what to call, and how; HOST:PORT alone is enough for the latest version of
                the project's own model name.

        Raises:
            ValueError: if the target is not HOST:PORT.
            InputError: if a file of TLS cannot be read.
        """
        self.endpoint = Endpoint(endpoint) if isinstance(endpoint, str) else endpoint
        self._answered = threading.local()
        target, options = self.endpoint.target, self.endpoint.channel_options
        credentials = self.endpoint.credentials()
        self._channel = (
            grpc.secure_channel(target, credentials, options)
            if credentials
            else grpc.insecure_channel(target, options)
        )
        # The answer stays bytes: `codec` reads it faster than the generated class does.
        self._predict = self._channel.unary_unary(
            PREDICT, request_serializer=lambda request: request.SerializeToString()
        )

    @property
    def answered_version(self) -> int | None:
        """Version of the model that gave this thread its last answer; None before the first."""
        return getattr(self._answered, "version", None)

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
        request = self.endpoint.encoded_request(data)
        return codec.mask_file_of(self._call(request, ENCODED_SIGNATURE.name))

    def predict_each(
        self, images: Iterable[npt.NDArray[np.uint8]], *, window: int = 4
    ) -> Iterator[npt.NDArray[np.uint8]]:
        """Segments slices of any sizes, several at the same time; the order stays.

        Args:
            images: each [height, width] uint8 gray values; taken as fast as answers come.
            window: slices under way at the same time, so many are held in memory.

        Yields:
            The mask of each, as ``predict`` gives it.

        Raises:
            ValueError: if an image has another type or shape.
            CallError: one of its kinds, at the first slice without a mask.
        """
        return in_order(self.predict, images, window=window)

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
        request = self.endpoint.array_request(images, output_key)
        return self._call(request, ARRAY_SIGNATURE.name)

    def _call(self, request: Any, signature_name: str) -> codec.Answer:
        try:
            response = self._predict(
                request,
                timeout=self.endpoint.timeout_s,
                wait_for_ready=self.endpoint.wait_for_ready,
            )
        except grpc.RpcError as error:
            raise self.endpoint.call_error(error, signature_name) from error
        answer = codec.read_answer(response)
        self._answered.version = answer.model_version
        return answer


def mask_of_pixels(
    image: npt.NDArray[np.uint8], *, client: SegmentationClient, flips: str
) -> npt.NDArray[np.uint8]:
    """Segments one slice, and averages its flips if there are any.

    Args:
        image: [height, width] uint8 gray values.
        client: of the server.
        flips: a name in ``trainer.test_time.FLIP_SETS``.

    Returns:
        [height, width] uint8; 1 is lung, 0 is background.

    Raises:
        ValueError: if the image has another type or shape, or there is no such set.
        CallError: one of its kinds, if there is no mask.
    """
    if flips == NO_FLIPS:
        return client.predict(image)
    probability = client.probability(image, flips=flips)
    return (probability >= PROBABILITY_THRESHOLD).astype(np.uint8)
