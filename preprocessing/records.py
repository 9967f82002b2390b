"""What a record is: the keys, and how a record is written and read.

A record is a serialized ``tf.train.Example`` with the keys that the field uses. This is a contract:
``trainer`` reads it too. TensorFlow is loaded by `parse_example` only, so no worker of the job has
to load it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from preprocessing.images.library_formats import decode_png
from preprocessing.png import encode_png
from preprocessing.spec import IMAGE_SPEC

if TYPE_CHECKING:
    import tensorflow as tf

IMAGE_ENCODED = "image/encoded"
"""The slice, gray values 0 to 255: a PNG file, or the pixels row by row."""

IMAGE_FORMAT = "image/format"
"""``png`` or ``raw``."""

IMAGE_HEIGHT = "image/height"
"""Height of slice and mask, in pixels."""

IMAGE_WIDTH = "image/width"
"""Width of slice and mask, in pixels."""

IMAGE_FILENAME = "image/filename"
"""The ``slice_id``: path below the folder of slices, without its extension."""

MASK_ENCODED = "image/segmentation/class/encoded"
"""The mask as a PNG file that holds labels: 0 is background, 1 is lung."""

MASK_FORMAT = "image/segmentation/class/format"
"""``png``."""

PATIENT_ID = "patient/id"
"""The ``patient_id``; empty if names tell none and the dataset is split by slice."""

PNG_ENCODING = "png"
RAW_ENCODING = "raw"
ENCODINGS = (PNG_ENCODING, RAW_ENCODING)
"""How a slice can be stored: small, or fast to read. A mask is small as a PNG and always one."""

# Field numbers and wire types of tensorflow/core/example/{example,feature}.proto.
_EXAMPLE_FEATURES = 1
_FEATURES_ENTRY = 1
_ENTRY_KEY = 1
_ENTRY_VALUE = 2
_FEATURE_BYTES_LIST = 1
_FEATURE_INT64_LIST = 3
_LIST_VALUE = 1
_LENGTH_DELIMITED = 2


class DamagedRecordError(ValueError):
    """A record cannot be read back; the message says which part of it."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One slice with its mask, read back from a record."""

    image: npt.NDArray[np.uint8]
    """[height, width] gray values."""

    mask: npt.NDArray[np.uint8]
    """[height, width] in {0, 1}; 1 is lung."""

    slice_id: str
    """Which slice it is."""

    patient_id: str
    """Whose slice it is; empty if that is not known."""


def encode_example(
    *,
    image: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    slice_id: str,
    patient_id: str,
    encoding: str = PNG_ENCODING,
) -> bytes:
    """Encodes one slice with its mask; equal arguments give equal bytes.

    Args:
        image: [height, width] uint8 gray values.
        mask: [height, width] uint8 in {0, 1}; 1 is lung.
        slice_id: which slice it is.
        patient_id: whose slice it is; empty if that is not known.
        encoding: ``png`` or ``raw``, of the slice.

    Returns:
        A serialized ``tf.train.Example``.

    Raises:
        ValueError: if the two shapes differ, the mask holds another label, or an array is not
            [height, width] uint8.

    Source: Protocol Buffers encoding guide; tensorflow/core/example/example.proto.
    """
    if image.shape != mask.shape:
        raise ValueError(
            f"slice {slice_id} has shape {list(image.shape)}, its mask {list(mask.shape)}; "
            "expected equal shapes"
        )
    if mask.size and mask.max() > IMAGE_SPEC.lung_label:
        raise ValueError(
            f"the mask of slice {slice_id} holds label {mask.max()}; expected only "
            f"{IMAGE_SPEC.background_label} and {IMAGE_SPEC.lung_label}"
        )
    return _serialize(
        {
            IMAGE_ENCODED: image.tobytes() if encoding == RAW_ENCODING else encode_png(image),
            IMAGE_FILENAME: slice_id.encode(),
            IMAGE_FORMAT: encoding.encode(),
            IMAGE_HEIGHT: image.shape[0],
            IMAGE_WIDTH: image.shape[1],
            MASK_ENCODED: encode_png(mask, is_flat=True),
            MASK_FORMAT: PNG_ENCODING.encode(),
            PATIENT_ID: patient_id.encode(),
        }
    )


