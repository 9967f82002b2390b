"""What is odd about a slice or its mask, and which slices are the oddest.

A finding is a reason to look, not a verdict. The thresholds are set so that nearly all masks of a
sound dataset have none: they were measured on 236 slices of five patients (LCTSC), whole and with
masks that were damaged on purpose.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from preprocessing.inspection.measures import Measures
from preprocessing.inspection.scan import MeasuredSlice

MIN_EDGE_AGREEMENT = 0.8
"""The 185 masks of LCTSC with lung have 0.95 to 1. Of the same masks inverted, upside down or
shifted by 10 pixels of 512, none is above 0.66; of the mirrored ones, one is above 0.8."""

MAX_FLAT_GRAY_VALUES = 2
"""A slice with no more gray values than a mask is no CT slice."""

MAX_LUNG_SHARE = 0.5
"""Lungs fill 11 % of a slice of LCTSC at most, and some 35 % where the slice is cut to the body."""

MIN_LUNG_SHARE = 1e-3
"""262 pixels of 512x512; the smallest tips of a lung in LCTSC have twice that."""

MAX_PARTS = 6
"""Two lungs, and up to five parts at apex and base in LCTSC."""

MAX_SPECKS = 5
"""Masks of LCTSC have one at most."""

MAX_HOLE_SHARE = 0.1
"""Of the lung area; 182 of 185 masks of LCTSC are below it, the others are around the diaphragm."""

MAX_BRIGHTNESS_DIFFERENCE = 60
"""In gray values, between the mean of a slice and that of the training split: up to 19 in LCTSC,
and up to 57 among our phantoms, whose fields of view differ more."""

MAX_JUMP_SHARE = 0.15
"""By how much the lung area may be outside of the range of its two neighbors, as a share of the
largest of the three; below 0.1 in LCTSC where there is enough lung to tell."""

MIN_JUMP_LUNG_SHARE = 0.01
"""Below this share of the slice, lung may come and go from slice to slice."""

_SLICE_NUMBER = re.compile(r"(.*?)(\d+)", flags=re.DOTALL)
"""Slices whose ids differ in the number at the end only are neighbors in its order."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of finding."""

    name: str
    """A word or two."""

    meaning: str
    """What may be behind it."""

    severity: int
    """How soon to look at it; 0 is normal."""


OFF_EDGES = Kind(
    name="off the edges",
    meaning="The rim of the mask does not run along edges of the slice with the dark side within: "
    "a mask that is shifted, mirrored, inverted or of another slice, or a slice with inverted gray "
    "values.",
    severity=8,
)
FLAT = Kind(
    name="flat slice",
    meaning="The slice has hardly any gray values: a mask among the slices, or an empty picture.",
    severity=8,
)
HUGE = Kind(
    name="huge",
    meaning="More of the slice is lung than a chest can hold: an inverted mask, or one of the "
    "whole body.",
    severity=4,
)
BORDER = Kind(
    name="at the border",
    meaning="Lung touches the border of the slice: a mask of the air around the body, an inverted "
    "mask, or a slice that cuts the lung off.",
    severity=4,
)
JUMP = Kind(
    name="jump",
    meaning="The lung area is far from those of the slices before and after: a lung or a whole "
    "mask is missing, here or in a neighbor, or stands in the wrong slice.",
    severity=4,
)
MANY_PARTS = Kind(
    name="many parts",
    meaning="The mask falls into more parts than lungs do.",
    severity=2,
)
SPECKS = Kind(
    name="specks",
    meaning="The mask has many tiny parts: noise, or lossy compression of the mask.",
    severity=2,
)
HOLES = Kind(
    name="holes",
    meaning="The mask encloses much background: a lesion left out, or a slip of the tool that drew "
    "it. A dome of the diaphragm within the base of a lung is normal.",
    severity=2,
)
BRIGHTNESS = Kind(
    name="brightness",
    meaning="The slice is much darker or brighter than the others: another display window.",
    severity=2,
)
TINY = Kind(
    name="tiny",
    meaning="Hardly any lung: the tip of a lung, or a slip of the tool that drew it.",
    severity=1,
)
EMPTY = Kind(
    name="empty",
    meaning="No lung. Normal above and below the lungs.",
    severity=0,
)
KINDS = (
    OFF_EDGES,
    FLAT,
    HUGE,
    BORDER,
    JUMP,
    MANY_PARTS,
    SPECKS,
    HOLES,
    BRIGHTNESS,
    TINY,
    EMPTY,
)
"""The worst first."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something odd about one slice."""

    kind: Kind
    """What it is."""

    text: str
    """What was measured."""


@dataclass(frozen=True, kw_only=True)
class JudgedSlice:
    """A slice with all that is odd about it."""

    entry: MeasuredSlice
    """The slice."""

    findings: tuple[Finding, ...]
    """The worst first."""

    @property
    def severity(self) -> int:
        """Gives the sum over the findings; 0 is a slice that needs no look."""
        return sum(finding.kind.severity for finding in self.findings)


