"""Everything that this package raises on purpose.

::

    ServingError
    ├── InputError                  there is nothing to predict on, or nowhere to write
    ├── StageFailedError            a stage of the demo has failed
    ├── JobFailedError              a part of a bulk job has no results
    ├── StartError                  the embedded server cannot start
    │   ├── NoModelError            no such folder, or no numbered version in it
    │   ├── BrokenModelError        TensorFlow cannot load the SavedModel
    │   ├── ConfigFileError         a configuration file cannot be read or followed
    │   └── ListenError             the port is taken, or the address is not ours
    └── CallError                   a call ended without an answer that can be used
        ├── ServerUnavailableError  nobody answers at the target
        ├── ModelNotFoundError      the server has no such model or version
        ├── SignatureError          the model has no such signature, or it takes other inputs
        ├── DeadlineExceededError   the answer did not come in time
        ├── RefusedInputError       the server refuses this slice
        ├── MessageTooLargeError    the slice or its answer is above a message limit
        └── UnexpectedAnswerError   the server failed, or gave something that is no mask

The message of each says what happened, where, and how to mend it, in one line.
"""


class ServingError(Exception):
    """Base of all errors of this package."""


class InputError(ServingError):
    """There is nothing to predict on, or nowhere to write."""


class StageFailedError(ServingError):
    """A stage of the demo has failed; it has said why itself."""


class JobFailedError(ServingError):
    """A part of a bulk job has no results; the others are there."""


class StartError(ServingError):
    """The embedded server cannot start."""


class NoModelError(StartError):
    """There is no such folder, or it holds no numbered version."""


class BrokenModelError(StartError):
    """TensorFlow cannot load the SavedModel."""


class ConfigFileError(StartError):
    """A configuration file of the embedded server cannot be read, or not be followed."""


class ListenError(StartError):
    """The port is taken, or the address is not one of this computer."""


class CallError(ServingError):
    """A call ended without an answer that can be used.

    Attributes:
        code: name of the gRPC status code, such as ``NOT_FOUND``; empty if the server answered.
        details: what the server or gRPC said, whole.
    """

    def __init__(self, message: str, *, code: str = "", details: str = "") -> None:
        """Keeps the message for people, and the code and details for programs."""
        super().__init__(message)
        self.code = code
        self.details = details


class ServerUnavailableError(CallError):
    """Nobody answers at the target."""


class ModelNotFoundError(CallError):
    """The server has no such model or version."""


class SignatureError(CallError):
    """The model has no such signature, or the signature takes other inputs."""


class DeadlineExceededError(CallError):
    """The answer did not come in time."""


class RefusedInputError(CallError):
    """The server refuses this slice."""


class MessageTooLargeError(CallError):
    """The slice or its answer is above a message limit."""


class UnexpectedAnswerError(CallError):
    """The server failed, or it gave something that is no mask."""
