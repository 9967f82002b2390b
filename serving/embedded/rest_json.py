"""JSON of TensorFlow Serving's REST API <-> arrays: rows (``instances``) or columns (``inputs``).

Source: tensorflow_serving/util/json_tensor.cc; https://www.tensorflow.org/tfx/serving/api_rest
"""

import base64
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.protos import types_pb2
from serving.status import StatusError, invalid
from serving.tensors import Array, numpy_dtype, type_name

_BYTES_SUFFIX = "_bytes"
_BASE64_KEY = "b64"
_MAX_RANK = 32
_INTEGER_BOUNDS = {
    types_pb2.DT_INT64: (-(2**63), 2**63),
    types_pb2.DT_UINT32: (0, 2**32),
    types_pb2.DT_UINT64: (0, 2**64),
}
"""Smaller types are read as int32, and cut to their bits by TensorFlow."""
_INT32_BOUNDS = (-(2**31), 2**31)
_TYPE_TEXTS: dict[type, str] = {dict: "Object", str: "String", type(None): "Null"}
_PARSE_ERRORS = {
    "Expecting value": "Invalid value.",
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Expecting ',' delimiter": "Missing a comma or ] after an array element.",
    "Extra data": "The document root must not be followed by other values.",
}
"""What Python's parser says, and what TensorFlow Serving's says to the same."""


@dataclass(frozen=True, kw_only=True)
class JsonRequest:
    """The body of a ``:predict`` request."""

    signature_name: str
    """Empty for the default."""

    inputs: Mapping[str, Array]
    """Arrays by input key; strings as objects of type bytes."""

    is_rows: bool
    """Whether it came in rows, and the answer goes out in rows."""


def read_request(body: bytes, inputs_of: Callable[[str], Mapping[str, Any]]) -> JsonRequest:
    """Reads the body of a ``:predict`` request.

    Args:
        body: JSON.
        inputs_of: gives the ``TensorInfo`` of each input of a signature by its name.

    Raises:
        StatusError: with TensorFlow Serving's code and text.
    """
    try:
        return _read(_parse(body), inputs_of)
    except RecursionError as error:
        raise invalid("JSON Parse error: Invalid value. at offset: 0") from error
    except ValueError as error:  # half of a surrogate pair, or a type that JSON cannot hold
        raise invalid(f"JSON Parse error: {error}") from error


def _read(document: dict[str, Any], inputs_of: Callable[[str], Mapping[str, Any]]) -> JsonRequest:
    signature_name = document.get("signature_name", "")
    if not isinstance(signature_name, str):
        raise _wrong(
            document, "not formatted correctly. 'signature_name' key must be a string value."
        )
    types = {key: info.dtype for key, info in inputs_of(signature_name).items()}
    if not types:
        raise invalid(f"Failed to get input map for signature: {signature_name or 'DEFAULT'}")
    is_rows = "instances" in document
    if is_rows and "inputs" in document:
        raise _wrong(
            document,
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ",
        )
    if not is_rows and "inputs" not in document:
        raise invalid("Missing 'inputs' or 'instances' key")
    inputs = _rows(document, types) if is_rows else _columns(document["inputs"], types)
    return JsonRequest(signature_name=signature_name, inputs=inputs, is_rows=is_rows)


def write_answer(outputs: Mapping[str, Array], *, is_rows: bool) -> dict[str, Any]:
    """Gives the document that answers a ``:predict`` request.

    Raises:
        StatusError: if the outputs are no rows of one batch.
    """
    columns = {key: _json_values(key, array) for key, array in sorted(outputs.items())}
    if not is_rows:
        return {"outputs": columns if len(columns) > 1 else next(iter(columns.values()))}
    batch_size = None
    for key, array in sorted(outputs.items()):
        if array.ndim == 0:
            raise invalid(f"Tensor name: {key} has no shape information ")
        if batch_size not in (None, len(array)):
            raise invalid(
                f"Tensor name: {key} has inconsistent batch size: {len(array)} "
                f"expecting: {batch_size}"
            )
        batch_size = len(array)
    if len(columns) == 1:
        return {"predictions": next(iter(columns.values()))}
    rows = zip(*columns.values(), strict=True)
    return {"predictions": [dict(zip(columns, row, strict=True)) for row in rows]}


def _parse(body: bytes) -> dict[str, Any]:
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        document = json.loads(body)
    except json.JSONDecodeError as error:
        text = _PARSE_ERRORS.get(error.msg, "Invalid value.")
        raise invalid(f"JSON Parse error: {text} at offset: {error.pos}") from error
    except ValueError as error:  # no text, or a number of thousands of digits
        raise invalid("JSON Parse error: Invalid value. at offset: 0") from error
    if not isinstance(document, dict):
        raise _wrong(document, "Is not object")
    return document


def _rows(document: dict[str, Any], types: Mapping[str, int]) -> dict[str, Array]:
    """Reads ``instances``: a list with an entry for each item of the batch."""
    items = document["instances"]
    if not isinstance(items, list):
        raise _wrong(document, "Excepting 'instances' to be an list/array")
    if not items:
        raise _wrong(document, "No values in 'instances' array")
    if not isinstance(items[0], dict) and len(types) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    are_objects = _is_object(items[0])
    found: dict[str, list[Array]] = {}
    for index, item in enumerate(items):
        if are_objects != _is_object(item):
            expected, got = ("object", "list") if are_objects else ("value/list", "object")
            raise invalid(f"Expecting {expected} but got {got} at item {index} of input list")
        for key, value in (item if are_objects else {next(iter(types)): item}).items():
            name = f" key: {key}" if are_objects else ""
            try:
                _add_row(found.setdefault(key, []), key, value, types)
            except StatusError as error:
                raise invalid(
                    f"Failed to process element: {index}{name} of 'instances' list. "
                    f"Error: INVALID_ARGUMENT: {error.message}"
                ) from error
        if are_objects and set(item) != set(types):
            raise invalid(
                f"Failed to process element: {index} of 'instances' list. "
                f"JSON object: {_text(item)} keys must be equal to: {','.join(sorted(types))}"
            )
    return {key: np.stack(arrays) for key, arrays in found.items()}


