"""Where a served model is, how it is reached, and what its refusals mean to people."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
import numpy.typing as npt

from serving import codec
from serving.config import DEFAULT_TIMEOUT_S, CallConfig, check_model_choice, check_target
from serving.errors import (
    CallError,
    DeadlineExceededError,
    InputError,
    MessageTooLargeError,
    ModelNotFoundError,
    RefusedInputError,
    ServerUnavailableError,
    SignatureError,
    UnexpectedAnswerError,
)
from trainer.signature import DEFAULT_MODEL_NAME, ENCODED_SIGNATURE

PREDICT = "/tensorflow.serving.PredictionService/Predict"

MAX_MESSAGE_BYTES = 256 * 2**20
"""gRPC's own limit of 4 MiB is below one answer of 1024x1024 probabilities."""

KEEPALIVE_MS = 300_000
"""Servers close a connection that pings more often than once in five minutes, unless told."""

KEEPALIVE_TIMEOUT_MS = 20_000

_SERVICE_CONFIG = {
    # Spreads the calls over all addresses of the target and goes around a server that died.
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "tensorflow.serving.PredictionService"}],
            # A prediction changes nothing on the server, so it may be asked for again.
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
_WRONG_INPUTS = (
    "input size does not match signature",
    "input tensor alias not found in signature",
    "output tensor alias not found in signature",
    "Expects arg[",
)
"""How TensorFlow Serving begins when the signature takes something else, whatever the slice."""
_QUEUE_IS_FULL = "batch scheduling queue"
"""What a server that batches says when too many requests wait; it is there."""
_OUT_OF_MEMORY = "OOM when"


@dataclass(frozen=True, kw_only=True)
class Tls:
    """TLS: how a server proves who it is, and perhaps the client; files hold PEM."""

    ca: Path | None = None
    """Certificates of the authorities to trust; None: those that gRPC brings."""

    certificate: Path | None = None
    """Certificates of the client, for servers that ask who calls."""

    key: Path | None = None
    """Its private key."""

    server_name: str | None = None
    """Name in the server's certificate, where that is not the host of the target."""


