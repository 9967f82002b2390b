import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.wrappers_pb2 import Int64Value

from serving.client import SegmentationClient
from serving.config import ServeConfig
from serving.embedded.server import EmbeddedServer
from serving.endpoint import Endpoint
from serving.errors import (
    CallError,
    DeadlineExceededError,
    MessageTooLargeError,
    ModelNotFoundError,
    RefusedInputError,
    ServerUnavailableError,
    ServingError,
    SignatureError,
    UnexpectedAnswerError,
)
from serving.protos import model_pb2
from serving.tensors import write_typed
from serving.wire import length_delimited

StartFake = Callable[..., Any]
LARGE_IMAGE = np.zeros((512, 512), np.uint8)


def abort(code: grpc.StatusCode, details: str) -> Callable[..., bytes]:
    def answer(request: Any, context: grpc.ServicerContext) -> bytes:
        context.abort(code, details)
        raise NotImplementedError

    return answer


def mask_response(mask: np.ndarray) -> bytes:
    tensor = write_typed(mask[np.newaxis, :, :, np.newaxis])
    entry = length_delimited(1, b"predicted_mask") + length_delimited(2, tensor)
    return length_delimited(1, entry)


def test_mask_has_the_size_of_the_slice(server: EmbeddedServer, gray_image: np.ndarray) -> None:
    with SegmentationClient(server.target) as client:
        assert client.answered_version is None
        mask = client.predict(gray_image)
        assert client.answered_version == 3
    assert mask.dtype == np.uint8
    assert mask.shape == (20, 30)
    assert mask.flags.writeable
    assert mask[:, :10].all()
    assert not mask[:, 10:].any()


def test_probability_is_what_the_mask_was_cut_from(
    server: EmbeddedServer, gray_image: np.ndarray
) -> None:
    with SegmentationClient(server.target) as client:
        probability = client.probability(gray_image)
        mask = client.predict(gray_image)
    assert probability.dtype == np.float32
    assert 0 <= probability.min() <= probability.max() <= 1
    np.testing.assert_array_equal(probability > 0.5, mask > 0)


def test_slice_and_its_flips_travel_in_one_request_and_their_mean_comes_back(
    fake_server: StartFake,
) -> None:
    def answer(request: Any, context: grpc.ServicerContext) -> bytes:
        sent = request.inputs["image"]
        shape = [dim.size for dim in sent.tensor_shape.dim]
        pixels = np.frombuffer(sent.tensor_content, np.uint8).reshape(shape)
        probability = pixels.astype(np.float32) / 8
        probability[:, 0, 0] += 1  # what the model says of a place, whatever is there
        entry = length_delimited(1, b"probability") + length_delimited(2, write_typed(probability))
        return length_delimited(1, entry)

    server = fake_server(answer)
    image = np.array([[0, 1, 2], [3, 4, 5]], np.uint8)
    with SegmentationClient(server.target) as client:
        of_two = client.probability(image, flips="horizontal")
        of_four = client.probability(image, flips="all")
    assert (8 * of_two).tolist() == [[4, 1, 6], [3, 4, 5]]
    assert (8 * of_four).tolist() == [[2, 1, 4], [5, 4, 7]]
    assert len(server.requests) == 2


def test_unknown_set_of_flips_is_refused_before_a_call(closed_port: int) -> None:
    with (
        SegmentationClient(f"localhost:{closed_port}") as client,
        pytest.raises(ValueError, match="--flips is 'up'; expected one of none, horizontal, all"),
    ):
        client.probability(LARGE_IMAGE, flips="up")


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_file_and_pixels_give_the_same_mask(
    server: EmbeddedServer, gray_image: np.ndarray, write_slice: Callable[..., Any], suffix: str
) -> None:
    from preprocessing.images.reading import decode_slice

    data = write_slice(f"a{suffix}", gray_image).read_bytes()
    with SegmentationClient(server.target) as client:
        mask_file = client.predict_encoded(data)
        mask = client.predict(gray_image)
    np.testing.assert_array_equal(decode_slice(mask_file, source="answer"), mask * 255)


def test_answer_above_four_mebibytes_is_received(server: EmbeddedServer) -> None:
    with SegmentationClient(server.target) as client:
        assert client.probability(np.zeros((1500, 1500), np.uint8)).shape == (1500, 1500)


def test_nobody_at_the_target_is_told(closed_port: int) -> None:
    target = f"localhost:{closed_port}"
    with (
        SegmentationClient(target) as client,
        pytest.raises(ServerUnavailableError) as caught,
    ):
        client.predict(LARGE_IMAGE)
    assert str(caught.value).startswith(f"no server answers at {target} (Connection refused")
    assert "--target HOST:PORT" in str(caught.value)
    assert caught.value.code == "UNAVAILABLE"