def _add_row(arrays: list[Array], key: str, value: Any, types: Mapping[str, int]) -> None:
    if key not in types:
        raise invalid(f"JSON object: does not have named input: {key}")
    array = _tensor(value, types[key])
    if arrays and arrays[0].size != array.size:
        raise invalid(f"Expecting tensor size: {arrays[0].size} but got: {array.size}")
    if arrays and arrays[0].shape != array.shape:
        first, this = (",".join(map(str, each.shape)) for each in (arrays[0], array))
        raise invalid(f"Expecting shape [{first}] but got: [{this}]")
    arrays.append(array)


def _columns(value: Any, types: Mapping[str, int]) -> dict[str, Array]:
    """Reads ``inputs``: the whole batch of each input."""
    if _is_object(value):
        for key in sorted(types):
            if key not in value:
                raise invalid(f"Missing named input: {key} in 'inputs' object.")
        return {key: _tensor(value[key], data_type) for key, data_type in types.items()}
    if len(types) > 1:
        raise invalid(
            "inputs is a plain value/list, but expecting an object as multiple input tensors "
            "required as per tensorinfo_map"
        )
    ((key, data_type),) = types.items()
    return {key: _tensor(value, data_type)}


def _tensor(value: Any, data_type: int) -> Array:
    """Makes an array of nested lists; the first element of each tells its shape."""
    shape: list[int] = []
    inner = value
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    if len(shape) > _MAX_RANK:
        raise invalid(f"lists are {len(shape)} deep; expected at most {_MAX_RANK}")
    flat: list[Any] = []
    _fill(flat, value, shape, 0, data_type)
    dtype = numpy_dtype(data_type)
    # What does not fit into a small integer type is cut to its bits.
    wide = np.dtype(np.int64) if dtype.kind in "iu" and dtype != np.uint64 else dtype
    return np.array(flat, wide).astype(dtype).reshape(shape)


def _fill(flat: list[Any], value: Any, shape: list[int], level: int, data_type: int) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid(
                f"JSON Value: {_text(value)} found at incorrect level: {level + 1} in the JSON "
                f"DOM. Expected at level: {len(shape)}"
            )
        flat.append(_leaf(value, data_type))
        return
    if level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} "
            f"expected size: {shape[level]}"
        )
    for element in value:
        _fill(flat, element, shape, level + 1, data_type)


def _leaf(value: Any, data_type: int) -> Any:
    """Gives a value as NumPy takes it."""
    kind = type(value)
    if data_type == types_pb2.DT_STRING:
        if kind is dict:
            return _decoded(value)
        if kind is str:
            return value.encode()
    elif data_type == types_pb2.DT_BOOL:
        if kind is bool:
            return value
    elif data_type in (types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE):
        if kind in (int, float):
            return _checked_decimal(value, data_type)
    elif kind is int:
        low, high = _INTEGER_BOUNDS.get(data_type, _INT32_BOUNDS)
        if low <= value < high:
            return value
    type_text = str(value) if kind is bool else _TYPE_TEXTS.get(kind, "Number")
    raise _wrong(value, f"Type: {type_text} is not of expected type: {type_name(data_type)}")


def _checked_decimal(value: float, data_type: int) -> float:
    limits = np.finfo(numpy_dtype(data_type))
    largest = 2 ** (limits.nmant + 1) - 1 if isinstance(value, int) else float(limits.max)
    if abs(value) > largest and (isinstance(value, int) or math.isfinite(value)):
        raise invalid(
            f"Cannot convert JSON value: {_text(value)} to {type_name(data_type)} "
            "without loss of precision."
        )
    return value


def _decoded(value: dict[str, Any]) -> bytes:
    if not _is_base64(value):
        raise _wrong(value, "not formatted correctly for base64 data")
    try:
        # White space and missing padding are taken, as there.
        text = "".join(value[_BASE64_KEY].split()).rstrip("=")
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise invalid("Unable to base64 decode") from error


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value: Any) -> bool:
    is_alone = isinstance(value, dict) and set(value) == {_BASE64_KEY}
    return is_alone and isinstance(value[_BASE64_KEY], str)


def _json_values(key: str, array: Array) -> Any:
    """Gives nested lists of what JSON can hold; float32 with no more digits than it has."""
    if array.dtype == object:
        as_base64 = key.endswith(_BYTES_SUFFIX)
        values = np.empty(array.shape, object)
        for index, item in enumerate(array.flat):
            encoded = {_BASE64_KEY: base64.b64encode(item).decode()}
            values.flat[index] = encoded if as_base64 else item.decode("utf-8", "replace")
        return values.tolist()
    if array.dtype == np.float32:
        return array.astype(str).astype(np.float64).tolist()
    return array.tolist()


def _text(value: Any) -> str:
    return json.dumps(value, indent=4)


def _wrong(value: Any, what: str) -> StatusError:
    return invalid(f"JSON Value: {_text(value)} {what}")
