"""What TensorFlow Serving answers to a request; no network, so gRPC and REST share it.

Codes and texts are TensorFlow Serving's own, so that a client that reads them finds the same here.

Source: tensorflow_serving/servables/tensorflow/predict_util.cc, get_model_metadata_impl.cc and
model_servers/get_model_status_impl.cc, server_core.cc.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from serving import tensors
from serving.embedded.models import ModelStore, ServedModel
from serving.engine import TensorParseError
from serving.protos import get_model_metadata_pb2, model_management_pb2, predict_pb2
from serving.status import StatusCode, StatusError, invalid
from trainer.signature import ARRAY_SIGNATURE

MAX_TENSOR_BYTES = 2**31
"""The largest message: no array that is sent whole is larger."""

_SIGNATURE_DEF = "signature_def"


def predict(models: ModelStore, request: Any, *, timeout_ms: int = 0) -> Any:
    """Answers a ``PredictRequest``.

    Args:
        models: what is served.
        request: the message.
        timeout_ms: what is left of the caller's deadline; 0 is no limit.

    Returns:
        A ``PredictResponse`` with typed fields.

    Raises:
        StatusError: with TensorFlow Serving's code and text.
    """
    with models.use(spec_of(request)) as model:
        outputs = run(model, request, timeout_ms=timeout_ms)
    response = predict_pb2.PredictResponse()
    response.model_spec.name = model.name
    response.model_spec.version.value = model.version
    response.model_spec.signature_name = request.model_spec.signature_name or ARRAY_SIGNATURE.name
    for key, array in outputs.items():
        response.outputs[key].ParseFromString(tensors.write_typed(array))
    return response


def run(model: ServedModel, request: Any, *, timeout_ms: int = 0) -> dict[str, tensors.Array]:
    """Runs what a ``PredictRequest`` asks for.

    Args:
        model: what runs it.
        request: the message.
        timeout_ms: what is left of the caller's deadline; 0 is no limit.

    Returns:
        An array for each output that was asked for, by its key.

    Raises:
        StatusError: with TensorFlow Serving's code and text.
    """
    name = request.model_spec.signature_name or ARRAY_SIGNATURE.name
    signature = model.session.signatures.get(name)
    if signature is None:
        raise StatusError(
            StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.'
        )
    _check_inputs(signature, request.inputs)
    for key, proto in request.inputs.items():
        _check_size(key, proto)
    feeds = {
        signature.inputs[key].name: proto.SerializeToString()
        for key, proto in request.inputs.items()
    }
    keys = _output_keys(signature, request.output_filter)
    try:
        arrays = model.session.run(
            feeds, [signature.outputs[key].name for key in keys], timeout_ms=timeout_ms
        )
    except TensorParseError as error:
        alias = next(k for k, info in signature.inputs.items() if info.name == error.tensor_name)
        raise invalid(f"tensor parsing error: {alias}") from error
    return dict(zip(keys, arrays, strict=True))


def reload(models: ModelStore, request: Any) -> Any:
    """Answers a ``ReloadConfigRequest``: serves what it says, and nothing else.

    Raises:
        StatusError: with TensorFlow Serving's code and text.
    """
    if request.config.WhichOneof("config") != "model_config_list":
        raise invalid(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
            "ModelConfigList is currently supported"
        )
    models.reload(request.config.model_config_list.config)
    response = model_management_pb2.ReloadConfigResponse()
    response.status.SetInParent()  # OK
    return response


def spec_of(request: Any) -> Any:
    """Gives the ``ModelSpec`` of a request.

    Raises:
        StatusError: if it has none.
    """
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    return request.model_spec


def input_infos(model: ServedModel, signature_name: str) -> Mapping[str, Any]:
    """Gives the ``TensorInfo`` of each input of a signature; without a name, of the default.

    Raises:
        StatusError: with the code and text that TensorFlow Serving's REST API answers.
    """
    name = signature_name or ARRAY_SIGNATURE.name
    signature = model.session.signatures.get(name)
    if signature is None:
        raise invalid(f'Serving signature name: "{name}" not found in signature def')
    return signature.inputs


def metadata(models: ModelStore, request: Any) -> Any:
    """Answers a ``GetModelMetadataRequest`` with the signatures.

    Raises:
        StatusError: with TensorFlow Serving's code and text.
    """
    spec = spec_of(request)
    if not request.metadata_field:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != _SIGNATURE_DEF:
            raise invalid(f"Metadata field {field} is not supported")
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    with models.use(spec) as model:
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=model.session.signatures)
        response.model_spec.name = model.name
        response.model_spec.version.value = model.version
    response.metadata[_SIGNATURE_DEF].Pack(signatures)
    return response


def _check_inputs(signature: Any, inputs: Iterable[str]) -> None:
    sent, expected = set(inputs), set(signature.inputs)
    if len(sent) != len(expected):
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(expected)} "
            f"len({_set(sent)}) != len({_set(expected)}). "
            f"Sent extra: {_set(sent - expected)}. "
            f"Missing but required: {_set(expected - sent)}."
        )
    for key in sorted(sent - expected):
        raise invalid(
            f"input tensor alias not found in signature: {key}. "
            f"Inputs expected to be in the set {_set(expected)}."
        )


def _check_size(key: str, proto: Any) -> None:
    """Refuses what TensorFlow would take all memory for, or wait ten seconds for it (oneDNN)."""
    num_bytes = tensors.num_bytes(proto)
    if num_bytes > MAX_TENSOR_BYTES:
        raise invalid(
            f"tensor parsing error: {key}: its shape asks for {num_bytes / 2**20:.0f} MiB; "
            f"expected at most {MAX_TENSOR_BYTES // 2**20}"
        )


def _output_keys(signature: Any, output_filter: Iterable[str]) -> list[str]:
    keys: list[str] = []
    for key in output_filter:
        if key not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {key} "
                f"Outputs expected to be in the set {_set(signature.outputs)}."
            )
        if key in keys:
            raise invalid(f"duplicate output tensor alias: {key}")
        keys.append(key)
    return keys or sorted(signature.outputs)


def _set(keys: Iterable[str]) -> str:
    return "{" + ",".join(sorted(keys)) + "}"
