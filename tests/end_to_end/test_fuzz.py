"""Thousands of damaged requests: each has a proper answer, and the server lives on as it was."""

import io
import random
import resource
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from serving.config import ServeConfig
from serving.embedded.server import EmbeddedServer
from serving.protos import predict_pb2, types_pb2
from trainer.export import ServedModel
from trainer.model import UNet

NUM_REQUESTS = 6000
METHOD = "/tensorflow.serving.PredictionService/Predict"
MAX_GROWTH_BYTES = 64 * 2**20
PROPER = {
    "OK",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "FAILED_PRECONDITION",
    "UNIMPLEMENTED",
    # What gRPC says of bytes that are no message, in every language.
    "INTERNAL",
}

Rng = random.Random
Request = Any


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    model = UNet(image_size=32, filters=2, depth=2)
    model.build((None, 32, 32, 1))
    folder = tmp_path_factory.mktemp("model")
    ServedModel(model).save(folder / "1")
    with EmbeddedServer(ServeConfig(model_base_path=folder, port=0)) as running:
        yield running


IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30)).astype(np.uint8)


def file_of(kind: str) -> bytes:
    content = io.BytesIO()
    Image.fromarray(IMAGE).save(content, kind)
    return content.getvalue()


FILES = {"PNG": file_of("PNG"), "BMP": file_of("BMP")}


def good_request(signature: str, kind: str = "PNG") -> Request:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "lung_unet"
    request.model_spec.signature_name = signature
    if signature == "encoded":
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([FILES[kind]]))
    elif signature == "scaled":
        scaled = IMAGE[np.newaxis, ..., np.newaxis] / np.float32(255)
        request.inputs["image"].CopyFrom(tf.make_tensor_proto(scaled))
    else:
        request.inputs["image"].CopyFrom(tf.make_tensor_proto(IMAGE[np.newaxis, ..., np.newaxis]))
    return request


def some_request(rng: Rng) -> Request:
    return good_request(
        rng.choice(["serving_default", "scaled", "encoded"]), rng.choice(list(FILES))
    )


def some_tensor(rng: Rng) -> tuple[Request, Any]:
    request = some_request(rng)
    (tensor,) = request.inputs.values()
    return request, tensor


# --- What can be wrong with a request: each takes a good one and gives its bytes. -----------------
def wrong_dtype(rng: Rng) -> bytes:
    request, tensor = some_tensor(rng)
    tensor.dtype = rng.choice([*types_pb2.DataType.values(), 77, -1])
    return request.SerializeToString()


def wrong_shape(rng: Rng) -> bytes:
    request, tensor = some_tensor(rng)
    sizes = [
        rng.choice([-1, 0, 1, 2, 3, 20, 30, 600, 2**31, 2**62]) for _ in range(rng.randint(0, 9))
    ]
    del tensor.tensor_shape.dim[:]
    for size in sizes:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_shape.unknown_rank = rng.random() < 0.1
    return request.SerializeToString()


def other_number_of_values(rng: Rng) -> bytes:
    request, tensor = some_tensor(rng)
    if tensor.tensor_content:
        tensor.tensor_content = tensor.tensor_content * rng.choice([0, 0, 2, 3])
        tensor.tensor_content += bytes(rng.randint(0, 9))
    else:
        del tensor.string_val[:]
        tensor.string_val.extend([FILES["PNG"]] * rng.choice([0, 2, 5]))
    return request.SerializeToString()


def values_in_other_fields(rng: Rng) -> bytes:
    request, tensor = some_tensor(rng)
    tensor.tensor_content = b""
    field = rng.choice(["int_val", "float_val", "double_val", "int64_val", "bool_val", "half_val"])
    getattr(tensor, field).extend([rng.choice([0, 1])] * rng.choice([1, 600, 601]))
    return request.SerializeToString()


def empty_tensor(rng: Rng) -> bytes:
    request, tensor = some_tensor(rng)
    tensor.Clear()
    if rng.random() < 0.5:
        tensor.dtype = types_pb2.DT_UINT8
    return request.SerializeToString()


def other_keys(rng: Rng) -> bytes:
    request, tensor = some_tensor(rng)
    names = ["", "image", "image_bytes", "Image", "x" * 1000, "probability", "\u80ba"]
    request.inputs[rng.choice(names)].CopyFrom(tensor)
    if rng.random() < 0.5:
        del request.inputs[rng.choice(list(request.inputs))]
    return request.SerializeToString()


def other_outputs(rng: Rng) -> bytes:
    request = some_request(rng)
    names = ["", "probability", "predicted_mask", "predicted_mask_bytes", "logits", "Assert:0"]
    request.output_filter.extend(rng.choices(names, k=rng.randint(1, 4)))
    return request.SerializeToString()


def other_model(rng: Rng) -> bytes:
    request = some_request(rng)
    spec = request.model_spec
    spec.name = rng.choice(["", "lung_unet", "lung_unet/1", "../model", "x" * 5000])
    spec.signature_name = rng.choice(["", "encoded", "nothing", "__saved_model_init_op"])
    if rng.random() < 0.5:
        spec.version.value = rng.choice([-1, 0, 1, 2, 2**62])
    else:
        spec.version_label = rng.choice(["", "stable"])
    return request.SerializeToString()


