"""Records in a file, one after the other, each with its length and checksums.

Source: TFRecord framing, tensorflow/core/lib/io/record_writer.h.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import google_crc32c

_LENGTH_BYTES = 8
_CRC_BYTES = 4
_CRC_MASK_DELTA = 0xA282EAD8


class DamagedShardError(ValueError):
    """A shard cannot be read to its end; the message says where it is damaged."""


def write_record(file: BinaryIO, record: bytes) -> bytes:
    """Writes one record and gives the bytes as written.

    Raises:
        OSError: if the disk refuses.
    """
    length = struct.pack("<Q", len(record))
    framed = b"".join((length, _masked_crc(length), record, _masked_crc(record)))
    file.write(framed)
    return framed


def read_records(path: Path) -> Iterator[bytes]:
    """Gives the records of a shard, one at a time, with their checksums checked.

    Raises:
        DamagedShardError: at the record that is truncated or damaged.
        OSError: if the file cannot be read.
    """
    with path.open("rb") as file:
        index = 0
        while header := file.read(_LENGTH_BYTES + _CRC_BYTES):
            length = header[:_LENGTH_BYTES]
            if len(header) < _LENGTH_BYTES + _CRC_BYTES or _masked_crc(length) != header[8:]:
                raise _damaged(path, index)
            (num_bytes,) = struct.unpack("<Q", length)
            record, crc = file.read(num_bytes), file.read(_CRC_BYTES)
            if len(record) < num_bytes or _masked_crc(record) != crc:
                raise _damaged(path, index)
            yield record
            index += 1


def _damaged(path: Path, index: int) -> DamagedShardError:
    return DamagedShardError(
        f"{path} is damaged or truncated at record {index}; expected whole records with matching "
        "checksums; write the dataset again with `make tfrecords`"
    )


def _masked_crc(content: bytes) -> bytes:
    crc = google_crc32c.value(content)
    rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + _CRC_MASK_DELTA) & 0xFFFFFFFF)
