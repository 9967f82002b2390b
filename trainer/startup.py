"""Starting TensorFlow without its dozen lines about how it was built."""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator

LOG_LEVEL_VARIABLE = "TF_CPP_MIN_LOG_LEVEL"
"""Set it to anything, and TensorFlow says all that it has to say."""


def import_tensorflow() -> None:
    """Imports TensorFlow, showing only errors from then on.

    TensorFlow writes its first lines to the file descriptor of stderr before any setting is heard,
    so that descriptor is put aside for the time of the import.

    Raises:
        ImportError: if TensorFlow cannot be imported; what it wrote is shown first.
    """
    if LOG_LEVEL_VARIABLE in os.environ:
        import tensorflow  # noqa: F401

        return
    os.environ[LOG_LEVEL_VARIABLE] = "3"
    with _shown_on_failure():
        import tensorflow  # noqa: F401, F811
    for library in ("tensorflow", "absl"):
        logging.getLogger(library).setLevel(logging.ERROR)


@contextlib.contextmanager
def _shown_on_failure() -> Iterator[None]:
    """Keeps back what is written to stderr; shows it when the block raises."""
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(real, kept.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
