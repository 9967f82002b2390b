import numpy as np
import pytest

from preprocessing.volumes.windowing import Window


def test_ends_of_the_window_are_black_and_white() -> None:
    hounsfield = np.array([-32768, -1351, -1350, -600, 150, 151, 32767], np.int16)
    assert Window().gray_values(hounsfield).tolist() == [0, 0, 0, 128, 255, 255, 255]


def test_gray_values_of_a_window_come_back() -> None:
    gray_values = np.arange(256)
    hounsfield = np.rint(gray_values * 1500 / 255 - 1350).astype(np.int16)
    np.testing.assert_array_equal(Window().gray_values(hounsfield), gray_values)


@pytest.mark.parametrize(
    ("level", "width"), [(0, 0), (0, -5), (float("nan"), 10), (0, float("inf"))]
)
def test_what_is_no_window_is_refused(level: float, width: float) -> None:
    with pytest.raises(ValueError, match="expected Hounsfield units with a width of at least 1"):
        Window(level, width)
