"""How far a download or an unpacking is: a bar on a terminal, else a log line now and then."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

LOG_EVERY_S = 10.0

Report = Callable[[str, int, int | None], None]
"""Takes what is being done, the bytes that are done, and how many there are, if that is known."""

logger = logging.getLogger(__name__)


@contextmanager
def show_bytes(*, is_terminal: bool) -> Iterator[Report]:
    """Gives a function to report to as bytes come in.

    Args:
        is_terminal: whether somebody watches.
    """
    last_logged = time.monotonic()

    def report(doing: str, num_bytes: int, total_bytes: int | None) -> None:
        nonlocal last_logged
        if is_terminal:
            bar.set_description(doing, refresh=False)
            bar.total = total_bytes
            bar.update(num_bytes - bar.n)  # below 0 where a file is begun
        elif time.monotonic() - last_logged >= LOG_EVERY_S:
            last_logged = time.monotonic()
            of_all = f" of {total_bytes / 2**20:.1f}" if total_bytes is not None else ""
            logger.info("%s: %.1f%s MiB", doing, num_bytes / 2**20, of_all)

    with tqdm(
        unit="B", unit_scale=True, unit_divisor=1024, disable=not is_terminal, leave=False
    ) as bar:
        yield report
