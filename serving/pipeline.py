"""Work on many items at the same time, with results in order and few items in memory."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], *, window: int
) -> Generator[Result, None, None]:
    """Calls a function on items, several at the same time, on threads.

    Args:
        function: may be called by several threads at once.
        items: taken as results are taken, at most ``window`` ahead.
        window: calls that are under way or waiting to be taken, at most.

    Yields:
        What it gives for each, in the order of the items.

    Raises:
        ValueError: if the window is below 1.
        Exception: what the function raises, in the place of its result. Items that were not begun
            are left out; this waits for those that were, but not when it is interrupted: who
            interrupts has to end them.
    """
    if window < 1:
        raise ValueError(f"window is {window}; expected 1 or more")
    return _in_order(function, items, window)


def _in_order(
    function: Callable[[Item], Result], items: Iterable[Item], window: int
) -> Generator[Result, None, None]:
    under_way: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(window)
    waits = True
    try:
        for item in items:
            under_way.append(pool.submit(function, item))
            if len(under_way) == window:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    except KeyboardInterrupt:
        waits = False
        raise
    finally:
        pool.shutdown(wait=waits, cancel_futures=True)
