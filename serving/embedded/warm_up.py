"""Plays the requests that a model brings with it, so that the first real one is not slow.

Source: tensorflow_serving/servables/tensorflow/saved_model_warmup_util.cc;
https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError

from serving.embedded import answers
from serving.embedded.models import ServedModel
from serving.protos import prediction_log_pb2
from serving.status import StatusCode, StatusError, invalid

FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_RECORDS = 1000

_HEADER = struct.Struct("<QI")
_CHECKSUM_BYTES = 4


def warm_up(model: ServedModel) -> None:
    """Plays the warm-up requests of a version, if it has some.

    Args:
        model: what is to be served.

    Raises:
        StatusError: if one of them fails; then the version is not served.
    """
    path = model.folder / FILE
    if not path.is_file():
        return
    for index, record in enumerate(_records(path)):
        if index == MAX_RECORDS:
            raise invalid(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}")
        try:
            log = prediction_log_pb2.PredictionLog.FromString(record)
        except DecodeError as error:
            raise invalid(f"Failed to parse warmup record: {index} from {path}") from error
        kind = log.WhichOneof("log_type")
        if kind != "predict_log":
            raise StatusError(StatusCode.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
        try:
            answers.run(model, log.predict_log.request)
        except StatusError as error:
            message = f"warmup record {index} of {path}: {error.message}"
            raise StatusError(error.code, message) from error


def _records(path: Path) -> Iterator[bytes]:
    """Reads a TFRecord file: length, its checksum, content, its checksum."""
    with path.open("rb") as file:
        while header := file.read(_HEADER.size):
            is_whole = len(header) == _HEADER.size
            length = _HEADER.unpack(header)[0] if is_whole else 0
            content = file.read(length + _CHECKSUM_BYTES) if length < 2**31 else b""
            if not is_whole or len(content) < length + _CHECKSUM_BYTES:
                raise StatusError(StatusCode.OUT_OF_RANGE, f"{path} ends within a record")
            yield content[:length]
