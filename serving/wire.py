"""Fields of a protobuf message as they stand in its bytes.

A slice of 512x512 probabilities is one packed field of a megabyte. The generated classes hand out
its 262,144 numbers one by one (8 ms); the bytes of the field are the array already (0.01 ms).

Source: https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterator
from dataclasses import dataclass

VARINT = 0
FIXED64 = 1
LENGTH_DELIMITED = 2
FIXED32 = 5

_CONTINUES = 0x80
_MAX_VARINT_BYTES = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One field of a message."""

    number: int
    """Number of the field in the ``.proto`` file."""

    wire_type: int
    """One of ``VARINT``, ``FIXED64``, ``LENGTH_DELIMITED``, ``FIXED32``."""

    payload: memoryview
    """The value without tag and length."""

    whole: memoryview
    """Tag, length and value."""


def read_fields(message: bytes | memoryview) -> Iterator[Field]:
    """Walks through the top-level fields of a message, without copying.

    Args:
        message: a serialized message.

    Yields:
        Each field, in the order of the bytes.

    Raises:
        ValueError: if the bytes are not a protobuf message.
    """
    view = memoryview(message)
    start = 0
    while start < len(view):
        tag, position = _read_varint(view, start)
        wire_type = tag & 7
        if wire_type == VARINT:
            _, end = _read_varint(view, position)
        elif wire_type == LENGTH_DELIMITED:
            length, position = _read_varint(view, position)
            end = position + length
        elif wire_type in (FIXED64, FIXED32):
            end = position + (8 if wire_type == FIXED64 else 4)
        else:
            raise ValueError(f"byte {start} starts a field of unknown wire type {wire_type}")
        if end > len(view):
            raise ValueError(f"the field at byte {start} ends at {end} of {len(view)} bytes")
        yield Field(
            number=tag >> 3,
            wire_type=wire_type,
            payload=view[position:end],
            whole=view[start:end],
        )
        start = end


def length_delimited(number: int, payload: bytes | memoryview) -> bytes:
    """Gives a field that holds bytes, a string, a message or packed numbers."""
    return b"".join(
        (_varint(number << 3 | LENGTH_DELIMITED), _varint(len(payload)), bytes(payload))
    )


def _read_varint(view: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(view[position : position + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < _CONTINUES:
            return value, position + index + 1
    raise ValueError(f"the number at byte {position} does not end")


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= _CONTINUES:
        encoded.append(value & 0x7F | _CONTINUES)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
