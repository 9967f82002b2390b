import numpy as np
import pytest

from preprocessing.phantoms.canvas import AIR_HU, Canvas, Grid, Pose
from preprocessing.phantoms.shapes import smooth_field, smooth_max, superellipse

NO_WARP = np.zeros((2, 7, 7), np.float32)


def test_painting_covers_lung_and_only_paint_lung_adds_it(canvas: Canvas) -> None:
    canvas.paint_lung(np.ones((64, 64), np.float32), np.full((64, 64), -850, np.float32))
    canvas.ellipse((0, 0), (10, 5), 40)
    assert canvas.lung[32, 32] == 0
    assert canvas.hu[32, 32] == 40
    assert canvas.lung[32, 45] == 1
    assert canvas.hu[32, 45] == -850
    # The covered area is that of the ellipse, 157.1 pixels, although its edge is soft.
    assert 64 * 64 - canvas.lung.sum() == pytest.approx(np.pi * 10 * 5, abs=2)


def test_ellipse_without_size_paints_nothing(canvas: Canvas) -> None:
    canvas.ellipse((0, 0), (0, 5), 40)
    assert (canvas.hu == AIR_HU).all()


def test_ellipse_stays_within_a_given_shape(canvas: Canvas) -> None:
    canvas.ellipse((0, 0), (10, 10), 0.0, within=canvas.x)
    assert (canvas.hu[:, 33:] == AIR_HU).all()
    assert (canvas.hu - AIR_HU).sum() / 1000 == pytest.approx(np.pi * 100 / 2, abs=2)


def test_bumps_pull_the_outline_in(canvas: Canvas) -> None:
    canvas.ellipse((0, 0), (10, 10), 0.0, bumps_mm=np.full((64, 64), 2, np.float32))
    assert (canvas.hu - AIR_HU).sum() / 1000 == pytest.approx(np.pi * 64, abs=2)


def test_ellipse_takes_a_density_for_each_pixel(canvas: Canvas) -> None:
    canvas.ellipse((0, 0), (10, 10), np.where(canvas.x > 0, np.float32(7), np.float32(-7)))
    assert canvas.hu[32, 28] == -7
    assert canvas.hu[32, 36] == 7


def test_capsule_has_the_area_of_a_rectangle_and_a_circle(canvas: Canvas) -> None:
    canvas.capsule((-10, 3), (10, 3), 4, 0.0)
    assert (canvas.hu - AIR_HU).sum() / 1000 == pytest.approx(20 * 8 + np.pi * 16, abs=2)


def test_shape_beyond_the_border_is_cut_off(canvas: Canvas) -> None:
    canvas.ellipse((-32, -32), (10, 10), 0.0)
    canvas.ellipse((500, 500), (10, 10), 0.0)
    assert (canvas.hu - AIR_HU).sum() / 1000 == pytest.approx(np.pi * 100 / 4, abs=2)
    assert (canvas.hu[32:, 32:] == AIR_HU).all()


def test_all_painted_while_shifted_is_moved_and_nothing_after(canvas: Canvas) -> None:
    with canvas.shifted(8):
        canvas.ellipse((0, 0), (3, 3), 0.0)
        column, _ = canvas.pixel(0.0, 0.0)
    assert column == 40
    assert canvas.hu[32, 40] == 0
    assert canvas.hu[32, 32] == AIR_HU
    canvas.ellipse((0, 0), (3, 3), 0.0)
    assert canvas.hu[32, 32] == 0


def test_pixel_is_the_inverse_of_the_coordinates() -> None:
    grid = Grid(image_size=100, fov_mm=300, x_mm=7, y_mm=-120)
    pose = Pose(width_scale=0.9, depth_scale=1.1, roll_degrees=6, back_mm=4)
    canvas = Canvas(grid=grid, pose=pose, warp_mm=NO_WARP)
    column, row = canvas.pixel(float(canvas.x[20, 70]), float(canvas.y[20, 70]))
    assert (column, row) == (pytest.approx(70.5, abs=1e-3), pytest.approx(20.5, abs=1e-3))


@pytest.mark.parametrize("power", [2.0, 2.5, 4.0])
def test_superellipse_is_zero_on_its_outline(power: float) -> None:
    # On the axes, and on the diagonal of the box where both coordinates are 2 ** (-1 / power).
    share = 2 ** (-1 / power)
    dx = np.array([20, 0, 20 * share, 0, 30], np.float32)
    dy = np.array([0, 10, 10 * share, 0, 0], np.float32)
    distance = superellipse(dx, dy, half_axes=(20, 10), power=power)
    np.testing.assert_allclose(distance, [0, 0, 0, -10, 10], atol=0.03)


def test_smooth_max_differs_from_max_only_near_the_corner() -> None:
    a, b = np.array([0, 5, -9], np.float32), np.array([0, -5, 3], np.float32)
    np.testing.assert_allclose(smooth_max(a, b, rounding_mm=4), [1, 5, 3])


def test_smooth_field_has_the_asked_height_and_width() -> None:
    assert smooth_field(np.ones((3, 5), np.float32), (20, 40)).shape == (20, 40)
