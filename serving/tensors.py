"""NumPy arrays <-> serialized ``TensorProto`` with typed fields, as TensorFlow Serving answers.

Both directions stand here side by side. The client reads, the embedded server writes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving import wire
from serving.protos import tensor_pb2, types_pb2

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """How the values of one TensorFlow type stand in a ``TensorProto``."""

    dtype: np.dtype[Any]
    field_name: str
    is_varint: bool = True

    @property
    def field_number(self) -> int:
        descriptor = tensor_pb2.TensorProto.DESCRIPTOR.fields_by_name[self.field_name]
        return int(descriptor.number)


# Little-endian, as protobuf packs its fixed-width numbers.
_KINDS = {
    types_pb2.DT_FLOAT: _Kind(dtype=np.dtype("<f4"), field_name="float_val", is_varint=False),
    types_pb2.DT_DOUBLE: _Kind(dtype=np.dtype("<f8"), field_name="double_val", is_varint=False),
    types_pb2.DT_UINT8: _Kind(dtype=np.dtype("u1"), field_name="int_val"),
    types_pb2.DT_INT8: _Kind(dtype=np.dtype("i1"), field_name="int_val"),
    types_pb2.DT_UINT16: _Kind(dtype=np.dtype("<u2"), field_name="int_val"),
    types_pb2.DT_INT16: _Kind(dtype=np.dtype("<i2"), field_name="int_val"),
    types_pb2.DT_INT32: _Kind(dtype=np.dtype("<i4"), field_name="int_val"),
    types_pb2.DT_INT64: _Kind(dtype=np.dtype("<i8"), field_name="int64_val"),
    types_pb2.DT_UINT32: _Kind(dtype=np.dtype("<u4"), field_name="uint32_val"),
    types_pb2.DT_UINT64: _Kind(dtype=np.dtype("<u8"), field_name="uint64_val"),
    types_pb2.DT_BOOL: _Kind(dtype=np.dtype("?"), field_name="bool_val"),
    types_pb2.DT_STRING: _Kind(dtype=np.dtype("O"), field_name="string_val"),
}
TSTRING_BYTES = 24
"""Of a string of TensorFlow in memory, beside its characters."""

_LARGEST_ITEM_BYTES = 16
_TYPE_OF = {kind.dtype: data_type for data_type, kind in _KINDS.items()}
_VALUE_FIELD_NUMBERS = frozenset(
    kind.field_number for kind in _KINDS.values() if kind.field_name != "string_val"
)


def numpy_dtype(data_type: int) -> np.dtype[Any]:
    """Gives the NumPy type of a TensorFlow type; object for strings.

    Raises:
        ValueError: if this module does not handle the type.
    """
    return _kind(data_type).dtype


def num_bytes(proto: Any) -> int:
    """Gives the memory, in bytes, that TensorFlow takes for a ``TensorProto``.

    A message of a few bytes may name any shape: where values are missing, the last one is repeated.

    Args:
        proto: of any type; for one that this module does not handle the largest type is taken.

    Returns:
        Without the strings that were sent, which are in memory already.

    Source: tensorflow/core/framework/tensor.cc, Tensor::FromProto.
    """
    sizes = [max(dim.size, 0) for dim in proto.tensor_shape.dim]  # -1 is refused by TensorFlow
    count = math.prod(sizes)
    if proto.dtype != types_pb2.DT_STRING:
        kind = _KINDS.get(proto.dtype)
        return count * (kind.dtype.itemsize if kind else _LARGEST_ITEM_BYTES)
    strings = proto.string_val
    repeated = (count - len(strings)) * len(strings[-1]) if strings else 0
    return count * TSTRING_BYTES + max(repeated, 0)


def type_name(data_type: int) -> str:
    """Gives TensorFlow's short name of a type: ``uint8``, ``float``, ``string``."""
    return str(types_pb2.DataType.Name(data_type)).removeprefix("DT_").lower()


