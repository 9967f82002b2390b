"""Configuration files of ``tensorflow_model_server``: protocol buffers as text.

Source: tensorflow_serving/config/model_server_config.proto;
https://www.tensorflow.org/tfx/serving/serving_config
"""

from pathlib import Path
from typing import Any

from google.protobuf import text_format

from serving.config import ServeConfig
from serving.errors import ConfigFileError
from serving.protos import model_server_config_pb2

_PLATFORM = "tensorflow"


def model_configs(config: ServeConfig) -> list[Any]:
    """Gives the ``ModelConfig`` of each model that is to be served.

    Raises:
        ConfigFileError: if there is a file of them that cannot be read.
    """
    if config.model_config_file is None:
        # Absolute, as TensorFlow Serving insists on.
        base_path = str(Path(config.model_base_path or "").absolute())
        return [
            model_server_config_pb2.ModelConfig(
                name=config.model_name, base_path=base_path, model_platform=_PLATFORM
            )
        ]
    path = config.model_config_file
    message = _read(path, model_server_config_pb2.ModelServerConfig())
    configs = list(message.model_config_list.config)
    if not configs:
        raise ConfigFileError(
            f'{path} names no model; expected model_config_list {{ config {{ name: "lung_unet" '
            f'base_path: "/models/lung_unet" model_platform: "{_PLATFORM}" }} }}'
        )
    return configs


def _read(path: Path, message: Any) -> Any:
    """Reads a protocol buffer as text."""
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), message)
    except OSError as error:
        raise ConfigFileError(f"{path} cannot be read: {error.strerror}") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        kind = message.DESCRIPTOR.name
        raise ConfigFileError(f"{path} is no {kind} as text, at line and column {error}") from error
