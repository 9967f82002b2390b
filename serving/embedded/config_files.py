"""Configuration files of ``tensorflow_model_server``: protocol buffers as text.

Source: tensorflow_serving/config/model_server_config.proto;
https://www.tensorflow.org/tfx/serving/serving_config
"""

from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, message_factory, text_format

from serving.config import ServeConfig
from serving.embedded.metrics import DEFAULT_PATH
from serving.errors import ConfigFileError
from serving.protos import model_server_config_pb2

_PLATFORM = "tensorflow"
_PROTO = """
name: "lung_ct/server_config.proto" package: "tensorflow.serving" syntax: "proto3"
message_type { name: "SSLConfig"
  field { name: "server_key" number: 1 type: TYPE_STRING }
  field { name: "server_cert" number: 2 type: TYPE_STRING }
  field { name: "custom_ca" number: 3 type: TYPE_STRING }
  field { name: "client_verify" number: 4 type: TYPE_BOOL } }
message_type { name: "PrometheusConfig"
  field { name: "enable" number: 1 type: TYPE_BOOL }
  field { name: "path" number: 2 type: TYPE_STRING } }
message_type { name: "MonitoringConfig"
  field { name: "prometheus_config" number: 1 type: TYPE_MESSAGE
          type_name: ".tensorflow.serving.PrometheusConfig" } }
"""
"""Two messages of tensorflow_serving/config that tensorflow-serving-api leaves out."""
# In a pool of their own: another package may have them in the common one.
_MESSAGES = message_factory.GetMessages(
    [text_format.Parse(_PROTO, descriptor_pb2.FileDescriptorProto())]
)


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


def server_credentials(path: Path) -> grpc.ServerCredentials:
    """Gives the key, the certificate and the authority of clients that an ``SSLConfig`` has.

    Raises:
        ConfigFileError: if it cannot be read, or has no key and certificate.
    """
    config = _read(path, _MESSAGES["tensorflow.serving.SSLConfig"]())
    needed = {"server_key": config.server_key, "server_cert": config.server_cert}
    if config.client_verify:
        needed["custom_ca"] = config.custom_ca
    for name, text in needed.items():
        if "-----BEGIN " not in text:
            raise ConfigFileError(
                f"{path} has {name} {text!r}; expected its PEM text, lines parted by \\n, and "
                "not the name of a file"
            )
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )


def metrics_path(path: Path | None) -> str:
    """Gives the path of the metrics that a ``MonitoringConfig`` asks for; empty for none.

    Raises:
        ConfigFileError: if it cannot be read.
    """
    if path is None:
        return ""
    prometheus = _read(path, _MESSAGES["tensorflow.serving.MonitoringConfig"]()).prometheus_config
    return (prometheus.path or DEFAULT_PATH) if prometheus.enable else ""


def _read(path: Path, message: Any) -> Any:
    """Reads a protocol buffer as text."""
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), message)
    except OSError as error:
        raise ConfigFileError(f"{path} cannot be read: {error.strerror}") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        kind = message.DESCRIPTOR.name
        raise ConfigFileError(f"{path} is no {kind} as text, at line and column {error}") from error
