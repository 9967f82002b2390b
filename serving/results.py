"""What came of each slice, in files and in a few lines of text."""

import csv
import dataclasses
import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preprocessing.publish import write_text

CSV_FILENAME = "summary.csv"
JSON_FILENAME = "summary.json"


@dataclass(frozen=True, kw_only=True)
class SliceResult:
    """What came of one slice."""

    file: str
    """Path as given."""

    height: int | None = None
    """Rows of the slice; None if it could not be read."""

    width: int | None = None
    """Columns of the slice; None if it could not be read."""

    lung_area_px: int | None = None
    """Pixels of lung in the mask; None if there is no mask."""

    lung_fraction: float | None = None
    """Share of the slice that is lung, 0 to 1."""

    model_version: int | None = None
    """Version of the model that made the mask."""

    milliseconds: float | None = None
    """From the request to the mask, as the client sees it."""

    error: str = ""
    """Why there is no mask; empty if there is one."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What came of a run."""

    results: Sequence[SliceResult]
    """One for each slice that was tried, now or in an earlier run."""

    seconds: float
    """Wall time of the run, with reading and writing."""

    stopped: str = ""
    """Why slices were left out; empty if each was tried."""

    num_finished_before: int = 0
    """Slices whose masks are of an earlier run."""

    @property
    def failed(self) -> list[SliceResult]:
        """The slices without a mask."""
        return [result for result in self.results if result.error]

    @property
    def num_masks(self) -> int:
        """Number of slices with a mask."""
        return len(self.results) - len(self.failed)

    def figures(self) -> dict[str, float | int | None]:
        """Gives counts and times; a time is None where no mask was made."""
        times = sorted(r.milliseconds for r in self.results if r.milliseconds is not None)
        num_made = self.num_masks - self.num_finished_before
        return {
            "num_masks": self.num_masks,
            "num_finished_before": self.num_finished_before,
            "num_failed": len(self.failed),
            "slices_per_s": round(num_made / self.seconds, 2) if self.seconds > 0 else None,
            "median_ms": round(statistics.median(times), 2) if times else None,
            "p95_ms": round(percentile(times, 0.95), 2) if times else None,
        }

    def to_text(self) -> str:
        """Gives the end of a run in a line or two."""
        figures = self.figures()
        num_made = self.num_masks - self.num_finished_before
        text = f"{_counted(num_made, 'mask')} in {self.seconds:.1f} s"
        if num_made:
            text += (
                f" ({figures['slices_per_s']} slices/s), "
                f"answers in {figures['median_ms']} ms (median) and {figures['p95_ms']} ms (p95)"
            )
        if self.num_masks and not any(result.lung_area_px for result in self.results):
            text += "\nno mask shows any lung: is the model trained, and are these chest slices?"
        if self.num_finished_before:
            text += f"\n{_counted(self.num_finished_before, 'mask')} of an earlier run"
        if self.failed:
            text += f"\n{_counted(len(self.failed), 'slice')} failed; each reason stands above"
        return text


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def percentile(ordered: Sequence[float], share: float) -> float:
    """Gives the smallest value that at least a share of all values does not exceed.

    Args:
        ordered: values in ascending order, one at least.
        share: above 0, up to 1.

    Raises:
        ValueError: if there are no values.

    Source: the nearest-rank method.
    """
    if not ordered:
        raise ValueError("a percentile of no values is not defined; expected one at least")
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


def write_summary(out: Path, summary: Summary, *, options: Mapping[str, Any]) -> None:
    """Writes ``summary.csv``, a row for each slice, and ``summary.json``, which adds the figures.

    Args:
        out: folder, made if it is missing.
        summary: what came of the run.
        options: the configuration of the run, and what is known of the model.

    Raises:
        OSError: if a file cannot be written.
    """
    rows = [dataclasses.asdict(result) for result in summary.results]
    document = {
        "options": dict(options),
        **summary.figures(),
        "seconds": round(summary.seconds, 3),
        "stopped": summary.stopped,
        "slices": rows,
    }
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, [field.name for field in dataclasses.fields(SliceResult)])
    writer.writeheader()
    writer.writerows(rows)
    write_text(out / CSV_FILENAME, table.getvalue())
    write_text(out / JSON_FILENAME, json.dumps(document, indent=2) + "\n")
