import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.async_client import AsyncSegmentationClient
from serving.client import SegmentationClient
from serving.embedded.server import EmbeddedServer
from serving.endpoint import Endpoint
from serving.errors import DeadlineExceededError, ModelNotFoundError, ServerUnavailableError


def test_answers_are_those_of_the_other_client(
    server: EmbeddedServer, gray_image: np.ndarray, write_slice: Callable[..., Path]
) -> None:
    data = write_slice("a.png", gray_image).read_bytes()

    async def ask() -> tuple[np.ndarray, np.ndarray, bytes, int | None]:
        async with AsyncSegmentationClient(server.target) as client:
            mask, probability, file = await asyncio.gather(
                client.predict(gray_image),
                client.probability(gray_image, flips="horizontal"),
                client.predict_encoded(data),
            )
            return mask, probability, file, client.answered_version

    mask, probability, file, version = asyncio.run(ask())
    with SegmentationClient(server.target) as client:
        np.testing.assert_array_equal(mask, client.predict(gray_image))
        expected = client.probability(gray_image, flips="horizontal")
        np.testing.assert_array_equal(probability, expected)
        assert file == client.predict_encoded(data)
    assert version == 3


def test_many_slices_are_under_way_at_the_same_time(server: EmbeddedServer) -> None:
    images = [np.full((20 + n, 30), 200, np.uint8) for n in range(40)]

    async def ask() -> list[np.ndarray]:
        async with AsyncSegmentationClient(server.target) as client:
            return await asyncio.gather(*(client.predict(image) for image in images))

    assert [mask.shape for mask in asyncio.run(ask())] == [image.shape for image in images]


def test_masks_come_in_order_and_few_slices_are_under_way(server: EmbeddedServer) -> None:
    images = [np.full((20 + n, 30), 200, np.uint8) for n in range(20)]
    taken: list[int] = []
    ahead: list[int] = []

    def read() -> Iterator[np.ndarray]:
        for index, image in enumerate(images):
            taken.append(index)
            yield image

    async def ask() -> list[np.ndarray]:
        masks: list[np.ndarray] = []
        async with AsyncSegmentationClient(server.target) as client:
            async for mask in client.predict_each(read(), window=3):
                masks.append(mask)
                ahead.append(len(taken) - len(masks))
        return masks

    assert [mask.shape for mask in asyncio.run(ask())] == [image.shape for image in images]
    assert max(ahead) == 2


def test_first_slice_without_a_mask_ends_the_others(server: EmbeddedServer) -> None:
    good, bad = np.zeros((20, 30), np.uint8), np.zeros((20, 30), np.float32)

    async def ask() -> None:
        async with AsyncSegmentationClient(server.target) as client:
            masks = client.predict_each([good, bad, good, good], window=3)
            assert (await anext(masks)).all()
            with pytest.raises(ValueError, match="received float32"):
                await anext(masks)
            with pytest.raises(ValueError, match="window is 0; expected 1 or more"):
                await anext(client.predict_each([good], window=0))

    asyncio.run(ask())


@pytest.mark.parametrize("kind", [ModelNotFoundError, ServerUnavailableError])
def test_errors_are_those_of_the_other_client(
    server: EmbeddedServer, closed_port: int, gray_image: np.ndarray, kind: type[Exception]
) -> None:
    endpoint = (
        Endpoint(server.target, model_version=8)
        if kind is ModelNotFoundError
        else Endpoint(f"127.0.0.1:{closed_port}")
    )

    async def ask() -> None:
        async with AsyncSegmentationClient(endpoint) as client:
            await client.predict(gray_image)

    with pytest.raises(kind) as caught:
        asyncio.run(ask())
    with SegmentationClient(endpoint) as client, pytest.raises(kind) as other:
        client.predict(gray_image)
    assert str(caught.value) == str(other.value)


def test_passed_deadline_is_told(slow_server: Any, gray_image: np.ndarray) -> None:
    async def ask() -> None:
        async with AsyncSegmentationClient(Endpoint(slow_server.target, timeout_s=0.2)) as client:
            await client.predict(gray_image)

    with pytest.raises(DeadlineExceededError, match=r"gave no answer within 0.2 s"):
        asyncio.run(ask())
