"""Slices and masks <-> the messages of TensorFlow Serving; no network.

A request's pixels travel as ``tensor_content``, which is the array's own bytes. An answer is read
from the bytes of the message: TensorFlow Serving gives each pixel as a number of its own
(``int_val``, ``float_val``), which the generated classes hand out one by one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from serving import tensors, wire
from serving.errors import UnexpectedAnswerError
from serving.protos import model_pb2, predict_pb2, tensor_pb2, types_pb2
from trainer.signature import (
    ARRAY_SIGNATURE,
    ENCODED_SIGNATURE,
    IMAGE,
    IMAGE_BYTES,
    PREDICTED_MASK,
    PREDICTED_MASK_BYTES,
    PROBABILITY,
    Signature,
)

_OUTPUTS_FIELD = 1
_MODEL_SPEC_FIELD = 2
_KEY_FIELD = 1
_VALUE_FIELD = 2


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A ``PredictResponse`` taken apart."""

    model_version: int
    """Version of the model that answered; 0 if the server does not say."""

    outputs: Mapping[str, tensors.Array]
    """Arrays by output key."""


def array_request(
    images: npt.NDArray[np.uint8],
    *,
    model_name: str,
    model_version: int | None = None,
    model_label: str | None = None,
    output_key: str,
) -> Any:
    """Gives the ``PredictRequest`` for the pixels of slices of one size.

    Args:
        images: [batch, height, width] gray values, 0 to 255.
        model_name: as in ``ModelSpec``.
        model_version: None and no label asks for the latest.
        model_label: asks for the version that the server gives this label.
        output_key: the one output to send back.

    Raises:
        ValueError: if the images are not uint8 of three dimensions with a pixel at least.
    """
    if images.dtype != np.uint8 or images.ndim != 3 or images.size == 0:
        raise ValueError(
            f"received {images.dtype} of shape {list(images.shape)}; expected uint8 gray values of "
            "shape [batch, height, width]"
        )
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_UINT8, tensor_content=images.tobytes())
    # [batch, height, width] -> [batch, height, width, 1]
    for size in (*images.shape, 1):
        tensor.tensor_shape.dim.add(size=size)
    request = _request(ARRAY_SIGNATURE, model_name, model_version, model_label)
    request.inputs[IMAGE.key].CopyFrom(tensor)
    request.output_filter.append(output_key)
    return request


def encoded_request(
    data: bytes,
    *,
    model_name: str,
    model_version: int | None = None,
    model_label: str | None = None,
) -> Any:
    """Gives the ``PredictRequest`` for the bytes of one PNG or BMP file.

    Args:
        data: the whole file.
        model_name: as in ``ModelSpec``.
        model_version: None and no label asks for the latest.
        model_label: asks for the version that the server gives this label.

    Raises:
        ValueError: if there are no bytes.
    """
    if not data:
        raise ValueError("there are no bytes to send; expected a whole PNG or BMP file")
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[data])
    tensor.tensor_shape.dim.add(size=1)
    request = _request(ENCODED_SIGNATURE, model_name, model_version, model_label)
    request.inputs[IMAGE_BYTES.key].CopyFrom(tensor)
    request.output_filter.append(PREDICTED_MASK_BYTES.key)
    return request


def read_answer(response: bytes) -> Answer:
    """Takes a serialized ``PredictResponse`` apart.

    Raises:
        UnexpectedAnswerError: if the bytes are no such message.
    """
    outputs: dict[str, tensors.Array] = {}
    spec = model_pb2.ModelSpec()
    try:
        for field in wire.read_fields(response):
            if field.number == _OUTPUTS_FIELD:
                entry = {part.number: part.payload for part in wire.read_fields(field.payload)}
                key = bytes(entry.get(_KEY_FIELD, b"")).decode()
                outputs[key] = tensors.read(entry.get(_VALUE_FIELD, b""))
            elif field.number == _MODEL_SPEC_FIELD:
                spec.MergeFromString(bytes(field.payload))
    except (ValueError, DecodeError) as error:
        raise UnexpectedAnswerError(f"the answer cannot be read: {error}") from error
    return Answer(model_version=spec.version.value, outputs=outputs)


def mask_of(answer: Answer, *, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Gives the mask of one slice.

    Returns:
        [height, width] uint8; 1 is lung, 0 is background.

    Raises:
        UnexpectedAnswerError: if the answer holds no mask of that size.
    """
    mask = _pixels(answer, PREDICTED_MASK.key, np.dtype(np.uint8), (1, height, width))[0]
    if mask.max(initial=0) > 1:
        raise UnexpectedAnswerError(
            f"the answer's {PREDICTED_MASK.key} holds {mask.max()}; expected 0 and 1 only"
        )
    return mask.copy()  # of its own, so that it may be written to


def probabilities_of(
    answer: Answer, *, batch: int, height: int, width: int
) -> npt.NDArray[np.float32]:
    """Gives the lung probability of each pixel of slices of one size.

    Returns:
        [batch, height, width] float32 in [0, 1].

    Raises:
        UnexpectedAnswerError: if the answer holds no probabilities of that size.
    """
    return _pixels(answer, PROBABILITY.key, np.dtype(np.float32), (batch, height, width))


def mask_file_of(answer: Answer) -> bytes:
    """Gives the PNG file of one mask; 255 is lung, 0 is background.

    Raises:
        UnexpectedAnswerError: if the answer holds no such file.
    """
    files = _output(answer, PREDICTED_MASK_BYTES.key)
    if files.dtype != object or files.shape != (1,):
        raise UnexpectedAnswerError(
            f"the answer's {PREDICTED_MASK_BYTES.key} is {files.dtype} of shape "
            f"{list(files.shape)}; expected one PNG file"
        )
    return bytes(files[0])


def _request(
    signature: Signature, model_name: str, model_version: int | None, model_label: str | None
) -> Any:
    """Gives a ``PredictRequest`` without inputs; without version and label, for the latest."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model_name
    request.model_spec.signature_name = signature.name
    if model_version is not None:
        request.model_spec.version.value = model_version
    elif model_label is not None:
        request.model_spec.version_label = model_label
    return request


def _output(answer: Answer, key: str) -> tensors.Array:
    if key not in answer.outputs:
        raise UnexpectedAnswerError(
            f"the answer holds {sorted(answer.outputs)}; expected {key!r}; is another kind of "
            "model served under this name?"
        )
    return answer.outputs[key]


def _pixels(
    answer: Answer, key: str, dtype: np.dtype[Any], shape: tuple[int, int, int]
) -> npt.NDArray[Any]:
    array = _output(answer, key)
    if array.dtype != dtype or array.shape != (*shape, 1):
        raise UnexpectedAnswerError(
            f"the answer's {key} is {array.dtype} of shape {list(array.shape)}; expected {dtype} "
            f"of shape {[*shape, 1]}"
        )
    return array[..., 0]
