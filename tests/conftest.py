"""TensorFlow is started once for all tests, with three logical CPU devices."""

import os
import signal
from pathlib import Path

import pytest

from trainer.startup import import_tensorflow

# A shell starts what runs in its background with SIGINT ignored, and children inherit that: tests
# of Ctrl-C would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

import_tensorflow()

import tensorflow as tf  # noqa: E402

NUM_LOGICAL_DEVICES = 3

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * NUM_LOGICAL_DEVICES,
)


@pytest.fixture(scope="session")
def lctsc() -> Path:
    """The folder of the real slices, with images/ and masks/."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    root = Path(os.environ.get("LUNG_CT_DATA", beside)) / "lctsc"
    if not root.is_dir():
        pytest.skip(f"no real slices at {root}; set LUNG_CT_DATA to the folder that holds lctsc/")
    return root
