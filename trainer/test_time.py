"""What happens around the model when a slice is segmented: flips before it, cleaning after it.

A contract: evaluation and the client do the same, so they take it from here. NumPy only.
"""

import numpy as np
import numpy.typing as npt

NO_FLIPS = "none"

FLIP_SETS: dict[str, tuple[tuple[int, ...], ...]] = {
    NO_FLIPS: ((),),
    "horizontal": ((), (-1,)),
    "all": ((), (-1,), (-2,), (-2, -1)),
}
"""The flips that are averaged, by name: of each, the axes of [..., height, width] that turn.

The slice as it came is always the first. ``all`` suits a model that was trained with flips up and
down; to any other, a body upside down is nothing that it knows.
"""

FLIP_CHOICES = tuple(FLIP_SETS)

DEFAULT_FLIPS = "horizontal"
"""What ``trainer evaluate`` and ``serving predict`` average where they are not told."""

DEFAULT_POSTPROCESS = True
"""Whether both clean masks where they are not told: ``trainer.postprocessing``."""


def check_flips(flips: str) -> None:
    """Checks the name of a set of flips.

    Raises:
        ValueError: if there is no such set.
    """
    if flips not in FLIP_SETS:
        raise ValueError(f"--flips is {flips!r}; expected one of {', '.join(FLIP_CHOICES)}")


def flipped(pixels: npt.NDArray[np.uint8], flips: str) -> npt.NDArray[np.uint8]:
    """Gives a slice and its flips, as a batch to be segmented.

    Args:
        pixels: [height, width].
        flips: a name in ``FLIP_SETS``.

    Returns:
        [number of flips, height, width]; the first is the slice as it came.
    """
    return np.stack([np.flip(pixels, axes) for axes in FLIP_SETS[flips]])


def mean_of_flips(probabilities: npt.NDArray[np.float32], flips: str) -> npt.NDArray[np.float32]:
    """Turns the probabilities of a slice and its flips back, and takes their mean.

    The order of the sum is fixed, so that evaluation and client get the same bits.

    Args:
        probabilities: [number of flips, height, width], those of ``flipped`` in its order.
        flips: a name in ``FLIP_SETS``.

    Returns:
        [height, width] float32 in [0, 1].

    Raises:
        ValueError: if there are more or fewer probabilities than flips.

    Source: mirrored test-time augmentation as in nnU-Net, Nature Methods 18, 2021.
    """
    axes_of_flips = FLIP_SETS[flips]
    if len(probabilities) != len(axes_of_flips):
        raise ValueError(
            f"received {len(probabilities)} probabilities; expected {len(axes_of_flips)}, one for "
            f"each flip of {flips!r}"
        )
    back = [np.flip(each, axes) for each, axes in zip(probabilities, axes_of_flips, strict=True)]
    return np.mean(back, axis=0, dtype=np.float32)