def damaged_file(rng: Rng) -> bytes:
    content = bytearray(FILES[rng.choice(list(FILES))])
    for _ in range(rng.choice([1, 1, 3, 20])):
        content[rng.randrange(len(content))] = rng.randrange(256)
    if rng.random() < 0.3:
        del content[rng.randrange(len(content)) :]
    return with_files([bytes(content)])


def damaged_header(rng: Rng) -> bytes:
    kind = rng.choice(list(FILES))
    content = bytearray(FILES[kind])
    for _ in range(rng.choice([1, 2])):
        content[rng.randrange(8, 33) if kind == "PNG" else rng.randrange(2, 54)] = rng.choice(
            [0, 1, 2, 4, 8, 16, 24, 32, 127, 128, 255]
        )
    if kind == "PNG":
        content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    return with_files([bytes(content)])


def bomb(rng: Rng) -> bytes:
    sides = rng.choice([1, 5000, 20_000, 60_000]), rng.choice([1, 5000, 20_000, 60_000])
    rows = zlib.compress(bytes(rng.choice([0, 1000, 2_000_000])), 9)
    header = struct.pack(">IIBBBBB", *sides, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    return with_files([png] * rng.choice([1, 3]))


def other_files(rng: Rng) -> bytes:
    contents = [b"", b"BM", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\x00" * 100, rng.randbytes(500)]
    return with_files(rng.choices([*contents, *FILES.values()], k=rng.randint(1, 4)))


def with_files(contents: list[bytes]) -> bytes:
    request = good_request("encoded")
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(contents))
    return request.SerializeToString()


def gray_values_beyond(rng: Rng) -> bytes:
    request = good_request("scaled")
    value = rng.choice([np.nan, np.inf, -np.inf, -1e-9, 1.0001, 255, 3e38])
    images = np.full((1, 20, 30, 1), value, np.float32)
    request.inputs["image"].CopyFrom(tf.make_tensor_proto(images))
    return request.SerializeToString()


def unknown_fields(rng: Rng) -> bytes:
    number, length = rng.randint(20, 500), rng.randint(0, 100)
    tag = number << 3 | 2
    extra = bytes([tag & 0x7F | 0x80, tag >> 7, length]) + rng.randbytes(length)
    return some_request(rng).SerializeToString() + extra


def flipped_bytes(rng: Rng) -> bytes:
    content = bytearray(some_request(rng).SerializeToString())
    for _ in range(rng.choice([1, 2, 10])):
        content[rng.randrange(min(len(content), rng.choice([120, 10**6])))] = rng.randrange(256)
    return bytes(content)


def cut_off(rng: Rng) -> bytes:
    content = some_request(rng).SerializeToString()
    return content[: rng.randrange(len(content))]


def noise(rng: Rng) -> bytes:
    return rng.randbytes(rng.choice([0, 1, 10, 1000]))


def large(rng: Rng) -> bytes:
    request, tensor = some_tensor(rng)
    tensor.tensor_content = bytes(rng.choice([2**20, 2**22]))
    return request.SerializeToString()


DAMAGES: list[Callable[[Rng], bytes]] = [
    wrong_dtype,
    wrong_shape,
    other_number_of_values,
    values_in_other_fields,
    empty_tensor,
    other_keys,
    other_outputs,
    other_model,
    damaged_file,
    damaged_header,
    bomb,
    other_files,
    gray_values_beyond,
    unknown_fields,
    flipped_bytes,
    cut_off,
    noise,
    large,
]
# --------------------------------------------------------------------------------------------------


def status_of(call: Any, content: bytes) -> str:
    try:
        call(content, timeout=60)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def test_each_damaged_request_has_a_proper_status(server: EmbeddedServer) -> None:
    rng = random.Random(0)
    good = [good_request(name).SerializeToString() for name in ("serving_default", "encoded")]
    statuses: dict[str, Counter[str]] = {damage.__name__: Counter() for damage in DAMAGES}
    before = 0
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.target, options) as channel:
        call = channel.unary_unary(METHOD)
        for number in range(NUM_REQUESTS):
            damage = DAMAGES[number % len(DAMAGES)]
            content = damage(rng)
            status = status_of(call, content)
            assert status in PROPER, f"{damage.__name__}, request {number}: {status}"
            statuses[damage.__name__][status] += 1
            if number % 100 == 0:
                assert [status_of(call, each) for each in good] == ["OK", "OK"]
            if number == NUM_REQUESTS // 4:  # pools of threads and memory have their size
                before = resident_bytes()
        assert [status_of(call, each) for each in good] == ["OK", "OK"]
    growth = resident_bytes() - before
    assert growth < MAX_GROWTH_BYTES, f"memory grew by {growth / 2**20:.0f} MiB"
    # What is always wrong is never answered with a mask.
    for name in ("empty_tensor", "gray_values_beyond", "noise"):
        assert statuses[name]["OK"] == 0, f"{name}: {statuses[name]}"
    assert statuses["unknown_fields"]["OK"] == statuses["unknown_fields"].total()


def test_message_above_the_limit_is_refused(server: EmbeddedServer) -> None:
    # 2 GiB is the limit of a message; one above that of the receiver is as good.
    request = good_request("serving_default")
    request.output_filter.append("probability")
    with grpc.insecure_channel(
        server.target, [("grpc.max_receive_message_length", 1000)]
    ) as channel:
        assert status_of(channel.unary_unary(METHOD), request.SerializeToString()) == (
            "RESOURCE_EXHAUSTED"
        )
