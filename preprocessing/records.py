"""What a record is: the keys, and how a record is written and read.

A record is a serialized ``tf.train.Example`` with the keys that the field uses. This is a contract:
``trainer`` reads it too. Writing needs NumPy only, so no worker of the job loads TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from preprocessing.png import encode_png
from preprocessing.spec import IMAGE_SPEC

if TYPE_CHECKING:
    import tensorflow as tf

IMAGE_ENCODED = "image/encoded"
"""The slice as a PNG file, gray values 0 to 255."""

IMAGE_FORMAT = "image/format"
"""``png``."""

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

PNG_FORMAT = b"png"

# Field numbers and wire types of tensorflow/core/example/{example,feature}.proto.
_EXAMPLE_FEATURES = 1
_FEATURES_ENTRY = 1
_ENTRY_KEY = 1
_ENTRY_VALUE = 2
_FEATURE_BYTES_LIST = 1
_FEATURE_INT64_LIST = 3
_LIST_VALUE = 1
_LENGTH_DELIMITED = 2


def encode_example(
    *, image: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], slice_id: str, patient_id: str
) -> bytes:
    """Encodes one slice with its mask; equal arguments give equal bytes.

    Args:
        image: [height, width] uint8 gray values.
        mask: [height, width] uint8 in {0, 1}; 1 is lung.
        slice_id: which slice it is.
        patient_id: whose slice it is; empty if that is not known.

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
            IMAGE_ENCODED: encode_png(image),
            IMAGE_FILENAME: slice_id.encode(),
            IMAGE_FORMAT: PNG_FORMAT,
            IMAGE_HEIGHT: image.shape[0],
            IMAGE_WIDTH: image.shape[1],
            MASK_ENCODED: encode_png(mask),
            MASK_FORMAT: PNG_FORMAT,
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
            or if the pixels do not have the height and width that the record states.
    """
    import tensorflow as tf

    # No default values: a missing feature must not become an empty image.
    features = tf.io.parse_single_example(
        serialized,
        {
            IMAGE_ENCODED: tf.io.FixedLenFeature([], tf.string),
            IMAGE_FILENAME: tf.io.FixedLenFeature([], tf.string),
            IMAGE_HEIGHT: tf.io.FixedLenFeature([], tf.int64),
            IMAGE_WIDTH: tf.io.FixedLenFeature([], tf.int64),
            MASK_ENCODED: tf.io.FixedLenFeature([], tf.string),
            PATIENT_ID: tf.io.FixedLenFeature([], tf.string),
        },
    )
    shape = tf.stack([features[IMAGE_HEIGHT], features[IMAGE_WIDTH], IMAGE_SPEC.channels])
    return {
        # The reshape changes nothing; it fails where pixels and stated size differ.
        "image": tf.reshape(tf.io.decode_png(features[IMAGE_ENCODED], channels=1), shape),
        "mask": tf.reshape(tf.io.decode_png(features[MASK_ENCODED], channels=1), shape),
        "slice_id": features[IMAGE_FILENAME],
        "patient_id": features[PATIENT_ID],
    }


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
