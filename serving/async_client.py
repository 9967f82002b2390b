"""The client for programs that run on asyncio."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Any, Self

import grpc.aio
import numpy as np
import numpy.typing as npt

from serving import codec
from serving.endpoint import PREDICT, Endpoint
from trainer.signature import ARRAY_SIGNATURE, ENCODED_SIGNATURE, PREDICTED_MASK, PROBABILITY
from trainer.test_time import NO_FLIPS, check_flips, flipped, mean_of_flips


class AsyncSegmentationClient:
    """Calls one model on one target; each method does what that of ``SegmentationClient`` does.

    Example::

        async with AsyncSegmentationClient("localhost:8500") as client:
            masks = await asyncio.gather(*(client.predict(image) for image in images))

    Attributes:
        endpoint: what is called, and how.
        answered_version: version of the model that gave the last answer; None before the first.
    """

    def __init__(self, endpoint: Endpoint | str) -> None:
        """Prepares the channel, in a running event loop; the first call connects.

        Args:
            endpoint: what to call, and how; HOST:PORT alone is enough.

        Raises:
            ValueError: if the target is not HOST:PORT.
            InputError: if a file of TLS cannot be read.
        """
        self.endpoint = Endpoint(endpoint) if isinstance(endpoint, str) else endpoint
        self.answered_version: int | None = None
        target, options = self.endpoint.target, self.endpoint.channel_options
        credentials = self.endpoint.credentials()
        self._channel = (
            grpc.aio.secure_channel(target, credentials, options)
            if credentials
            else grpc.aio.insecure_channel(target, options)
        )
        self._predict = self._channel.unary_unary(
            PREDICT, request_serializer=lambda request: request.SerializeToString()
        )

    async def predict(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Segments one slice.

        Args:
            image: [height, width] uint8 gray values.

        Returns:
            [height, width] uint8; 1 is lung, 0 is background.

        Raises:
            ValueError: if the image has another type or shape.
            CallError: one of its kinds, if there is no mask.
        """
        request = self.endpoint.array_request(image[np.newaxis], PREDICTED_MASK.key)
        answer = await self._call(request, ARRAY_SIGNATURE.name)
        return codec.mask_of(answer, height=image.shape[0], width=image.shape[1])

    async def probability(
        self, image: npt.NDArray[np.uint8], *, flips: str = NO_FLIPS
    ) -> npt.NDArray[np.float32]:
        """Gives the lung probability of each pixel of one slice, before the threshold.

        Args:
            image: [height, width] uint8 gray values.
            flips: set of flips that travel with it, in one request, to be averaged.

        Returns:
            [height, width] float32 in [0, 1].

        Raises:
            ValueError: if the image has another type or shape, or there is no such set.
            CallError: one of its kinds, if there is no answer.
        """
        check_flips(flips)
        images = flipped(image, flips)
        request = self.endpoint.array_request(images, PROBABILITY.key)
        answer = await self._call(request, ARRAY_SIGNATURE.name)
        batch, height, width = images.shape
        return mean_of_flips(
            codec.probabilities_of(answer, batch=batch, height=height, width=width), flips
        )

    async def predict_encoded(self, data: bytes) -> bytes:
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
        return codec.mask_file_of(await self._call(request, ENCODED_SIGNATURE.name))

    async def predict_each(
        self, images: Iterable[npt.NDArray[np.uint8]], *, window: int = 4
    ) -> AsyncIterator[npt.NDArray[np.uint8]]:
        """Segments slices of any sizes, several at the same time; the order stays.

        Args:
            images: each [height, width] uint8 gray values; taken as fast as answers come.
            window: slices under way at the same time, so many are held in memory.

        Yields:
            The mask of each, as ``predict`` gives it.

        Raises:
            ValueError: if an image has another type or shape, or the window is below 1.
            CallError: one of its kinds, at the first slice without a mask.
        """
        if window < 1:
            raise ValueError(f"window is {window}; expected 1 or more")
        under_way: deque[asyncio.Task[npt.NDArray[np.uint8]]] = deque()
        try:
            for image in images:
                under_way.append(asyncio.create_task(self.predict(image)))
                if len(under_way) == window:
                    yield await under_way.popleft()
            while under_way:
                yield await under_way.popleft()
        finally:
            for task in under_way:
                task.cancel()

    async def close(self) -> None:
        """Closes the channel; calls that are under way are cancelled, as tasks are."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        """Gives the client itself."""
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the channel."""
        await self.close()

    async def _call(self, request: Any, signature_name: str) -> codec.Answer:
        try:
            response = await self._predict(
                request,
                timeout=self.endpoint.timeout_s,
                wait_for_ready=self.endpoint.wait_for_ready,
            )
        except grpc.RpcError as error:
            raise self.endpoint.call_error(error, signature_name) from error
        answer = codec.read_answer(response)
        self.answered_version = answer.model_version
        return answer
