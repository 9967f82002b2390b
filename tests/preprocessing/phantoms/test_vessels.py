import numpy as np
import pytest

from preprocessing.phantoms.canvas import Canvas
from preprocessing.phantoms.vessels import (
    HILAR_RADIUS_MM,
    LEAF_RADIUS_MM,
    VesselTree,
    cut_vessels,
    grow_vessels,
)


@pytest.fixture(scope="module")
def tree() -> VesselTree:
    return grow_vessels(np.random.default_rng(0), lung_height_mm=250)


def _single(start: tuple[float, ...], end: tuple[float, ...], radius: float) -> VesselTree:
    return VesselTree(
        start=np.array([start], np.float32),
        end=np.array([end], np.float32),
        radius=np.array([radius], np.float32),
        bronchus=np.array([False]),
    )


def test_vessels_reach_every_part_of_both_lungs(tree: VesselTree) -> None:
    for side in (-1, 1):
        ends = tree.end[side * tree.end[:, 0] > 0] - [side * 72, -112, 0]
        share = np.abs(ends) / [60, 88, 125]
        # Of an ellipsoid filled evenly, 1 - 0.9^3 lies beyond 9 tenths of its radius.
        beyond = np.sqrt((share**2).sum(axis=1)) > 0.9
        assert 0.05 < beyond.mean() < 0.3
        assert (np.sort(share, axis=0)[-20] > 0.9).all()


def test_vessels_taper_from_hilum_to_pleura(tree: VesselTree) -> None:
    from_hilum = np.sqrt(((np.abs(tree.end) - [36, 110, 0]) ** 2)[:, :2].sum(axis=1))
    near, far = tree.radius[from_hilum < 15], tree.radius[from_hilum > 45]
    assert near.max() > HILAR_RADIUS_MM
    assert far.max() < HILAR_RADIUS_MM
    assert far.mean() < near.mean()
    assert tree.radius.min() > 0.7 * LEAF_RADIUS_MM


def test_vessel_in_the_plane_of_the_slice_is_a_line(canvas: Canvas) -> None:
    cut = cut_vessels(canvas, _single((-10, 0, 0), (10, 0, 0), 1.5), z_mm=0, slice_mm=3)
    # 20 mm by 3 mm and its round ends.
    assert cut.blood.sum() == pytest.approx(20 * 3 + np.pi * 1.5**2, rel=0.2)
    assert cut.hilar is None
    assert cut.air.max() == 0


def test_vessel_across_the_slice_is_a_dot(canvas: Canvas) -> None:
    cut = cut_vessels(canvas, _single((0, 0, -10), (0, 0, 10), 1.5), z_mm=0, slice_mm=3)
    rows, columns = np.nonzero(cut.blood > 0.3)
    assert np.ptp(rows) <= 4
    assert np.ptp(columns) <= 4


def test_vessel_in_another_slice_does_not_show(canvas: Canvas) -> None:
    cut = cut_vessels(canvas, _single((-10, 0, 0), (10, 0, 0), 1.5), z_mm=9, slice_mm=3)
    assert cut.blood.max() == 0


def test_fine_vessel_is_fainter_in_a_thick_slice(canvas: Canvas) -> None:
    fine = _single((-10, 0, 0), (10, 0, 0), 0.5)
    thin, thick = (cut_vessels(canvas, fine, z_mm=0, slice_mm=mm).blood.max() for mm in (1, 10))
    assert thick < 0.5 * thin


def test_large_vessel_near_the_hilum_is_told_apart(canvas: Canvas) -> None:
    cut = cut_vessels(canvas, _single((-10, 0, 0), (10, 0, 0), 5), z_mm=0, slice_mm=3)
    assert cut.hilar is not None
    assert cut.hilar[32, 32] > 0.9
    assert cut.blood.max() == 0


def test_bronchus_runs_beside_its_vessel_with_a_wall_around_air(canvas: Canvas) -> None:
    tree = _single((0, 0, -10), (0, 0, 10), 2.5)
    tree = VesselTree(start=tree.start, end=tree.end, radius=tree.radius, bronchus=np.array([True]))
    cut = cut_vessels(canvas, tree, z_mm=0, slice_mm=1)
    row, column = np.unravel_index(cut.air.argmax(), cut.air.shape)
    assert cut.air.max() > 0.9
    assert cut.blood[32, 32] > 0.9
    assert 3 < np.hypot(row - 32, column - 32) < 9
    assert cut.blood[row - 4 : row + 5, column - 4 : column + 5].max() > 0.3