def judge(measured: Sequence[MeasuredSlice], *, gray_value_mean: float) -> list[JudgedSlice]:
    """Judges all slices of a dataset.

    Args:
        measured: all slices, of all splits: neighbors may be in different ones.
        gray_value_mean: of the training split, 0 to 255.

    Returns:
        The slices, the worst first; among equals the one whose rim follows edges the least, and
        empty masks at the end. Equal datasets give an equal order.
    """
    neighbors = _lung_shares_of_neighbors(measured)
    judged = [
        JudgedSlice(
            entry=entry,
            findings=find(
                entry.measures,
                gray_value_mean=gray_value_mean,
                neighbors=neighbors.get(entry.slice_id),
            ),
        )
        for entry in measured
    ]
    return sorted(judged, key=_rank)


def find(
    measures: Measures, *, gray_value_mean: float, neighbors: tuple[float, float] | None = None
) -> tuple[Finding, ...]:
    """Gives all that is odd about one slice, the worst first.

    Args:
        measures: its figures.
        gray_value_mean: of the training split, 0 to 255.
        neighbors: shares of lung, 0 to 1, of the slices before and after; None if not both are
            known.
    """
    found = [
        *_of_slice(measures, gray_value_mean),
        *_of_area(measures),
        *_of_shape(measures),
        *(_of_jump(measures.lung_share, neighbors) if neighbors else ()),
    ]
    return tuple(sorted(found, key=lambda finding: KINDS.index(finding.kind)))


def _of_slice(measures: Measures, gray_value_mean: float) -> Iterator[Finding]:
    if measures.num_gray_values <= MAX_FLAT_GRAY_VALUES:
        yield Finding(kind=FLAT, text=f"gray values: {measures.num_gray_values}")
    difference = measures.gray_value_mean - gray_value_mean
    if abs(difference) > MAX_BRIGHTNESS_DIFFERENCE:
        yield Finding(
            kind=BRIGHTNESS,
            text=f"mean gray value {measures.gray_value_mean:.0f}, dataset {gray_value_mean:.0f}",
        )


def _of_area(measures: Measures) -> Iterator[Finding]:
    share = measures.lung_share
    if not measures.lung_area_px:
        yield Finding(kind=EMPTY, text="no lung")
    elif share < MIN_LUNG_SHARE:
        yield Finding(kind=TINY, text=f"{measures.lung_area_px} px of lung")
    if share > MAX_LUNG_SHARE:
        yield Finding(kind=HUGE, text=f"{100 * share:.0f} % of the slice is lung")


def _of_shape(measures: Measures) -> Iterator[Finding]:
    agreement = measures.edge_agreement
    if agreement is not None and agreement < MIN_EDGE_AGREEMENT:
        yield Finding(kind=OFF_EDGES, text=f"{100 * agreement:.0f} % of the rim is on an edge")
    if measures.border_px:
        yield Finding(kind=BORDER, text=f"{measures.border_px} px of lung")
    if measures.num_parts > MAX_PARTS:
        yield Finding(kind=MANY_PARTS, text=str(measures.num_parts))
    if measures.num_specks > MAX_SPECKS:
        yield Finding(kind=SPECKS, text=str(measures.num_specks))
    if measures.hole_area_px > MAX_HOLE_SHARE * measures.lung_area_px:
        share = measures.hole_area_px / measures.lung_area_px
        yield Finding(kind=HOLES, text=f"{100 * share:.0f} % of the lung area")


def _of_jump(lung_share: float, neighbors: tuple[float, float]) -> Iterator[Finding]:
    low, high = sorted(neighbors)
    largest = max(lung_share, high)
    outside = max(low - lung_share, lung_share - high)
    if largest >= MIN_JUMP_LUNG_SHARE and outside > MAX_JUMP_SHARE * largest:
        yield Finding(
            kind=JUMP,
            text=f"{100 * lung_share:.1f} % of the slice is lung, of its neighbors "
            f"{100 * neighbors[0]:.1f} and {100 * neighbors[1]:.1f} %",
        )


def _lung_shares_of_neighbors(
    measured: Sequence[MeasuredSlice],
) -> dict[str, tuple[float, float]]:
    """Gives the shares before and after, by ``slice_id``, of each slice that has both."""
    series = defaultdict(list)
    for entry in measured:
        if number := _SLICE_NUMBER.fullmatch(entry.slice_id):
            series[entry.patient_id, number[1]].append((int(number[2]), entry))
    neighbors = {}
    for numbered in series.values():
        numbered.sort(key=lambda pair: (pair[0], pair[1].slice_id))
        entries = [entry for _, entry in numbered]
        for before, entry, after in zip(entries, entries[1:], entries[2:], strict=False):
            neighbors[entry.slice_id] = (before.measures.lung_share, after.measures.lung_share)
    return neighbors


def _rank(judged: JudgedSlice) -> tuple[int, float, str]:
    agreement = judged.entry.measures.edge_agreement
    # No agreement is above 1, so masks without a rim come last among equals.
    return -judged.severity, 2.0 if agreement is None else agreement, judged.entry.slice_id
