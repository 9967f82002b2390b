"""Requests that a server plays before it serves a version, so that the first real one is not slow.

TensorFlow builds kernels, picks algorithms and grows its memory for each signature and batch size
when it first sees them. The pictures are a ramp of gray: no patient travels with a model.

Source: https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from preprocessing.publish import whole_file
from trainer.signature import IMAGE_BYTES, SCALED_IMAGE, SIGNATURES, Signature

PATH = Path("assets.extra") / "tf_serving_warmup_requests"
"""Below the folder of a version; TensorFlow Serving looks there."""

_SIDE_PX = 64
"""The graph scales slices to the size of the model first, so small ones do."""


def write_warm_up_requests(saved_dir: Path, batch_sizes: Sequence[int]) -> None:
    """Writes a request for each signature and batch size, and for each output alone.

    A session prepares itself anew for each set of outputs that is asked for, which takes longer
    than a slice; clients ask for one output.

    Args:
        saved_dir: folder of a SavedModel with the signatures of the contract.
        batch_sizes: numbers of slices in a request.

    Raises:
        OSError: if the file cannot be written.
    """
    ramp = np.tile(np.arange(_SIDE_PX, dtype=np.uint8) * 4, (_SIDE_PX, 1))[..., np.newaxis]
    with whole_file(saved_dir / PATH) as aside, tf.io.TFRecordWriter(str(aside)) as writer:
        for signature in SIGNATURES:
            for batch_size in batch_sizes:
                writer.write(_record(signature, ramp, batch_size))
            for output in signature.outputs if len(signature.outputs) > 1 else ():
                writer.write(_record(signature, ramp, min(batch_sizes), output.key))


def _record(signature: Signature, image: np.ndarray, batch_size: int, *outputs: str) -> bytes:
    request = predict_pb2.PredictRequest(output_filter=outputs)
    request.model_spec.signature_name = signature.name
    (contract,) = signature.inputs
    request.inputs[contract.key].CopyFrom(_batch(contract.key, contract.dtype, image, batch_size))
    log = prediction_log_pb2.PredictLog(request=request)
    return bytes(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())


def _batch(key: str, dtype: str, image: np.ndarray, batch_size: int) -> Any:
    if key == IMAGE_BYTES.key:
        return tf.make_tensor_proto([tf.io.encode_png(image).numpy()] * batch_size)
    images = np.repeat(image[np.newaxis], batch_size, axis=0)
    if dtype == SCALED_IMAGE.dtype:
        images = images / np.float32(255)
    return tf.make_tensor_proto(images)
