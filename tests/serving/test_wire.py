import pytest

from serving import wire
from serving.protos import tensor_pb2


def test_fields_come_with_number_type_and_payload() -> None:
    # 1: varint 300; 2: "ab"; 3: fixed32; 4: fixed64
    message = b"\x08\xac\x02" + b"\x12\x02ab" + b"\x1d\x01\x00\x00\x00" + b"\x21" + bytes(8)
    fields = list(wire.read_fields(message))
    assert [field.number for field in fields] == [1, 2, 3, 4]
    assert [field.wire_type for field in fields] == [0, 2, 5, 1]
    assert bytes(fields[1].payload) == b"ab"
    assert b"".join(bytes(field.whole) for field in fields) == message


def test_length_delimited_field_is_what_protobuf_writes() -> None:
    content = bytes(range(256)) * 2
    expected = tensor_pb2.TensorProto(tensor_content=content).SerializeToString()
    assert wire.length_delimited(4, content) == expected


def test_empty_message_has_no_fields() -> None:
    assert list(wire.read_fields(b"")) == []


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\x12\x05ab", "ends at 7 of 4 bytes"),
        (b"\x0d\x01", "ends at 5 of 2 bytes"),
        (b"\x0b", "unknown wire type 3"),
        (b"\x80", "does not end"),
        (b"\x80" * 11, "does not end"),
    ],
)
def test_damaged_message_is_refused(message: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        list(wire.read_fields(message))
