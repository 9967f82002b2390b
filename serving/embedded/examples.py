"""What TensorFlow Serving answers to Classify, Regress and MultiInference for models like ours.

Those take ``tf.train.Example`` messages; no model of this project has a signature for them.

Source: tensorflow_serving/servables/tensorflow/classifier.cc, regressor.cc, multi_inference.cc.
"""

from dataclasses import dataclass
from typing import Any, NoReturn

from serving.embedded import codes
from serving.embedded.answers import spec_of
from serving.embedded.codes import RequestError
from serving.embedded.models import ModelStore, ServedModel
from serving.protos import inference_pb2
from trainer.signature import ARRAY_SIGNATURE


@dataclass(frozen=True, kw_only=True)
class _ExampleSignature:
    """A kind of signature that takes ``tf.train.Example`` messages."""

    name: str
    method_name: str
    max_outputs: int
    expected_outputs: str


_CLASSIFICATION = _ExampleSignature(
    name="classification",
    method_name="tensorflow/serving/classify",
    max_outputs=2,
    expected_outputs="one or two output Tensors",
)
_REGRESSION = _ExampleSignature(
    name="regression",
    method_name="tensorflow/serving/regress",
    max_outputs=1,
    expected_outputs="one output Tensor.",
)


def classify(models: ModelStore, request: Any) -> NoReturn:
    """Answers a ``ClassificationRequest``: no model of this project has such a signature.

    Raises:
        RequestError: always, with TensorFlow Serving's code and text.
    """
    with models.use(spec_of(request)) as model:
        _refuse_examples(model, request.model_spec, _CLASSIFICATION)


def regress(models: ModelStore, request: Any) -> NoReturn:
    """Answers a ``RegressionRequest``: no model of this project has such a signature.

    Raises:
        RequestError: always, with TensorFlow Serving's code and text.
    """
    with models.use(spec_of(request)) as model:
        _refuse_examples(model, request.model_spec, _REGRESSION)


def multi_inference(models: ModelStore, request: Any) -> NoReturn:
    """Answers a ``MultiInferenceRequest``, which asks for several of those two.

    Raises:
        RequestError: always, with TensorFlow Serving's code and text.
    """
    task = request.tasks[0] if request.tasks else inference_pb2.InferenceTask()
    with models.use(task.model_spec) as model:
        name = task.model_spec.signature_name or ARRAY_SIGNATURE.name
        if name not in model.session.signatures:
            raise RequestError(
                codes.INVALID_ARGUMENT, f"Requested signature not found in model graph: {name}"
            )
        for kind in (_CLASSIFICATION, _REGRESSION):
            if task.method_name == kind.method_name:
                _refuse_examples(model, task.model_spec, kind)
        raise RequestError(
            codes.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}"
        )


def _refuse_examples(model: ServedModel, spec: Any, kind: _ExampleSignature) -> NoReturn:
    name = spec.signature_name or ARRAY_SIGNATURE.name
    signature = model.session.signatures.get(name)
    code = codes.INVALID_ARGUMENT
    if signature is None:
        message = f"No signature was found with the name: {name}"
    elif len(signature.inputs) != 1:
        message = "Expected one input Tensor."
    elif len(signature.outputs) > kind.max_outputs:
        found = f", found {len(signature.outputs)}" if kind is _CLASSIFICATION else ""
        message = f"Expected {kind.expected_outputs}{found}"
    elif "inputs" not in signature.inputs:
        message = f"No {kind.name} inputs found in SignatureDef: {signature}"
    else:
        code = codes.UNIMPLEMENTED
        message = f"the embedded server runs no {kind.name}; TensorFlow Serving does"
    raise RequestError(code, message)
