"""The server through the plain stubs of tensorflow-serving-api.

TensorFlow Serving itself is held to these tests where the environment names it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from serving.embedded.server import EmbeddedServer
from serving.protos import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
    tensor_pb2,
    types_pb2,
)
from tests.serving.conftest import Served

MakeRequest = Callable[..., Any]
IMAGE = np.array([[[[10], [200]], [[99], [101]]]], np.uint8)


@pytest.fixture(scope="module")
def channel(served: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(served.grpc, options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield channel


@pytest.fixture(scope="module")
def prediction_stub(channel: grpc.Channel) -> Any:
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def model_stub(channel: grpc.Channel) -> Any:
    from tensorflow_serving.apis import model_service_pb2_grpc

    return model_service_pb2_grpc.ModelServiceStub(channel)


def assert_fails(call: Callable[..., Any], request: Any, *, code: str, message: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=10)
    assert caught.value.code().name == code
    assert caught.value.details() == message


def test_answer_holds_typed_fields_and_says_who_answered(
    prediction_stub: Any, predict_request: MakeRequest
) -> None:
    import tensorflow as tf

    response = prediction_stub.Predict(predict_request(image=IMAGE), timeout=10)
    mask, probability = response.outputs["predicted_mask"], response.outputs["probability"]
    assert list(mask.int_val) == [1, 0, 1, 0]
    assert not mask.tensor_content
    assert len(probability.float_val) == 4
    assert not probability.tensor_content
    assert tf.make_ndarray(mask).shape == (1, 2, 2, 1)
    assert response.model_spec.name == "lung_unet"
    assert response.model_spec.version.value == 3
    assert response.model_spec.signature_name == "serving_default"


def test_encoded_signature_gives_png_files(
    prediction_stub: Any, predict_request: MakeRequest
) -> None:
    import tensorflow as tf

    data = tf.io.encode_png(IMAGE[0]).numpy()
    request = predict_request(signature_name="encoded", image_bytes=[data])
    response = prediction_stub.Predict(request, timeout=10)
    (mask_file,) = response.outputs["predicted_mask_bytes"].string_val
    assert tf.io.decode_png(mask_file).numpy().ravel().tolist() == [255, 0, 255, 0]
    assert response.model_spec.signature_name == "encoded"


def test_output_filter_chooses_the_outputs(
    prediction_stub: Any, predict_request: MakeRequest
) -> None:
    request = predict_request(image=IMAGE)
    request.output_filter.append("predicted_mask")
    assert list(prediction_stub.Predict(request, timeout=10).outputs) == ["predicted_mask"]


def test_one_value_in_a_typed_field_fills_the_shape(
    prediction_stub: Any, predict_request: MakeRequest
) -> None:
    request = predict_request()
    request.inputs["image"].dtype = 4
    request.inputs["image"].int_val.append(50)
    for size in (1, 2, 3, 1):
        request.inputs["image"].tensor_shape.dim.add(size=size)
    response = prediction_stub.Predict(request, timeout=10)
    assert list(response.outputs["predicted_mask"].int_val) == [1] * 6


def test_version_that_is_served_may_be_named(
    prediction_stub: Any, predict_request: MakeRequest
) -> None:
    request = predict_request(image=IMAGE)
    request.model_spec.version.value = 3
    assert prediction_stub.Predict(request, timeout=10).model_spec.version.value == 3


def test_unknown_model_is_not_found(prediction_stub: Any, predict_request: MakeRequest) -> None:
    assert_fails(
        prediction_stub.Predict,
        predict_request("other", image=IMAGE),
        code="NOT_FOUND",
        message="Servable not found for request: Latest(other)",
    )


def test_unknown_version_is_not_found(prediction_stub: Any, predict_request: MakeRequest) -> None:
    request = predict_request(image=IMAGE)
    request.model_spec.version.value = 9
    assert_fails(
        prediction_stub.Predict,
        request,
        code="NOT_FOUND",
        message="Servable not found for request: Specific(lung_unet, 9)",
    )


def test_unknown_label_is_refused(prediction_stub: Any, predict_request: MakeRequest) -> None:
    request = predict_request(image=IMAGE)
    request.model_spec.version_label = "canary"
    assert_fails(
        prediction_stub.Predict,
        request,
        code="INVALID_ARGUMENT",
        message="Unrecognized servable version label: canary",
    )


def test_unknown_signature_is_a_failed_precondition(
    prediction_stub: Any, predict_request: MakeRequest
) -> None:
    assert_fails(
        prediction_stub.Predict,
        predict_request(signature_name="s", image=IMAGE),
        code="FAILED_PRECONDITION",
        message='Serving signature key "s" not found.',
    )


def test_request_without_a_model_is_refused(
    prediction_stub: Any, predict_request: MakeRequest
) -> None:
    assert_fails(
        prediction_stub.Predict,
        predict_pb2.PredictRequest(),
        code="INVALID_ARGUMENT",
        message="Missing ModelSpec",
    )
    assert_fails(
        prediction_stub.Predict,
        predict_request("", image=IMAGE),
        code="INVALID_ARGUMENT",
        message="ModelSpec has no name specified.",
    )


def test_wrong_type_is_refused_in_tensorflows_words(
    prediction_stub: Any, predict_request: MakeRequest
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        prediction_stub.Predict(predict_request(image=IMAGE.astype(np.float32)), timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "Expects arg[0] to be uint8 but float is provided" in caught.value.details()


def test_wrong_inputs_are_refused(prediction_stub: Any, predict_request: MakeRequest) -> None:
    assert_fails(
        prediction_stub.Predict,
        predict_request(image=IMAGE, more=1),
        code="INVALID_ARGUMENT",
        message="input size does not match signature: 2!=1 len({image,more}) != len({image}). "
        "Sent extra: {more}. Missing but required: {}.",
    )
    assert_fails(
        prediction_stub.Predict,
        predict_request(picture=IMAGE),
        code="INVALID_ARGUMENT",
        message="input tensor alias not found in signature: picture. "
        "Inputs expected to be in the set {image}.",
    )


def test_tensor_that_cannot_be_parsed_is_refused(
    prediction_stub: Any, predict_request: MakeRequest
) -> None:
    request = predict_request(image=IMAGE)
    request.inputs["image"].tensor_content = b"too short"[:3]
    assert_fails(
        prediction_stub.Predict,
        request,
        code="INVALID_ARGUMENT",
        message="tensor parsing error: image",
    )


@pytest.mark.parametrize(
    ("data_type", "values", "mebibytes"),
    [
        (types_pb2.DT_FLOAT, {"float_val": [0.5]}, 2**22),
        (types_pb2.DT_UINT8, {"int_val": [1]}, 2**20),
        (types_pb2.DT_HALF, {"half_val": [1]}, 2**24),
        (types_pb2.DT_STRING, {"string_val": [b"a", b"12345678"]}, 2**25),
    ],
)
def test_small_message_cannot_take_all_memory(
    server: EmbeddedServer,  # TensorFlow Serving repeats the last value until memory ends
    predict_request: MakeRequest,
    data_type: int,
    values: dict[str, Any],
    mebibytes: int,
) -> None:
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    request = predict_request(image=IMAGE)
    request.inputs["image"].CopyFrom(tensor_pb2.TensorProto(dtype=data_type, **values))
    for size in (2**20, 2**20):
        request.inputs["image"].tensor_shape.dim.add(size=size)
    with grpc.insecure_channel(server.target, [("grpc.enable_http_proxy", 0)]) as channel:
        assert_fails(
            prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict,
            request,
            code="INVALID_ARGUMENT",
            message=f"tensor parsing error: image: its shape asks for {mebibytes} MiB; "
            "expected at most 2048",
        )


def test_output_filter_that_cannot_be_met_is_refused(
    prediction_stub: Any, predict_request: MakeRequest
) -> None:
    request = predict_request(image=IMAGE)
    request.output_filter.append("contour")
    assert_fails(
        prediction_stub.Predict,
        request,
        code="INVALID_ARGUMENT",
        message="output tensor alias not found in signature: contour "
        "Outputs expected to be in the set {predicted_mask,probability}.",
    )
    request.output_filter[:] = ["probability", "probability"]
    assert_fails(
        prediction_stub.Predict,
        request,
        code="INVALID_ARGUMENT",
        message="duplicate output tensor alias: probability",
    )


def test_metadata_holds_the_signatures(prediction_stub: Any) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "lung_unet"
    response = prediction_stub.GetModelMetadata(request, timeout=10)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert response.model_spec.version.value == 3
    encoded = signatures.signature_def["encoded"]
    assert list(encoded.inputs) == ["image_bytes"]
    assert list(encoded.outputs) == ["predicted_mask_bytes"]


def test_metadata_without_a_known_field_is_refused(prediction_stub: Any) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    assert_fails(
        prediction_stub.GetModelMetadata,
        request,
        code="INVALID_ARGUMENT",
        message="Missing ModelSpec",
    )
    request.model_spec.name = "lung_unet"
    assert_fails(
        prediction_stub.GetModelMetadata,
        request,
        code="INVALID_ARGUMENT",
        message="GetModelMetadataRequest must specify at least one metadata_field",
    )
    request.metadata_field.append("weights")
    assert_fails(
        prediction_stub.GetModelMetadata,
        request,
        code="INVALID_ARGUMENT",
        message="Metadata field weights is not supported",
    )


def test_status_says_that_the_version_is_available(model_stub: Any) -> None:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "lung_unet"
    (version,) = model_stub.GetModelStatus(request, timeout=10).model_version_status
    assert version.version == 3
    assert version.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE


def test_status_of_what_is_not_served_is_not_found(model_stub: Any) -> None:
    request = get_model_status_pb2.GetModelStatusRequest()
    assert_fails(
        model_stub.GetModelStatus, request, code="INVALID_ARGUMENT", message="Missing ModelSpec"
    )
    request.model_spec.name = "other"
    assert_fails(
        model_stub.GetModelStatus,
        request,
        code="NOT_FOUND",
        message="Could not find any versions of model other",
    )
    request.model_spec.name = "lung_unet"
    request.model_spec.version.value = 2
    assert_fails(
        model_stub.GetModelStatus,
        request,
        code="NOT_FOUND",
        message="Could not find version 2 of model lung_unet",
    )


@pytest.mark.parametrize(
    ("method", "kind", "message"),
    [
        ("Classify", "classification", "No classification inputs found in SignatureDef: "),
        ("Regress", "regression", "Expected one output Tensor."),
    ],
)
def test_requests_with_examples_are_refused_as_for_any_model_without_such_signatures(
    prediction_stub: Any, method: str, kind: str, message: str
) -> None:
    requests = {
        "Classify": classification_pb2.ClassificationRequest(),
        "Regress": regression_pb2.RegressionRequest(),
    }
    call, request = getattr(prediction_stub, method), requests[method]
    assert_fails(call, request, code="INVALID_ARGUMENT", message="Missing ModelSpec")
    request.model_spec.name = "lung_unet"
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=10)
    assert caught.value.code().name == "INVALID_ARGUMENT"
    assert caught.value.details().startswith(message)
    request.model_spec.signature_name = "encoded"
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=10)
    assert caught.value.details().startswith(f"No {kind} inputs found in SignatureDef: inputs {{")
    request.model_spec.signature_name = "other"
    message = "No signature was found with the name: other"
    assert_fails(call, request, code="INVALID_ARGUMENT", message=message)
    request.model_spec.name = "other"
    message = "Servable not found for request: Latest(other)"
    assert_fails(call, request, code="NOT_FOUND", message=message)


def test_several_inferences_are_refused_likewise(prediction_stub: Any) -> None:
    call, request = prediction_stub.MultiInference, inference_pb2.MultiInferenceRequest()
    message = "ModelSpec has no name specified."
    assert_fails(call, request, code="INVALID_ARGUMENT", message=message)
    task = request.tasks.add(method_name="tensorflow/serving/regress")
    task.model_spec.name = "lung_unet"
    message = "Expected one output Tensor."
    assert_fails(call, request, code="INVALID_ARGUMENT", message=message)
    task.method_name = "tensorflow/serving/other"
    message = "Unsupported signature method_name: tensorflow/serving/other"
    assert_fails(call, request, code="UNIMPLEMENTED", message=message)
    task.model_spec.signature_name = "other"
    message = "Requested signature not found in model graph: other"
    assert_fails(call, request, code="INVALID_ARGUMENT", message=message)


def test_request_above_four_mebibytes_is_answered(
    prediction_stub: Any, predict_request: MakeRequest
) -> None:
    request = predict_request(image=np.zeros((1, 2200, 2200, 1), np.uint8))
    request.output_filter.append("predicted_mask")
    with pytest.raises(grpc.RpcError, match="larger than max"):  # the plain stub's own limit
        prediction_stub.Predict(request, timeout=20)
