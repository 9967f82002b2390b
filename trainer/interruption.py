"""How a training is stopped from outside: in order, with its state saved. Standard library only."""

import signal
from types import FrameType, TracebackType
from typing import Self

EXIT_RETRY = 75
"""Exit code of a run that was told to stop, or lost its peers, and goes on when it is started
again: ``EX_TEMPFAIL`` of sysexits.h. A Kubernetes Job can treat it as a reason to retry."""

EXIT_CTRL_C = 130
"""Exit code of a run that somebody stopped at the keyboard, as shells have it."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


class WorkerLostError(Exception):
    """Another worker of the training is gone."""


def raise_terminated(signal_number: int, frame: FrameType | None) -> None:
    """Ends what is under way; a handler for SIGTERM while nothing is to be saved yet.

    Raises:
        Terminated: always.
    """
    raise Terminated


class Interruption:
    """Notes SIGTERM and Ctrl-C while a block runs, so that a step is finished and saved first.

    A second signal ends the block at once.
    """

    def __init__(self) -> None:
        """Notes nothing yet."""
        self._received: int | None = None

    def __enter__(self) -> Self:
        """Takes the place of the handlers before it."""
        self._earlier = {
            number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Puts the handlers before it back."""
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    @property
    def is_requested(self) -> bool:
        """Whether the block is to end."""
        return self._received is not None

    def exception(self) -> KeyboardInterrupt:
        """Gives what to raise once all is saved."""
        # Without a signal of its own, this worker stops because another was told to.
        return KeyboardInterrupt() if self._received == signal.SIGINT else Terminated()

    def _note(self, signal_number: int, frame: FrameType | None) -> None:
        if self._received is not None:
            raise KeyboardInterrupt if signal_number == signal.SIGINT else Terminated
        self._received = signal_number
