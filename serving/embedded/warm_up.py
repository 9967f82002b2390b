"""Plays the requests that a model brings with it, so that the first real one is not slow.

Source: tensorflow_serving/servables/tensorflow/saved_model_warmup_util.cc;
https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

from pathlib import Path

from google.protobuf.message import DecodeError

from preprocessing.framing import DamagedShardError, read_records
from serving.embedded import answers
from serving.embedded.models import ServedModel
from serving.protos import prediction_log_pb2
from serving.status import StatusCode, StatusError, invalid

FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_RECORDS = 1000


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
    try:
        _play(model, path)
    except DamagedShardError as error:
        raise StatusError(StatusCode.DATA_LOSS, f"{path} is damaged or truncated") from error


def _play(model: ServedModel, path: Path) -> None:
    for index, record in enumerate(read_records(path)):
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
