from typing import Any

import numpy as np
import pytest

from serving import tensors
from serving.protos import tensor_pb2, types_pb2

STRINGS = np.array([b"", b"short", b"\x00" * 300], dtype=object)
ARRAYS = [
    np.array([[0, 1], [1, 0]], np.uint8),
    np.array([0, 127, 128, 255], np.uint8),
    np.array([-1, 3], np.int8),
    np.array([-70000, 7], np.int32),
    np.array([2**40, -5], np.int64),
    np.array([2**32 - 1], np.uint32),
    np.array([2**64 - 1], np.uint64),
    np.array([True, False]),
    np.array([[[0.5, -1.25, np.inf]]], np.float32),
    np.array(3.5, np.float64),
    np.zeros((0, 4), np.float32),
    np.zeros((0,), np.uint8),
    STRINGS,
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}-{array.shape}")
def test_written_tensor_is_read_back(array: Any) -> None:
    again = tensors.read(tensors.write_typed(array))
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}-{array.shape}")
def test_tensorflow_reads_what_was_written(array: Any) -> None:
    import tensorflow as tf

    proto = tensor_pb2.TensorProto.FromString(tensors.write_typed(array))
    assert not proto.tensor_content
    np.testing.assert_array_equal(tf.make_ndarray(proto), array)


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}-{array.shape}")
def test_what_tensorflow_wrote_is_read(array: Any) -> None:
    import tensorflow as tf

    # TensorFlow uses tensor_content for numbers and typed fields for strings and single values.
    proto = tf.make_tensor_proto(array, dtype=tf.as_dtype(array.dtype), shape=array.shape)
    np.testing.assert_array_equal(tensors.read(proto.SerializeToString()), array)


def test_last_value_is_repeated() -> None:
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1.0, 7.0])
    proto.tensor_shape.dim.add(size=4)
    assert tensors.read(proto.SerializeToString()).tolist() == [1.0, 7.0, 7.0, 7.0]


def test_no_value_means_zeros() -> None:
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_INT32)
    proto.tensor_shape.dim.add(size=3)
    assert tensors.read(proto.SerializeToString()).tolist() == [0, 0, 0]


def test_values_that_are_not_packed_are_read() -> None:
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_UINT8)
    proto.tensor_shape.dim.add(size=2)
    unpacked = b"\x38\x05\x38\x06"  # field 7 as two varints
    assert tensors.read(proto.SerializeToString() + unpacked).tolist() == [5, 6]


def test_more_values_than_the_shape_holds_are_refused() -> None:
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1, 2, 3])
    proto.tensor_shape.dim.add(size=2)
    with pytest.raises(ValueError, match=r"shape \[2\] came with 3 values"):
        tensors.read(proto.SerializeToString())


def test_unknown_size_is_refused() -> None:
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT)
    proto.tensor_shape.dim.add(size=-1)
    with pytest.raises(ValueError, match="unknown shape"):
        tensors.read(proto.SerializeToString())


def test_types_out_of_reach_are_refused() -> None:
    with pytest.raises(ValueError, match="tensors of complex64 are not handled; expected one of f"):
        tensors.numpy_dtype(types_pb2.DT_COMPLEX64)
    with pytest.raises(ValueError, match="arrays of complex128 cannot be sent"):
        tensors.write_typed(np.array([1j]))
