import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from serving.pipeline import in_order


def test_results_come_in_the_order_of_the_items() -> None:
    later = threading.Event()

    def first_is_slow(item: int) -> int:
        if item == 0:
            assert later.wait(20)
        elif item == 2:
            later.set()
        return item

    assert list(in_order(first_is_slow, range(20), window=3)) == list(range(20))


def test_no_more_items_are_taken_than_fit_into_the_window() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = in_order(abs, items(), window=4)
    for number in range(10):
        assert next(results) == number
        assert len(taken) == number + 4
    results.close()
    assert len(taken) == 13


def test_failure_stands_in_its_place_and_ends_the_work() -> None:
    begun: list[int] = []

    def fail_at_five(item: int) -> int:
        begun.append(item)
        return 1 // (item - 5)

    results = in_order(fail_at_five, range(1000), window=2)
    assert [next(results) for _ in range(5)] == [1 // (item - 5) for item in range(5)]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert len(begun) <= 7
    with pytest.raises(StopIteration):
        next(results)


# In a process of its own: not every runner of tests lets a signal through.
INTERRUPTED = """
import os, signal, threading, time
from serving.pipeline import in_order

signal.signal(signal.SIGINT, signal.default_int_handler)
released = threading.Event()
threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()
start = time.monotonic()
try:
    next(in_order(lambda _: released.wait(60), range(4), window=2))
except KeyboardInterrupt:
    print(time.monotonic() - start)
finally:
    released.set()
"""


def test_interrupt_is_not_held_up_by_what_is_under_way() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert 0 < float(ended.stdout) < 30, ended.stdout


def test_window_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="window is 0; expected 1 or more"):
        in_order(abs, [], window=0)
