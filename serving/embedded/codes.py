"""Status codes as gRPC and TensorFlow number them, and the error that carries one."""

import grpc

OK = 0
CANCELLED = 1
UNKNOWN = 2
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5
RESOURCE_EXHAUSTED = 8
FAILED_PRECONDITION = 9
OUT_OF_RANGE = 11
UNIMPLEMENTED = 12
UNAVAILABLE = 14

STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}
"""All of them, as gRPC's Python has them."""


class RequestError(Exception):
    """A request that is answered with an error.

    Attributes:
        code: number of the status code.
        message: TensorFlow Serving's text.
    """

    def __init__(self, code: int, message: str) -> None:
        """Keeps both for the transport."""
        super().__init__(message)
        self.code = code
        self.message = message
