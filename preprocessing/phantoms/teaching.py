"""Phantoms of the widest variety, drawn in memory as fast as a network learns from them."""

import multiprocessing
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
from numpy.typing import NDArray

from preprocessing.phantoms.painting import MAX_IMAGE_SIZE, MIN_IMAGE_SIZE, draw_slice
from preprocessing.phantoms.patient import PatientAnatomy, sample_patient
from preprocessing.phantoms.scanner import sample_scan

SLICES_PER_PATIENT = 4
"""Slices in a row of one patient, each on a scanner of its own; inventing a patient takes time."""

SLICES_PER_TASK = 32
"""Slices that a worker process draws before it hands them over."""

MAX_SLICES = 10_000_000

DIAPHRAGM_HEIGHT = 0.3
"""How far above the base of the lungs the domes of the diaphragm reach, in z."""

APEX_HEIGHT = 0.08
"""How far below their apex the lungs are small, in z."""


def draw_teaching_slices(
    *, num_slices: int, image_size: int, seed: int, num_processes: int = 1
) -> NDArray[np.uint8]:
    """Draws slices and lung masks to train on.

    The same seed gives the same slices on any number of processes, and a slice does not depend on
    how many are drawn.

    Args:
        num_slices: number of slices.
        image_size: height and width in pixels.
        seed: another seed gives other patients, scanners and levels.
        num_processes: 1 draws in this process; more start that many others, which import neither
            TensorFlow nor what the caller has imported.

    Returns:
        [num_slices, 2, image_size, image_size, 1]: gray values of a slice, then its mask in {0, 1}.

    Raises:
        ValueError: if a number is out of its range.
        RuntimeError: if a worker process was killed.
    """
    _check("num_slices", num_slices, low=1, high=MAX_SLICES)
    _check("image_size", image_size, low=MIN_IMAGE_SIZE, high=MAX_IMAGE_SIZE)
    _check("seed", seed, low=0, high=2**63 - 1)
    _check("num_processes", num_processes, low=1, high=1024)
    pairs = np.empty((num_slices, 2, image_size, image_size, 1), np.uint8)
    starts = range(0, num_slices, SLICES_PER_TASK)
    if num_processes == 1 or len(starts) == 1:
        for start in starts:
            stop = min(start + SLICES_PER_TASK, num_slices)
            pairs[start:stop] = draw_range(start, stop, image_size, seed)
        return pairs
    stops = [min(start + SLICES_PER_TASK, num_slices) for start in starts]
    # Spawned and not forked: a fork would copy locks that threads of TensorFlow hold.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(num_processes, len(starts)), mp_context=context)
    try:
        tasks = zip(starts, stops, strict=True)
        drawn = deque(pool.submit(draw_range, *task, image_size, seed) for task in tasks)
        for start, stop in zip(starts, stops, strict=True):
            pairs[start:stop] = drawn.popleft().result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"one of {num_processes} processes that draw phantoms ended before its slices were "
            "done; expected it to live: was it killed, or did memory run out? Start again with "
            "fewer processes"
        ) from error
    finally:
        # `pool.map` would cancel what is left from this thread, while the thread of the pool ends
        # what a killed process had to do; where they meet, the other processes live on.
        pool.shutdown(cancel_futures=True)
    return pairs


def draw_range(start: int, stop: int, image_size: int, seed: int) -> NDArray[np.uint8]:
    """Draws the slices from ``start`` up to ``stop`` of all that belong to a seed.

    Args:
        start: index of the first slice.
        stop: index after the last slice.
        image_size: height and width in pixels.
        seed: of all slices.

    Returns:
        [stop - start, 2, image_size, image_size, 1], as ``draw_teaching_slices``.
    """
    pairs = np.empty((stop - start, 2, image_size, image_size, 1), np.uint8)
    patient_index, patient = -1, None
    for index in range(start, stop):
        if index // SLICES_PER_PATIENT != patient_index or patient is None:
            patient_index = index // SLICES_PER_PATIENT
            patient = sample_patient(_rng(seed, patient_index), variety="wide")
        rng = _rng(seed, patient_index, index % SLICES_PER_PATIENT)
        image, mask = draw_slice(
            patient,
            sample_scan(rng, patient=patient, variety="wide"),
            z=sample_level(rng, patient=patient),
            image_size=image_size,
            rng=rng,
        )
        pairs[index - start, :, :, :, 0] = image, mask
    return pairs


def sample_level(rng: np.random.Generator, *, patient: PatientAnatomy) -> float:
    """Draws z of a slice, about a fifth of them without lung, from the abdomen to the head.

    Levels of the diaphragm and of the apex are likelier than others: there lung is thin or small,
    and what looks like it is near.
    """
    kind = rng.random()
    if kind < 0.12:
        return rng.uniform(-0.15, patient.base_z)
    if kind < 0.17:
        return rng.uniform(patient.apex_z, 1.05)
    if kind < 0.22:
        return rng.uniform(1.05, 1.25)
    if kind < 0.3:
        return patient.apex_z - APEX_HEIGHT * rng.random() ** 2
    if kind < 0.5:
        return rng.uniform(patient.base_z, patient.base_z + DIAPHRAGM_HEIGHT)
    return rng.uniform(patient.base_z, patient.apex_z)


def _rng(seed: int, *key: int) -> np.random.Generator:
    # `spawn_key` and no list of numbers: lists that differ only in zeros at the end are one seed.
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _check(name: str, value: int, *, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; expected {low} to {high}")
