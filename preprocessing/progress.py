"""How far the workers are, read from the small files that they leave beside their shards.

That works on any engine that shares a file system with the driver; the job needs no hook for it.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from preprocessing.shards import PROGRESS_SUFFIX

POLL_S = 0.2
LOG_EVERY_S = 10.0

logger = logging.getLogger(__name__)


@contextmanager
def show_progress(folder: Path, *, num_slices: int, is_terminal: bool) -> Iterator[None]:
    """Shows a bar on standard error, or a log line now and then where that is no terminal.

    Args:
        folder: where the workers write.
        num_slices: how many they will have done in the end.
        is_terminal: whether somebody watches.
    """
    done = threading.Event()
    thread = threading.Thread(
        target=_watch,
        kwargs={
            "folder": folder,
            "num_slices": num_slices,
            "is_terminal": is_terminal,
            "done": done,
        },
        name="progress",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def count_done(folder: Path) -> int:
    """Gives the number of slices that workers have read, whether written or refused."""
    num_done = 0
    for path in folder.glob(f"*{PROGRESS_SUFFIX}"):
        try:
            num_done += path.stat().st_size
        except FileNotFoundError:
            continue  # The folder is being published.
    return num_done


def _watch(*, folder: Path, num_slices: int, is_terminal: bool, done: threading.Event) -> None:
    started = last_logged = time.monotonic()
    with tqdm(total=num_slices, unit="slice", disable=not is_terminal) as bar:
        is_over = False
        while not is_over:
            is_over = done.wait(POLL_S)
            num_done = min(count_done(folder), num_slices)
            bar.update(num_done - bar.n)
            now = time.monotonic()
            if not is_terminal and now - last_logged >= LOG_EVERY_S:
                last_logged = now
                logger.info(
                    "%d of %d slices, %.0f slices/s",
                    num_done,
                    num_slices,
                    num_done / (now - started),
                )