def test_unknown_model_and_version_are_told(server: EmbeddedServer) -> None:
    with (
        SegmentationClient(Endpoint(server.target, model_name="other")) as client,
        pytest.raises(ModelNotFoundError, match="serves no model other .Servable not found"),
    ):
        client.predict(LARGE_IMAGE)
    with (
        SegmentationClient(Endpoint(server.target, model_version=8)) as client,
        pytest.raises(ModelNotFoundError, match="no model lung_unet version 8"),
    ):
        client.predict(LARGE_IMAGE)


def test_passed_deadline_is_told(slow_server: Any) -> None:
    with (
        SegmentationClient(Endpoint(slow_server.target, timeout_s=0.2)) as client,
        pytest.raises(DeadlineExceededError, match=r"no answer within 0.2 s; give it longer with"),
    ):
        client.predict(LARGE_IMAGE)


def test_file_that_the_model_cannot_decode_is_refused_in_one_line(server: EmbeddedServer) -> None:
    with (
        SegmentationClient(server.target) as client,
        pytest.raises(RefusedInputError, match="refuses it") as caught,
    ):
        client.predict_encoded(b"no image at all")
    assert "\n" not in str(caught.value)
    assert "[[{{" not in str(caught.value)
    assert "--signature serving_default" in str(caught.value)


@pytest.mark.parametrize(
    ("code", "details", "kind", "message"),
    [
        ("FAILED_PRECONDITION", "Serving signature key", SignatureError, "no signature serving_d"),
        ("INVALID_ARGUMENT", "Expects arg[0] to be float", SignatureError, "of this project"),
        ("INVALID_ARGUMENT", "bad pixels", RefusedInputError, "refuses it: bad pixels"),
        ("RESOURCE_EXHAUSTED", "larger than max", MessageTooLargeError, "message limit"),
        (
            "RESOURCE_EXHAUSTED",
            "OOM when allocating tensor with shape[64]",
            UnexpectedAnswerError,
            "failed with RESOURCE_EXHAUSTED: OOM when allocating tensor.*; see the server's log",
        ),
        (
            "UNAVAILABLE",
            "The batch scheduling queue to which this task was submitted is full",
            UnexpectedAnswerError,
            "has too many slices waiting .* give a smaller --window",
        ),
        (
            "FAILED_PRECONDITION",
            "Tensors with name 'image:0' from different tasks have different shapes",
            UnexpectedAnswerError,
            "batches slices of different sizes, which cannot be .* start it without --enable_batch",
        ),
        ("INTERNAL", "boom", UnexpectedAnswerError, "failed with INTERNAL: boom; see the server"),
    ],
)
def test_status_codes_become_exceptions(
    fake_server: StartFake, code: str, details: str, kind: type[CallError], message: str
) -> None:
    fake = fake_server(abort(grpc.StatusCode[code], details))
    with SegmentationClient(fake.target) as client, pytest.raises(kind, match=message) as caught:
        client.predict(LARGE_IMAGE)
    assert isinstance(caught.value, ServingError)
    assert (caught.value.code, caught.value.details) == (code, details)
    assert len(fake.requests) == (5 if code == "UNAVAILABLE" else 1)


def test_another_grpc_service_is_told() -> None:
    from concurrent.futures import ThreadPoolExecutor

    other = grpc.server(ThreadPoolExecutor(1))
    port = other.add_insecure_port("127.0.0.1:0")
    other.start()
    with (
        SegmentationClient(f"127.0.0.1:{port}") as client,
        pytest.raises(UnexpectedAnswerError, match="is no TensorFlow Serving"),
    ):
        client.predict(LARGE_IMAGE)
    other.stop(0).wait()


def test_rest_port_instead_of_grpc_port_is_told(server: EmbeddedServer) -> None:
    with (
        SegmentationClient(Endpoint(f"127.0.0.1:{server.rest_api_port}", timeout_s=5)) as client,
        pytest.raises(CallError, match=str(server.rest_api_port)),
    ):
        client.predict(LARGE_IMAGE)


def test_large_request_is_repeated_when_the_server_is_unavailable(fake_server: StartFake) -> None:
    def answer(request: Any, context: grpc.ServicerContext) -> bytes:
        if len(fake.requests) < 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
        return mask_response(np.ones((512, 512), np.uint8))

    fake = fake_server(answer)
    with SegmentationClient(fake.target) as client:
        assert client.predict(LARGE_IMAGE).all()
    assert len(fake.requests) == 3


