"""Slices to measure on, as a simulated scanner would have them."""

import itertools
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

from trainer.evaluation.slices import LabeledSlice, Slices
from trainer.simulated_scanners import SCANNERS, simulate

ALL_SCANNERS = "all"
"""Each simulated scanner in turn, after the slices as they are."""


def check_scanner(name: str | None) -> None:
    """Looks whether there is such a scanner.

    Args:
        name: a key of ``SCANNERS``; ``all``; or ``None`` for none.

    Raises:
        ValueError: if not; the message names them.
    """
    if name not in (None, ALL_SCANNERS, *SCANNERS):
        raise ValueError(
            f"--scanner is {name!r}; expected {ALL_SCANNERS}, or one of {', '.join(SCANNERS)}"
        )


class SimulatedSlices:
    """Other slices, as a simulated scanner would have them."""

    def __init__(self, slices: Slices, scanner: str, *, every: int = 1) -> None:
        """Reads nothing yet.

        Args:
            slices: as they are.
            scanner: a key of ``SCANNERS``.
            every: each n-th slice is given, beginning with the first; the others are left out.
        """
        self._slices, self._scanner, self._every = slices, scanner, every
        self.num_slices = -(-slices.num_slices // every)
        self.patients_unknown = slices.patients_unknown
        self.refused = slices.refused  # one list: it grows while the slices are read

    def origin(self) -> dict[str, Any]:
        """Gives what they are, and the scanner."""
        return {**self._slices.origin(), "scanner": self._scanner, "scanner_every": self._every}

    def read(self, only: Collection[str] = ()) -> Iterator[LabeledSlice]:
        """Gives all slices, or only those with these ids, without keeping any.

        Raises:
            ValueError: if a slice is too small to be simulated.
        """
        # Those with such ids were chosen among what was given before.
        every = 1 if only else self._every
        for labeled in itertools.islice(self._slices.read(only), 0, None, every):
            image, mask = simulate(
                self._scanner, image=labeled.image, mask=labeled.mask, slice_id=labeled.slice_id
            )
            yield replace(labeled, image=image, mask=mask)
