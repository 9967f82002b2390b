"""Hounsfield units -> gray values, through one window for all slices."""

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Window:
    """Which Hounsfield units are told apart: darker ones are black, brighter ones white."""

    level_hu: float = -600.0
    """Center of the window, in Hounsfield units."""

    width_hu: float = 1500.0
    """From black to white, in Hounsfield units."""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: if they make no window.
        """
        if not (math.isfinite(self.level_hu) and 1 <= self.width_hu < math.inf):
            raise ValueError(
                f"received a window of level {self.level_hu:g} and width {self.width_hu:g}; "
                "expected Hounsfield units with a width of at least 1, such as -600,1500"
            )

    def gray_values(self, hounsfield: npt.NDArray[np.int16]) -> npt.NDArray[np.uint8]:
        """Gives the gray values of Hounsfield units.

        Args:
            hounsfield: int16, any shape.

        Returns:
            uint8 of the same shape; 0 up to the lower end of the window, 255 from its upper end.

        Source: DICOM PS3.3 C.11.2.1.3.2, the function LINEAR_EXACT.
        """
        return _table(self)[hounsfield.view(np.uint16)]


@functools.cache
def _table(window: Window) -> npt.NDArray[np.uint8]:
    """Gives the gray value of each int16, at its bits as uint16."""
    values = np.arange(2**16, dtype=np.uint16).view(np.int16)
    share = (values - window.level_hu) / window.width_hu + 0.5
    return np.rint(255 * share.clip(0, 1)).astype(np.uint8)
