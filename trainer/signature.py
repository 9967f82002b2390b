"""The contract between ``trainer``, which exports a model, and whoever calls it.

All signatures take slices of any size, in a batch of any size, and give masks of the size that the
slices came with: fitting them into the square of the model, with their proportions, and the way
back are part of the graph, so a client cannot do it differently. Standard library only.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TensorContract:
    """Name, type and shape of one input or output of a signature."""

    key: str
    """Key in ``PredictRequest.inputs`` or ``PredictResponse.outputs``."""

    dtype: str
    """TensorFlow's name of the type: ``uint8``, ``float32``, ``string``."""

    shape: tuple[int | None, ...]
    """``None`` is a size that the caller chooses."""


@dataclass(frozen=True, kw_only=True)
class Signature:
    """A callable function of the SavedModel."""

    name: str
    """``PredictRequest.model_spec.signature_name``."""

    inputs: tuple[TensorContract, ...]
    """What the caller sends."""

    outputs: tuple[TensorContract, ...]
    """What the caller gets; ``PredictRequest.output_filter`` chooses among them."""


IMAGE = TensorContract(key="image", dtype="uint8", shape=(None, None, None, 1))
"""[batch, height, width, 1] gray values, 0 to 255."""

SCALED_IMAGE = TensorContract(key="image", dtype="float32", shape=(None, None, None, 1))
"""[batch, height, width, 1] gray values divided by 255: 0 to 1, as the reference recipe scales."""

PREDICTED_MASK = TensorContract(key="predicted_mask", dtype="uint8", shape=(None, None, None, 1))
"""[batch, height, width, 1]; 1 is lung, 0 is background."""

PROBABILITY = TensorContract(key="probability", dtype="float32", shape=(None, None, None, 1))
"""[batch, height, width, 1] in [0, 1], before the threshold."""

IMAGE_BYTES = TensorContract(key="image_bytes", dtype="string", shape=(None,))
"""[batch] whole PNG or BMP files; ``_bytes`` makes TensorFlow Serving's REST use base64."""

PREDICTED_MASK_BYTES = TensorContract(key="predicted_mask_bytes", dtype="string", shape=(None,))
"""[batch] PNG files, gray; 255 is lung, 0 is background."""

ARRAY_SIGNATURE = Signature(
    name="serving_default", inputs=(IMAGE,), outputs=(PREDICTED_MASK, PROBABILITY)
)
"""Pixels in, pixels out: the default."""

SCALED_SIGNATURE = Signature(
    name="scaled", inputs=(SCALED_IMAGE,), outputs=(PREDICTED_MASK, PROBABILITY)
)
"""The same for clients that have scaled the pixels already; four times the bytes."""

ENCODED_SIGNATURE = Signature(
    name="encoded", inputs=(IMAGE_BYTES,), outputs=(PREDICTED_MASK_BYTES,)
)
"""Files in, files out."""

SIGNATURES = (ARRAY_SIGNATURE, SCALED_SIGNATURE, ENCODED_SIGNATURE)

WARM_UP_BATCHES = (1, 2, 4)
"""Slices in the requests that a server plays first: as the client sends them, with flips or not."""

DEFAULT_MODEL_NAME = "lung_unet"
"""``PredictRequest.model_spec.name`` under which the project serves its model."""

PROBABILITY_THRESHOLD = 0.5
"""A pixel whose probability is at or above this is lung."""
