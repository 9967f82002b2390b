import numpy as np
import pytest

from serving import codec, tensors
from serving.codec import Answer
from serving.errors import UnexpectedAnswerError
from serving.protos import predict_pb2, tensor_pb2, types_pb2

IMAGES = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)


def answer_with(**outputs: np.ndarray) -> Answer:
    return Answer(model_version=1, outputs=outputs)


def test_pixels_travel_as_tensor_content() -> None:
    request = codec.array_request(
        IMAGES, model_name="m", model_version=None, output_key="predicted_mask"
    )
    tensor = request.inputs["image"]
    assert tensor.dtype == types_pb2.DT_UINT8
    assert [dim.size for dim in tensor.tensor_shape.dim] == [1, 2, 3, 1]
    assert tensor.tensor_content == bytes(range(6))
    assert list(request.output_filter) == ["predicted_mask"]
    assert request.model_spec.name == "m"
    assert request.model_spec.signature_name == "serving_default"
    assert not request.model_spec.HasField("version")


def test_image_that_is_not_contiguous_is_sent_row_by_row() -> None:
    turned = IMAGES.transpose(0, 2, 1)
    request = codec.array_request(turned, model_name="m", model_version=7, output_key="k")
    assert request.inputs["image"].tensor_content == bytes([0, 3, 1, 4, 2, 5])
    assert request.model_spec.version.value == 7


def test_slices_of_one_size_travel_together() -> None:
    images = np.concatenate([IMAGES, IMAGES + 6])
    request = codec.array_request(images, model_name="m", model_version=None, output_key="k")
    tensor = request.inputs["image"]
    assert [dim.size for dim in tensor.tensor_shape.dim] == [2, 2, 3, 1]
    assert tensor.tensor_content == bytes(range(12))


@pytest.mark.parametrize(
    "images",
    [IMAGES.astype(np.float32), IMAGES[np.newaxis], np.zeros((1, 0, 4), np.uint8)],
    ids=["float32", "four dimensions", "no pixel"],
)
def test_images_of_another_type_or_shape_are_refused(images: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 gray values of shape \[batch, height, w"):
        codec.array_request(images, model_name="m", model_version=None, output_key="k")


def test_file_travels_as_it_is() -> None:
    request = codec.encoded_request(b"BM...", model_name="m", model_version=None)
    assert list(request.inputs["image_bytes"].string_val) == [b"BM..."]
    assert [dim.size for dim in request.inputs["image_bytes"].tensor_shape.dim] == [1]
    assert request.model_spec.signature_name == "encoded"


def test_no_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="there are no bytes to send"):
        codec.encoded_request(b"", model_name="m", model_version=None)


def test_answer_is_read_from_its_bytes() -> None:
    response = predict_pb2.PredictResponse()
    response.model_spec.version.value = 12
    for key, array in (("a", np.eye(2, dtype=np.float32)), ("b", np.array([1, 200], np.uint8))):
        response.outputs[key].CopyFrom(
            tensor_pb2.TensorProto.FromString(tensors.write_typed(array))
        )
    answer = codec.read_answer(response.SerializeToString())
    assert answer.model_version == 12
    assert answer.outputs["a"].tolist() == [[1, 0], [0, 1]]
    assert answer.outputs["b"].tolist() == [1, 200]


@pytest.mark.parametrize("response", [b"\x0a\x05ab", b"\x0a\x02\x12\x00", b"\x12\x01\xff"])
def test_bytes_that_are_no_answer_are_refused(response: bytes) -> None:
    with pytest.raises(UnexpectedAnswerError, match="the answer cannot be read"):
        codec.read_answer(response)


def test_mask_loses_batch_and_channel() -> None:
    mask = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)
    answer = answer_with(predicted_mask=mask.reshape(1, 2, 3, 1))
    np.testing.assert_array_equal(codec.mask_of(answer, height=2, width=3), mask)


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ({"other": np.zeros(1)}, r"holds \['other'\]; expected 'predicted_mask'"),
        ({"predicted_mask": np.zeros((1, 3, 2, 1), np.uint8)}, r"shape \[1, 3, 2, 1\]; expected"),
        ({"predicted_mask": np.zeros((1, 2, 3, 1), np.float32)}, "is float32 of shape"),
        ({"predicted_mask": np.full((1, 2, 3, 1), 255, np.uint8)}, "holds 255; expected 0 and 1"),
    ],
)
def test_answer_without_a_proper_mask_is_refused(
    outputs: dict[str, np.ndarray], reason: str
) -> None:
    with pytest.raises(UnexpectedAnswerError, match=reason):
        codec.mask_of(answer_with(**outputs), height=2, width=3)


def test_probabilities_lose_the_channel() -> None:
    probabilities = np.linspace(0, 1, 12, dtype=np.float32).reshape(2, 2, 3)
    answer = answer_with(probability=probabilities[..., np.newaxis])
    read = codec.probabilities_of(answer, batch=2, height=2, width=3)
    np.testing.assert_array_equal(read, probabilities)


def test_probabilities_of_fewer_slices_than_were_sent_are_refused() -> None:
    answer = answer_with(probability=np.zeros((1, 2, 3, 1), np.float32))
    with pytest.raises(UnexpectedAnswerError, match=r"expected float32 of shape \[2, 2, 3, 1\]"):
        codec.probabilities_of(answer, batch=2, height=2, width=3)


def test_two_mask_files_for_one_slice_are_refused() -> None:
    files = np.array([b"a", b"b"], dtype=object)
    with pytest.raises(UnexpectedAnswerError, match=r"shape \[2\]; expected one PNG file"):
        codec.mask_file_of(answer_with(predicted_mask_bytes=files))