def parse_example(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Reads one record, inside of a ``tf.data`` map or eagerly.

    Args:
        serialized: string scalar, what `encode_example` gave.

    Returns:
        ``image``: [height, width, 1] uint8 gray values; ``mask``: same shape, uint8 in {0, 1};
        ``slice_id`` and ``patient_id``: string scalars.

    Raises:
        tf.errors.InvalidArgumentError: when it runs, if a feature is missing, if a PNG is damaged,
            or if the number of pixels is not that of the height and width that the record states.
    """
    import tensorflow as tf

    # No default values: a missing feature must not become an empty image.
    features = tf.io.parse_single_example(
        serialized,
        {
            IMAGE_ENCODED: tf.io.FixedLenFeature([], tf.string),
            IMAGE_FILENAME: tf.io.FixedLenFeature([], tf.string),
            IMAGE_FORMAT: tf.io.FixedLenFeature([], tf.string),
            IMAGE_HEIGHT: tf.io.FixedLenFeature([], tf.int64),
            IMAGE_WIDTH: tf.io.FixedLenFeature([], tf.int64),
            MASK_ENCODED: tf.io.FixedLenFeature([], tf.string),
            PATIENT_ID: tf.io.FixedLenFeature([], tf.string),
        },
    )
    shape = tf.stack([features[IMAGE_HEIGHT], features[IMAGE_WIDTH], IMAGE_SPEC.channels])
    encoded = features[IMAGE_ENCODED]
    # To one row of pixels, so that both ways give the same rank; all but raw pixels must be a PNG.
    pixels = tf.cond(
        tf.equal(features[IMAGE_FORMAT], RAW_ENCODING),
        lambda: tf.io.decode_raw(encoded, tf.uint8),
        lambda: tf.reshape(tf.io.decode_png(encoded, channels=1), [-1]),
    )
    return {
        # The reshape fails where the pixels do not have the size that is stated.
        "image": tf.reshape(pixels, shape),
        "mask": tf.reshape(tf.io.decode_png(features[MASK_ENCODED], channels=1), shape),
        "slice_id": features[IMAGE_FILENAME],
        "patient_id": features[PATIENT_ID],
    }


def decode_example(serialized: bytes) -> Example:
    """Reads one record without TensorFlow.

    Args:
        serialized: what `encode_example` gave.

    Raises:
        DamagedRecordError: if a feature is missing, an image is damaged, or its size is not the one
            that is stated.
    """
    try:
        features = _deserialize(serialized)
        shape = (int(features[IMAGE_HEIGHT]), int(features[IMAGE_WIDTH]))
        encoded, mask_encoded = bytes(features[IMAGE_ENCODED]), bytes(features[MASK_ENCODED])
        if features[IMAGE_FORMAT] == RAW_ENCODING.encode():
            image = np.frombuffer(encoded, np.uint8).reshape(shape)
        else:
            image = decode_png(encoded)
        mask = decode_png(mask_encoded)
        slice_id = bytes(features[IMAGE_FILENAME]).decode()
        patient_id = bytes(features[PATIENT_ID]).decode()
    except KeyError as error:
        raise DamagedRecordError(f"the record has no feature {error.args[0]}") from error
    except (ValueError, IndexError) as error:
        raise DamagedRecordError(f"the record cannot be decoded: {error}") from error
    if image.shape != shape or mask.shape != shape:
        raise DamagedRecordError(
            f"the record of {slice_id} states {list(shape)} pixels, but its slice has "
            f"{list(image.shape)} and its mask {list(mask.shape)}"
        )
    return Example(image=image, mask=mask, slice_id=slice_id, patient_id=patient_id)


def read_patient_id(serialized: bytes) -> str:
    """Reads whose slice a record holds; its pixels are not decoded.

    Args:
        serialized: what `encode_example` gave.

    Raises:
        DamagedRecordError: if it is no such record.
    """
    try:
        return bytes(_deserialize(serialized)[PATIENT_ID]).decode()
    except (KeyError, ValueError, IndexError) as error:
        raise DamagedRecordError(f"the record tells no patient: {error!r}") from error


def _serialize(features: Mapping[str, bytes | int]) -> bytes:
    """Serializes a ``tf.train.Example`` whose features hold one value each, sorted by key."""
    entries = b"".join(_entry(key, features[key]) for key in sorted(features))
    return _field(_EXAMPLE_FEATURES, entries)


def _entry(key: str, value: bytes | int) -> bytes:
    if isinstance(value, int):
        # Repeated numbers are packed: one length-delimited field of varints.
        feature = _field(_FEATURE_INT64_LIST, _field(_LIST_VALUE, _varint(value)))
    else:
        feature = _field(_FEATURE_BYTES_LIST, _field(_LIST_VALUE, value))
    return _field(_FEATURES_ENTRY, _field(_ENTRY_KEY, key.encode()) + _field(_ENTRY_VALUE, feature))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Gives seven bits a byte, the lowest first; the high bit says that more follow."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _deserialize(serialized: bytes) -> dict[str, bytes | int]:
    """Gives the features of a ``tf.train.Example``, each of which holds one value."""
    features: dict[str, bytes | int] = {}
    for _, entries in _fields(serialized):
        for _, entry in _fields(entries):
            parts = dict(_fields(entry))
            key = parts[_ENTRY_KEY].decode()
            for kind, values in _fields(parts[_ENTRY_VALUE]):
                value = dict(_fields(values))[_LIST_VALUE]
                features[key] = _read_varint(value, 0)[0] if kind == _FEATURE_INT64_LIST else value
    return features


def _fields(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Gives number and content of each field; all of those that are written here have a length."""
    position = 0
    while position < len(content):
        tag, position = _read_varint(content, position)
        length, position = _read_varint(content, position)
        if tag & 7 != _LENGTH_DELIMITED or position + length > len(content):
            raise ValueError(f"field {tag >> 3} has another type or is too long")
        yield tag >> 3, content[position : position + length]
        position += length


def _read_varint(content: bytes, position: int) -> tuple[int, int]:
    """Gives the number, and where it ends."""
    value = shift = 0
    while True:
        byte = content[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