@dataclass(frozen=True)
class Endpoint:
    """One model on one target.

    A call that finds no server is repeated a few times within its deadline. The target is dialed
    directly, never through an HTTP proxy of the environment.
    """

    target: str
    """HOST:PORT of a TensorFlow Serving gRPC endpoint, or ``unix:PATH``. Of a name with several
    addresses, such as a headless Service, all are called in turn."""

    model_name: str = DEFAULT_MODEL_NAME
    """As the server serves it."""

    model_version: int | None = None
    """Version to ask for; None and no label: the latest."""

    model_label: str | None = None
    """Label of the version to ask for, instead of its number."""

    timeout_s: float = DEFAULT_TIMEOUT_S
    """Deadline of each call in seconds, retries included."""

    wait_for_ready: bool = False
    """Whether a call waits, up to its deadline, for a server that is not there yet."""

    tls: Tls | None = None
    """How the server is to prove who it is, and perhaps the client; None: no TLS."""

    max_message_bytes: int = MAX_MESSAGE_BYTES
    """Limit on a request and on an answer."""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: if the target is not HOST:PORT, or version and label are both given.
        """
        check_target(self.target)
        check_model_choice(self.model_version, self.model_label)

    @classmethod
    def of(cls, config: CallConfig) -> Self:
        """Gives the endpoint that the flags of a command describe."""
        tls = Tls(
            ca=config.tls_ca,
            certificate=config.tls_certificate,
            key=config.tls_key,
            server_name=config.tls_server_name,
        )
        return cls(
            config.target,
            model_name=config.model_name,
            model_version=config.model_version,
            model_label=config.model_label,
            timeout_s=config.timeout_s,
            wait_for_ready=config.wait_for_ready,
            tls=tls if config.tls or tls != Tls() else None,
        )

    @property
    def channel_options(self) -> list[tuple[str, Any]]:
        """Options of the channel."""
        options: list[tuple[str, Any]] = [
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            # gRPC silently does not retry a request above this, by default 256 KiB: just
            # below a slice of 512x512 with its header.
            ("grpc.per_rpc_retry_buffer_size", self.max_message_bytes),
            # A server whose machine is gone says nothing: ask, while a call is under way.
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.enable_http_proxy", 0),
            ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        ]
        if self.tls and self.tls.server_name:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Reads the files of TLS; None without TLS.

        Raises:
            InputError: if one cannot be read.
        """
        if self.tls is None:
            return None
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.tls.ca, "--tls-ca"),
            private_key=_read(self.tls.key, "--tls-key"),
            certificate_chain=_read(self.tls.certificate, "--tls-certificate"),
        )

    def array_request(self, images: npt.NDArray[np.uint8], output_key: str) -> Any:
        """Gives the request for the pixels of slices of one size: ``codec.array_request``."""
        return codec.array_request(
            images,
            model_name=self.model_name,
            model_version=self.model_version,
            model_label=self.model_label,
            output_key=output_key,
        )

    def encoded_request(self, data: bytes) -> Any:
        """Gives the request for one PNG or BMP file: ``codec.encoded_request``."""
        return codec.encoded_request(
            data,
            model_name=self.model_name,
            model_version=self.model_version,
            model_label=self.model_label,
        )

    def call_error(self, error: grpc.RpcError, signature_name: str) -> CallError:
        """Gives the exception for a status code, with the mend in its message.

        Args:
            error: what the call ended with.
            signature_name: that was asked for.
        """
        code, details = error.code(), _for_people(error.details() or "")
        model = self.model_name
        if self.model_version is not None:
            model += f" version {self.model_version}"
        elif self.model_label is not None:
            model += f" with a version labeled {self.model_label}"
        kind: type[CallError] = UnexpectedAnswerError
        message = f"{self.target} failed with {code.name}: {details}; see the server's log"
        if _QUEUE_IS_FULL in details:
            message = (
                f"{self.target} has too many slices waiting ({details}); give a smaller --window, "
                "or the server a larger max_enqueued_batches"
            )
        elif code is grpc.StatusCode.UNAVAILABLE:
            kind = ServerUnavailableError
            message = self._nobody_answers(details)
        elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
            kind = DeadlineExceededError
            message = (
                f"{self.target} gave no answer within {self.timeout_s:g} s; "
                "give it longer with --timeout-s, or check its load"
            )
            if self.wait_for_ready:
                message += "; with --wait-for-ready, that it is there at all"
        elif code is grpc.StatusCode.NOT_FOUND or details.startswith(_UNKNOWN_LABEL):
            kind = ModelNotFoundError
            message = (
                f"{self.target} serves no model {model} ({details}); check --model-name, "
                "--model-version and --model-label against what the server printed"
            )
        elif details.startswith(_BATCH_OF_SIZES):
            message = (
                f"{self.target} batches slices of different sizes, which cannot be ({details}); "
                "start it without --enable_batching, or use --signature encoded"
            )
        elif code is grpc.StatusCode.FAILED_PRECONDITION or details.startswith(_WRONG_INPUTS):
            kind = SignatureError
            message = (
                f"model {model} at {self.target} has no signature {signature_name} of this "
                f"project ({details}); serve a model that `python -m trainer export` wrote"
            )
        elif code is grpc.StatusCode.INVALID_ARGUMENT:
            kind = RefusedInputError
            message = f"{self.target} refuses it: {details}"
            if signature_name == ENCODED_SIGNATURE.name:
                message += "; --signature serving_default leaves the decoding to the client"
        elif code is grpc.StatusCode.RESOURCE_EXHAUSTED and _OUT_OF_MEMORY not in details:
            kind = MessageTooLargeError
            message = f"a message limit was passed: {details}"
        elif code is grpc.StatusCode.UNIMPLEMENTED:
            message = (
                f"{self.target} answers gRPC but is no TensorFlow Serving ({details}); "
                "check --target"
            )
        return kind(message, code=code.name, details=error.details() or "")

    def _nobody_answers(self, details: str) -> str:
        for sign, reason in _TLS_REASONS.items():
            if sign in details:
                return f"no TLS with {self.target}: {reason} ({_last_part(details)})"
        if _HUNG_UP in details:
            hint = (
                "does it ask who calls (--tls-certificate, --tls-key)?"
                if self.tls
                else "does it expect TLS (--tls), or is it the REST port?"
            )
            return f"{self.target} hung up ({_last_part(details)}); {hint}"
        return (
            f"no server answers at {self.target} ({_last_part(details)}); start one with "
            "`make serve MODEL=DIR`, or give the gRPC address of yours with --target HOST:PORT"
        )


_TLS_REASONS = {
    "certificate has expired": "the server's certificate has expired; renew it",
    "CERTIFICATE_VERIFY_FAILED": (
        "the server's certificate is not signed by an authority that is trusted here; give the "
        "authority's with --tls-ca FILE"
    ),
    "Hostname Verification": (
        "the server's certificate is of another name; give that with --tls-server-name NAME"
    ),
    "WRONG_VERSION_NUMBER": "the server speaks without TLS; leave --tls away",
    "Failed to create security handshaker": (
        "a file of --tls-ca, --tls-certificate or --tls-key holds no PEM of its kind"
    ),
}
"""What to say where gRPC's report of a failed connection holds these words, in this order."""

_HUNG_UP = "Socket closed"
_BATCH_OF_SIZES = "Tensors with name"
"""How TensorFlow Serving begins where requests of other sizes wait together in a batch."""

_UNKNOWN_LABEL = "Unrecognized servable version label"


_ASSERTION = re.compile(r"^assertion failed: \[([^]]*)\]")
"""How TensorFlow words a check of the exported graph: ``trainer.guards``."""


def _read(path: Path | None, flag: str) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{flag} {path} cannot be read: {error.strerror}; expected PEM") from error


def _for_people(details: str) -> str:
    """Gives one line, without the brackets and names of graph nodes that TensorFlow adds."""
    line = " ".join(details.partition("[[{{")[0].split())
    return _ASSERTION.sub(r"\1", line)


def _last_part(details: str) -> str:
    """Gives the cause at the end of gRPC's chain of reports: ``Connection refused (111)``."""
    return details.rsplit(": ", 1)[-1].rstrip("]") if details else "gRPC gives no reason"
