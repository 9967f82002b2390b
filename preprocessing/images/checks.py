"""What every format is held to: a size that can be decoded, and grays instead of colors."""

import numpy as np
import numpy.typing as npt

from preprocessing.spec import MAX_PIXELS

MEND = "export it again as an 8-bit grayscale BMP or PNG"
"""What helps with nearly every file that is refused."""


class RefusedError(ValueError):
    """A reason for which a file is refused; reads on after the file's name."""


def check_size(width: int, height: int) -> None:
    """Looks at the size that a header states, before any pixel is decoded.

    Raises:
        RefusedError: if there is no pixel, or more than `MAX_PIXELS`.
    """
    if width < 1 or height < 1:
        raise RefusedError(
            f"says that it is {width} x {height} px; expected at least 1 x 1; {MEND}"
        )
    if width * height > MAX_PIXELS:
        raise RefusedError(
            f"says that it is {width} x {height} px; expected at most {MAX_PIXELS} pixels; {MEND}"
        )


def check_gray(colors: npt.NDArray[np.uint8]) -> None:
    """Looks whether all channels are equal.

    Args:
        colors: [..., channels], red first.

    Raises:
        RefusedError: if they are not; an example is given.
    """
    is_color = (colors != colors[..., :1]).any(axis=-1)
    if is_color.any():
        raise RefusedError(
            f"is in color (for example {colors[is_color][0].tolist()} of 255); expected grays, "
            f"where red, green and blue are equal; {MEND}"
        )
