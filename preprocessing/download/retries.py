"""Asks again, with longer and longer waits, for what another attempt can mend."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from preprocessing.download.config import DownloadConfig, shown_url
from preprocessing.download.failures import EXPECTED_ERRORS, ChangedFileError, explain
from preprocessing.errors import PreprocessingError

FIRST_WAIT_S = 1.0
"""Wait after the first failure; it doubles after each further one."""

MAX_WAIT_S = 60.0

T = TypeVar("T")

logger = logging.getLogger(__name__)


def with_retries(
    action: Callable[[], T],
    *,
    config: DownloadConfig,
    num_bytes_kept: Callable[[], int] = lambda: 0,
) -> T:
    """Calls a function until it works, or until more attempts are of no use.

    Args:
        action: raises one of `EXPECTED_ERRORS` where it fails.
        config: what is asked for, and how patiently.
        num_bytes_kept: tells how much of a file the attempts have brought so far; if that is more
            than ever after a failure, it was progress, and the count of failures begins anew.

    Raises:
        PreprocessingError: if it does not work.
    """
    url = shown_url(config.url)
    num_failures = 0
    most_bytes = num_bytes_kept()
    while True:
        try:
            return action()
        except PreprocessingError:
            raise
        except (*EXPECTED_ERRORS, ChangedFileError) as error:
            cause = error
        failure = explain(cause, timeout_s=config.timeout_s)
        num_bytes = num_bytes_kept()
        num_failures = 1 if num_bytes > most_bytes else num_failures + 1
        most_bytes = max(num_bytes, most_bytes)
        if not failure.may_pass or num_failures > config.num_retries:
            kept = (
                f"; {num_bytes / 2**20:.1f} MiB are kept, and the same command goes on from there"
            )
            raise PreprocessingError(
                f"--url {url}: {failure.reason}{kept if num_bytes else ''}"
            ) from cause
        wait_s = min(max(FIRST_WAIT_S * 2 ** (num_failures - 1), failure.wait_s), MAX_WAIT_S)
        logger.warning(
            "%s: %s; retry %d of %d in %g s",
            url,
            failure.reason,
            num_failures,
            config.num_retries,
            wait_s,
        )
        time.sleep(wait_s)
