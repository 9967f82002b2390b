"""Starting TensorFlow without its dozen lines about how it was built."""

import contextlib
import logging
import os
import platform
import sys
import tempfile
from collections.abc import Iterator

LOG_LEVEL_VARIABLE = "TF_CPP_MIN_LOG_LEVEL"
"""Set it to anything, and TensorFlow says all that it has to say."""

ONEDNN_VARIABLE = "TF_ENABLE_ONEDNN_OPTS"
"""Set it to 0, and TensorFlow computes convolutions without oneDNN."""


def import_tensorflow() -> None:
    """Imports TensorFlow, showing only errors from then on.

    It computes by oneDNN then, where it has it; see ``prefer_onednn``.

    TensorFlow writes its first lines to the file descriptor of stderr before any setting is heard,
    so that descriptor is put aside for the time of the import.

    Raises:
        ImportError: if TensorFlow cannot be imported; what it wrote is shown first.
    """
    prefer_onednn()
    if LOG_LEVEL_VARIABLE in os.environ:
        import tensorflow  # noqa: F401

        return
    os.environ[LOG_LEVEL_VARIABLE] = "3"
    with _shown_on_failure():
        import tensorflow  # noqa: F401, F811
    for library in ("tensorflow", "absl"):
        logging.getLogger(library).setLevel(logging.ERROR)


def prefer_onednn() -> None:
    """Lets TensorFlow train by oneDNN on every x86 processor; to be called before it is imported.

    By itself it does so only where it finds instructions made for neural networks, such as AVX-512
    VNNI. With AVX2 alone a training step with 16 filters takes 1.4 times as long without oneDNN.
    One with 64 filters takes 0.9 times as long, and servers gain nothing: they are left alone.

    Source: tensorflow/core/util/util.cc, IsMKLEnabled; benchmarks/training_step.py.
    """
    if platform.machine() in ("x86_64", "AMD64"):
        os.environ.setdefault(ONEDNN_VARIABLE, "1")


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
