"""The status that a call ended with: codes of gRPC, which TensorFlow counts alike."""

from grpc import StatusCode

__all__ = ["StatusCode", "StatusError", "code_of", "invalid"]

_BY_NUMBER = {code.value[0]: code for code in StatusCode}


class StatusError(Exception):
    """A call ended with another status than OK.

    Attributes:
        code: why, in one word.
        message: the text of TensorFlow or TensorFlow Serving.
    """

    def __init__(self, code: StatusCode, message: str) -> None:
        """Keeps both for the one who answers."""
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def number(self) -> int:
        """The code as it stands in a message."""
        return int(self.code.value[0])


def invalid(message: str) -> StatusError:
    """Makes the error of a request that asks for what cannot be."""
    return StatusError(StatusCode.INVALID_ARGUMENT, message)


def code_of(number: int) -> StatusCode:
    """Gives the code that TensorFlow's number stands for.

    Raises:
        KeyError: if there is none.
    """
    return _BY_NUMBER[number]