def write_typed(array: Array) -> bytes:
    """Serializes an array as ``TensorProto`` with typed fields (``float_val``, ``int_val`` ...).

    Args:
        array: any shape; strings as objects of type bytes.

    Raises:
        ValueError: if this module does not handle the type.
    """
    data_type = _TYPE_OF.get(array.dtype)
    if data_type is None:
        raise ValueError(f"arrays of {array.dtype} cannot be sent; expected one of {_names()}")
    kind = _KINDS[data_type]
    header = tensor_pb2.TensorProto(dtype=data_type)
    for size in array.shape:
        header.tensor_shape.dim.add(size=size)
    packed = _packed(array, kind)
    if packed is None:
        getattr(header, kind.field_name).extend(array.ravel().tolist())
        return bytes(header.SerializeToString())
    return bytes(header.SerializeToString()) + wire.length_delimited(kind.field_number, packed)


def read(message: bytes | memoryview) -> Array:
    """Gives the array of a serialized ``TensorProto``, from its typed fields or its content.

    Where fewer values stand there than the shape holds, the last one is repeated, and no value at
    all means zeros: TensorFlow's own rule.

    Args:
        message: a serialized ``TensorProto``.

    Returns:
        The array; strings as objects of type bytes.

    Raises:
        ValueError: if the bytes are no tensor of a type that this module handles.

    Source: tensorflow/core/framework/tensor.cc, Tensor::FromProto.
    """
    header_parts: list[memoryview] = []
    packed: dict[int, list[memoryview]] = {}
    for field in wire.read_fields(message):
        is_packed = field.wire_type == wire.LENGTH_DELIMITED
        if is_packed and field.number in _VALUE_FIELD_NUMBERS:
            packed.setdefault(field.number, []).append(field.payload)
        else:
            header_parts.append(field.whole)
    header = tensor_pb2.TensorProto.FromString(b"".join(header_parts))
    kind = _kind(header.dtype)
    shape = [dim.size for dim in header.tensor_shape.dim]
    if min(shape, default=0) < 0 or header.tensor_shape.unknown_rank:
        raise ValueError(f"a tensor has the unknown shape {shape}; expected every size")
    if header.tensor_content:
        values = np.frombuffer(header.tensor_content, kind.dtype)
    else:
        values = _values(message, header, kind, b"".join(packed.get(kind.field_number, ())))
    return _filled(values, shape)


def _kind(data_type: int) -> _Kind:
    if data_type not in _KINDS:
        raise ValueError(
            f"tensors of {type_name(data_type)} are not handled; expected one of {_names()}"
        )
    return _KINDS[data_type]


def _names() -> str:
    return ", ".join(type_name(data_type) for data_type in _KINDS)


def _packed(array: Array, kind: _Kind) -> bytes | None:
    """Gives the packed field, or None where the generated class has to write it."""
    if not kind.is_varint:
        return array.tobytes()
    # A varint below 128 is one byte that holds the number itself; masks are 0 and 1.
    if kind.field_name == "bool_val" or (
        kind.field_name != "string_val" and array.size and 0 <= array.min() <= array.max() < 128
    ):
        return array.astype(np.uint8).tobytes()
    return None


def _values(message: bytes | memoryview, header: Any, kind: _Kind, packed: bytes) -> Array:
    """Gives the values of the typed field, flat."""
    if kind.field_name == "string_val":
        return _objects(header.string_val)
    if packed and not kind.is_varint:
        return np.frombuffer(packed, kind.dtype)
    small = np.frombuffer(packed, np.uint8)
    if small.size and small.max() < 128:
        return small.astype(kind.dtype, copy=False)
    whole = tensor_pb2.TensorProto.FromString(bytes(message))
    return np.asarray(getattr(whole, kind.field_name), kind.dtype)


def _objects(strings: Sequence[bytes]) -> Array:
    array = np.empty(len(strings), dtype=object)
    array[:] = strings
    return array


def _filled(values: Array, shape: list[int]) -> Array:
    size = math.prod(shape)
    if values.size > size:
        raise ValueError(f"a tensor of shape {shape} came with {values.size} values")
    if values.size == size:
        return values.reshape(shape)
    filled = np.full(size, values[-1] if values.size else np.zeros(1, values.dtype)[0])
    filled[: values.size] = values
    return filled.astype(values.dtype, copy=False).reshape(shape)