def test_calls_go_to_all_servers_and_around_one_that_has_died(fake_server: StartFake) -> None:
    def answer(request: Any, context: grpc.ServicerContext) -> bytes:
        return mask_response(np.ones((512, 512), np.uint8))

    one, other = fake_server(answer), fake_server(answer)
    with SegmentationClient(f"ipv4:{one.target},{other.target}") as client:
        for _ in range(20):
            client.predict(LARGE_IMAGE)
        assert one.requests
        assert other.requests
        one.stop()
        asked_before = len(one.requests)
        for _ in range(20):
            assert client.predict(LARGE_IMAGE).all()
    assert len(one.requests) == asked_before


def test_mask_of_another_size_is_refused(fake_server: StartFake) -> None:
    fake = fake_server(lambda request, context: mask_response(np.ones((4, 5), np.uint8)))
    with (
        SegmentationClient(fake.target) as client,
        pytest.raises(UnexpectedAnswerError, match=r"expected uint8 of shape \[1, 512, 512, 1\]"),
    ):
        client.predict(LARGE_IMAGE)


def test_label_asks_for_the_version_that_has_it(model_base_path: Path, tmp_path: Path) -> None:
    models = tmp_path / "models.config"
    models.write_text(
        f'model_config_list {{ config {{ name: "lung_unet" base_path: "{model_base_path}" '
        'model_platform: "tensorflow" version_labels { key: "stable" value: 3 } } }'
    )
    config = ServeConfig(
        model_config_file=models, port=0, allow_version_labels_for_unavailable_models=True
    )
    with EmbeddedServer(config) as server:
        with SegmentationClient(Endpoint(server.target, model_label="stable")) as client:
            client.predict(LARGE_IMAGE)
            assert client.answered_version == 3
        with (
            SegmentationClient(Endpoint(server.target, model_label="canary")) as client,
            pytest.raises(
                ModelNotFoundError, match="with a version labeled canary .* --model-label"
            ),
        ):
            client.predict(LARGE_IMAGE)


def test_version_and_label_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="--model-version is 1 and --model-label 'a'; give one"):
        Endpoint("localhost:1", model_version=1, model_label="a")


def test_client_waits_for_a_server_that_is_not_there_yet(
    model_base_path: Path, closed_port: int
) -> None:
    endpoint = Endpoint(f"127.0.0.1:{closed_port}", wait_for_ready=True, timeout_s=60)
    with SegmentationClient(endpoint) as client, ThreadPoolExecutor(1) as pool:
        mask = pool.submit(client.predict, LARGE_IMAGE)
        time.sleep(1)
        assert not mask.done()
        config = ServeConfig(model_base_path=model_base_path, port=closed_port)
        with EmbeddedServer(config):
            assert mask.result(60).shape == LARGE_IMAGE.shape


def test_server_that_never_comes_is_not_waited_for_beyond_the_deadline(closed_port: int) -> None:
    endpoint = Endpoint(f"127.0.0.1:{closed_port}", wait_for_ready=True, timeout_s=0.5)
    with (
        SegmentationClient(endpoint) as client,
        pytest.raises(
            DeadlineExceededError, match="with --wait-for-ready, that it is there at all"
        ),
    ):
        client.predict(LARGE_IMAGE)


def test_slices_of_any_sizes_are_segmented_in_order(server: EmbeddedServer) -> None:
    images = [np.full((20 + n, 30), 200, np.uint8) for n in range(9)]
    with SegmentationClient(server.target) as client:
        shapes = [mask.shape for mask in client.predict_each(iter(images), window=4)]
    assert shapes == [image.shape for image in images]


def test_each_thread_knows_the_version_of_its_own_answer(fake_server: StartFake) -> None:
    def answer(request: Any, context: grpc.ServicerContext) -> bytes:
        version = request.inputs["image"].tensor_shape.dim[1].size
        spec = model_pb2.ModelSpec(name="m", version=Int64Value(value=version))
        image = np.zeros((version, 5), np.uint8)
        return mask_response(image) + length_delimited(2, spec.SerializeToString())

    together = threading.Barrier(4, timeout=20)
    with SegmentationClient(fake_server(answer).target) as client:

        def version_of(height: int) -> int | None:
            client.predict(np.zeros((height, 5), np.uint8))
            together.wait()
            return client.answered_version

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(version_of, range(1, 5))) == [1, 2, 3, 4]
        assert client.answered_version is None
