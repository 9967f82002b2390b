"""What TensorFlow Serving answers to Classify, Regress and MultiInference for models like ours.

Those take ``tf.train.Example`` messages; no model of this project has a signature for them.

Source: tensorflow_serving/servables/tensorflow/classifier.cc, regressor.cc, multi_inference.cc.
"""

from typing import Any, NoReturn

from serving.embedded.answers import spec_of
from serving.embedded.models import ModelStore, ServedModel
from serving.protos import inference_pb2
from serving.status import StatusCode, StatusError, invalid
from trainer.signature import ARRAY_SIGNATURE

_METHOD_PREFIX = "tensorflow/serving/"
_KINDS = {
    "classify": ("classification", 2, "one or two output Tensors, found {}"),
    "regress": ("regression", 1, "one output Tensor."),
}
"""What the signature of a method is called, and how many outputs it may have."""


def refuse(method: str, models: ModelStore, request: Any) -> NoReturn:
    """Answers a ``ClassificationRequest`` or a ``RegressionRequest``.

    Args:
        method: ``classify`` or ``regress``.
        models: what is served.
        request: the message.

    Raises:
        StatusError: always, with TensorFlow Serving's code and text.
    """
    with models.use(spec_of(request)) as model:
        _refuse(method, model, request.model_spec)


def refuse_multi_inference(models: ModelStore, request: Any) -> NoReturn:
    """Answers a ``MultiInferenceRequest``, which asks for several of those two.

    Raises:
        StatusError: always, with TensorFlow Serving's code and text.
    """
    task = request.tasks[0] if request.tasks else inference_pb2.InferenceTask()
    with models.use(task.model_spec) as model:
        name = task.model_spec.signature_name or ARRAY_SIGNATURE.name
        if name not in model.session.signatures:
            raise invalid(f"Requested signature not found in model graph: {name}")
        method = task.method_name.removeprefix(_METHOD_PREFIX)
        if task.method_name.startswith(_METHOD_PREFIX) and method in _KINDS:
            _refuse(method, model, task.model_spec)
        raise StatusError(
            StatusCode.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}"
        )


def _refuse(method: str, model: ServedModel, spec: Any) -> NoReturn:
    kind, max_outputs, expected = _KINDS[method]
    name = spec.signature_name or ARRAY_SIGNATURE.name
    signature = model.session.signatures.get(name)
    if signature is None:
        raise invalid(f"No signature was found with the name: {name}")
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) > max_outputs:
        raise invalid(f"Expected {expected.format(len(signature.outputs))}")
    if "inputs" not in signature.inputs:
        raise invalid(f"No {kind} inputs found in SignatureDef: {signature}")
    raise StatusError(
        StatusCode.UNIMPLEMENTED, f"the embedded server runs no {kind}; TensorFlow Serving does"
    )
