"""An exported U-Net behind the embedded server: what it refuses, and in which words."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.message import Message

from serving.client import SegmentationClient
from serving.config import ServeConfig
from serving.embedded.server import EmbeddedServer
from serving.errors import RefusedInputError, StartError
from serving.protos import get_model_metadata_pb2, predict_pb2, prediction_log_pb2
from trainer.export import ServedModel
from trainer.model import UNet
from trainer.signature import SIGNATURES
from trainer.warm_up_requests import PATH, write_warm_up_requests

SHAPE = "expected the shape (batch, height, width, 1), one image at least, each of 1 to 16777216 "
SERVICE = "/tensorflow.serving.PredictionService/"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = UNet(image_size=32, filters=2, depth=2)
    model.build((None, 32, 32, 1))
    folder = tmp_path_factory.mktemp("model")
    ServedModel(model).save(folder / "1")
    write_warm_up_requests(folder / "1", [1, 3])
    return folder


@pytest.fixture(scope="module")
def server(model_dir: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(ServeConfig(model_base_path=model_dir, port=0)) as running:
        yield running


def call(server: EmbeddedServer, method: str, request: Message, answer: Message) -> Any:
    with grpc.insecure_channel(server.target) as channel:
        answer.ParseFromString(
            channel.unary_unary(f"{SERVICE}{method}")(request.SerializeToString(), timeout=30)
        )
    return answer


def predict(server: EmbeddedServer, signature: str, key: str, value: Any) -> Any:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "lung_unet"
    request.model_spec.signature_name = signature
    request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return call(server, "Predict", request, predict_pb2.PredictResponse())


@pytest.mark.parametrize(
    ("signature", "key", "value", "message"),
    [
        ("serving_default", "image", np.zeros((1, 4, 5, 3), np.uint8), f"{SHAPE}.*[1 4 5 3]"),
        ("serving_default", "image", np.zeros((1, 4, 5), np.uint8), f"{SHAPE}.*[1 4 5]"),
        ("serving_default", "image", np.zeros((4, 5), np.uint8), f"{SHAPE}.*[4 5]"),
        ("serving_default", "image", np.uint8(4), f"{SHAPE}.*[]"),
        ("serving_default", "image", np.zeros((0, 4, 5, 1), np.uint8), f"{SHAPE}.*[0 4 5 1]"),
        ("serving_default", "image", np.zeros((1, 0, 5, 1), np.uint8), f"{SHAPE}.*[1 0 5 1]"),
        ("serving_default", "image", np.zeros((1, 4, 5, 0), np.uint8), f"{SHAPE}.*[1 4 5 0]"),
        (
            "serving_default",
            "image",
            np.zeros((1, 4097, 4097, 1), np.uint8),
            f"{SHAPE}.*[1 4097 4097 1]",
        ),
        ("scaled", "image", np.zeros((1, 4, 5, 3), np.float32), f"{SHAPE}.*[1 4 5 3]"),
        ("scaled", "image", np.full((1, 4, 5, 1), 255, np.float32), "gray values from 0 to 1.*255"),
        ("scaled", "image", np.full((1, 4, 5, 1), np.nan, np.float32), "from 0 to 1.*nan"),
        ("encoded", "image_bytes", np.zeros((0,), object), "the shape (batch), one file at least"),
        ("encoded", "image_bytes", [[b"a"]], "the shape (batch), one file.*[1 1]"),
        ("encoded", "image_bytes", [b"a"], "expected a PNG or BMP file, received another"),
    ],
)
def test_what_is_no_slice_is_refused_in_words(
    server: EmbeddedServer, signature: str, key: str, value: Any, message: str
) -> None:
    pattern = ".*".join(_escaped(part) for part in message.split(".*"))
    with pytest.raises(grpc.RpcError, match=pattern) as caught:
        predict(server, signature, key, value)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]


def _escaped(text: str) -> str:
    return re.escape(text)


def test_client_tells_a_refusal_without_brackets_and_names_of_nodes(
    server: EmbeddedServer,
) -> None:
    with SegmentationClient(server.target) as client, pytest.raises(RefusedInputError) as caught:
        client.predict_encoded(b"GIF89a")
    assert str(caught.value) == (
        f"{server.target} refuses it: expected a PNG or BMP file, received another; "
        "--signature serving_default leaves the decoding to the client"
    )


def test_every_gray_value_has_the_same_answer_through_uint8_and_float32(
    server: EmbeddedServer,
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 50, 70, 1)).astype(np.uint8)
    image.flat[:256] = np.arange(256)
    whole = predict(server, "serving_default", "image", image)
    scaled = predict(server, "scaled", "image", image / np.float32(255))
    for key in ("predicted_mask", "probability"):
        np.testing.assert_array_equal(
            tf.make_ndarray(whole.outputs[key]), tf.make_ndarray(scaled.outputs[key])
        )


def test_metadata_tells_what_a_client_can_rely_on(server: EmbeddedServer) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "lung_unet"
    answer = call(
        server, "GetModelMetadata", request, get_model_metadata_pb2.GetModelMetadataResponse()
    )
    signatures = get_model_metadata_pb2.SignatureDefMap()
    answer.metadata["signature_def"].Unpack(signatures)
    told = {
        name: (_sides(each.inputs), _sides(each.outputs))
        for name, each in signatures.signature_def.items()
        if not name.startswith("__")
    }
    assert told == {
        each.name: (_contract(each.inputs), _contract(each.outputs)) for each in SIGNATURES
    }


def _sides(tensors: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {
        key: (tf.dtypes.as_dtype(each.dtype).name, tuple(dim.size for dim in each.tensor_shape.dim))
        for key, each in tensors.items()
    }


def _contract(tensors: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {
        each.key: (each.dtype, tuple(-1 if size is None else size for size in each.shape))
        for each in tensors
    }


def test_each_signature_is_warmed_up_with_each_batch_size(model_dir: Path) -> None:
    requests = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        for record in tf.data.TFRecordDataset(str(model_dir / "1" / PATH))
    ]
    warmed = [
        (
            request.model_spec.signature_name,
            next(iter(request.inputs.values())).tensor_shape.dim[0].size,
        )
        for request in requests
        if not request.output_filter
    ]
    assert warmed == [(each.name, size) for each in SIGNATURES for size in (1, 3)]


def test_version_whose_warm_up_fails_is_not_served(model_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(model_dir / "1", tmp_path / "1")
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = "serving_default"
    request.inputs["image"].CopyFrom(tf.make_tensor_proto(np.zeros((1, 4, 5, 3), np.uint8)))
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(request)
    with tf.io.TFRecordWriter(str(tmp_path / "1" / PATH)) as writer:
        writer.write(log.SerializeToString())
    with (
        pytest.raises(StartError, match="warmup record 0 of .*expected the shape"),
        EmbeddedServer(ServeConfig(model_base_path=tmp_path, port=0)),
    ):
        pass


def test_no_picture_travels_with_the_model(model_dir: Path) -> None:
    for record in tf.data.TFRecordDataset(str(model_dir / "1" / PATH)):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        if request.model_spec.signature_name == "serving_default":
            images = tf.make_ndarray(request.inputs["image"])
            np.testing.assert_array_equal(np.diff(images[..., 0].astype(int), axis=2), 4)
