import multiprocessing
import operator
import subprocess
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest

from preprocessing.phantoms import teaching
from preprocessing.phantoms.patient import sample_patient
from preprocessing.phantoms.teaching import SLICES_PER_TASK, draw_teaching_slices, sample_level


@pytest.fixture(scope="module")
def pairs() -> np.ndarray:
    return draw_teaching_slices(num_slices=300, image_size=64, seed=1)


def test_slices_and_masks_have_the_agreed_shape_and_range(pairs: np.ndarray) -> None:
    assert pairs.shape == (300, 2, 64, 64, 1)
    assert pairs.dtype == np.uint8
    assert np.unique(pairs[:, 1]).tolist() == [0, 1]
    assert (pairs[:, 0].min(), pairs[:, 0].max()) == (0, 255)


def test_about_a_fifth_shows_no_lung(pairs: np.ndarray) -> None:
    empty = ~pairs[:, 1].reshape(len(pairs), -1).any(axis=1)
    assert 0.13 < empty.mean() < 0.28


def test_lungs_are_of_every_size(pairs: np.ndarray) -> None:
    shares = pairs[:, 1].reshape(len(pairs), -1).mean(axis=1)
    assert np.percentile(shares, 30) < 0.02
    assert shares.max() > 0.2
    assert shares.max() < 0.6


def test_no_slice_is_blank_and_none_equals_another(pairs: np.ndarray) -> None:
    images = pairs[:, 0].reshape(len(pairs), -1)
    assert np.percentile(images.std(axis=1), 1) > 10
    assert len(np.unique(images, axis=0)) == len(images)


def test_windows_differ(pairs: np.ndarray) -> None:
    """The gray value of lung tells little: from black to middle gray and beyond."""
    medians = [np.median(image[mask == 1]) for image, mask in pairs if mask.sum() > 60]
    assert np.percentile(medians, 10) < 15
    assert np.percentile(medians, 90) > 90


def test_same_seed_gives_the_same_slices_and_another_seed_others(pairs: np.ndarray) -> None:
    again = draw_teaching_slices(num_slices=8, image_size=64, seed=1)
    np.testing.assert_array_equal(again, pairs[:8])
    other = draw_teaching_slices(num_slices=8, image_size=64, seed=2)
    assert all((other[k] != pairs[k]).any() for k in range(8))


@pytest.mark.parametrize("num_slices", [1, 3, 5, 33])
def test_slice_does_not_depend_on_the_number_of_slices(pairs: np.ndarray, num_slices: int) -> None:
    few = draw_teaching_slices(num_slices=num_slices, image_size=64, seed=1)
    np.testing.assert_array_equal(few, pairs[:num_slices])


def test_slices_do_not_depend_on_the_number_of_processes(pairs: np.ndarray) -> None:
    num_slices = SLICES_PER_TASK + 5
    parallel = draw_teaching_slices(num_slices=num_slices, image_size=64, seed=1, num_processes=2)
    np.testing.assert_array_equal(parallel, pairs[:num_slices])


def test_odd_size_is_drawn() -> None:
    assert draw_teaching_slices(num_slices=2, image_size=45, seed=0).shape == (2, 2, 45, 45, 1)


def test_levels_run_from_the_abdomen_to_the_head() -> None:
    rng = np.random.default_rng(0)
    patient = sample_patient(rng, variety="wide")
    levels = np.array([sample_level(rng, patient=patient) for _ in range(5000)])
    assert 0.07 < (levels < patient.base_z).mean() < 0.17
    assert 0.07 < (levels > patient.apex_z).mean() < 0.13
    top = patient.apex_z - 0.01
    assert 0.02 < ((levels > top) & (levels < patient.apex_z)).mean() < 0.07
    assert levels.min() > -0.16
    assert levels.max() > 1.2


def _kill_one_process() -> None:
    deadline = time.monotonic() + 60
    # Once both are there: Python 3.11 stumbles over one that dies while the other is started.
    while len(multiprocessing.active_children()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    multiprocessing.active_children()[0].kill()


def test_killed_process_is_told() -> None:
    killer = threading.Thread(target=_kill_one_process)
    killer.start()
    # Far more than are drawn before the process is killed.
    with pytest.raises(RuntimeError, match="one of 2 processes that draw phantoms ended") as caught:
        draw_teaching_slices(num_slices=100_000, image_size=32, seed=0, num_processes=2)
    killer.join()
    assert isinstance(caught.value.__cause__, BrokenProcessPool)
    assert not multiprocessing.active_children()


def test_failure_in_a_process_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    # It takes two numbers, and is given four.
    monkeypatch.setattr(teaching, "draw_range", operator.add)
    with pytest.raises(TypeError, match="expected 2 arguments, got 4"):
        draw_teaching_slices(num_slices=70, image_size=32, seed=0, num_processes=2)


def test_processes_load_neither_tensorflow_nor_beam() -> None:
    code = (
        "import sys, preprocessing.phantoms.teaching\n"
        "assert not {'tensorflow', 'keras', 'apache_beam', 'tqdm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_slices", 0, "num_slices is 0; expected 1 to 10000000"),
        ("image_size", 31, "image_size is 31; expected 32 to 4096"),
        ("seed", -1, "seed is -1; expected 0 to"),
        ("num_processes", 0, "num_processes is 0; expected 1 to 1024"),
    ],
)
def test_number_out_of_range_is_refused(field: str, value: int, message: str) -> None:
    numbers = {"num_slices": 1, "image_size": 64, "seed": 0, "num_processes": 1} | {field: value}
    with pytest.raises(ValueError, match=message):
        draw_teaching_slices(**numbers)
