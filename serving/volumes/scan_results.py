"""What came of each scan, in files and in a few lines of text."""

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preprocessing.publish import write_text

CSV_FILENAME = "scans.csv"
RESULT_FILENAME = "result.json"


@dataclass(frozen=True, kw_only=True)
class ScanResult:
    """What came of one scan."""

    name: str
    """Of its folder of results."""

    num_slices: int | None = None
    """Slices; None if it could not be read."""

    right_ml: float | None = None
    """Volume of the right lung in milliliters; None if it was not found, or not told apart."""

    left_ml: float | None = None
    """Of the left lung."""

    lungs_ml: float | None = None
    """Of both; None if there is no result."""

    model_version: int | None = None
    """Version of the model that made the masks."""

    reading_s: float | None = None
    """Seconds to read the files."""

    model_s: float | None = None
    """Seconds from the first request to the last mask."""

    total_s: float | None = None
    """Seconds of all, with writing."""

    warnings: tuple[str, ...] = ()
    """What a person should look at."""

    error: str = ""
    """Why there is no result; empty if there is one."""


@dataclass(frozen=True, kw_only=True)
class ScanSummary:
    """What came of a run."""

    results: Sequence[ScanResult]
    """One for each scan that was tried, now or earlier."""

    num_finished_before: int = 0
    """Scans whose results are of an earlier run."""

    stopped: str = ""
    """Why scans were left out; empty if each was tried."""

    @property
    def failed(self) -> list[ScanResult]:
        """The scans without a result."""
        return [result for result in self.results if result.error]

    def to_text(self) -> str:
        """Gives a line for each scan, and the end of the run."""
        lines = [_line(result) for result in self.results if not result.error]
        if self.num_finished_before:
            lines.append(f"{self.num_finished_before} of them by an earlier run")
        if self.failed:
            lines.append(f"{len(self.failed)} failed; each reason stands above")
        return "\n".join(lines)


def write_result(path: Path, result: ScanResult, *, facts: Mapping[str, Any]) -> None:
    """Writes what came of a scan, and what else is known, as JSON.

    Raises:
        OSError: if it cannot be written.
    """
    document = {**dataclasses.asdict(result), **facts}
    write_text(path, json.dumps(document, indent=2) + "\n")


def read_result(path: Path, *, facts: Mapping[str, Any]) -> ScanResult | None:
    """Reads what an earlier run wrote; gives None if there is nothing, or its facts are others."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if any(document.pop(name) != value for name, value in facts.items()):
            return None
        names = {field.name for field in dataclasses.fields(ScanResult)}
        known = {name: value for name, value in document.items() if name in names}
        return ScanResult(**known | {"warnings": tuple(known["warnings"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_table(out: Path, results: Sequence[ScanResult]) -> None:
    """Writes ``scans.csv``, a row for each scan.

    Raises:
        OSError: if it cannot be written.
    """
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, [field.name for field in dataclasses.fields(ScanResult)])
    writer.writeheader()
    for result in results:
        writer.writerow(dataclasses.asdict(result) | {"warnings": "; ".join(result.warnings)})
    write_text(out / CSV_FILENAME, table.getvalue())


def _line(result: ScanResult) -> str:
    sides = [
        f"{side} {volume:.0f}"
        for side, volume in (("right", result.right_ml), ("left", result.left_ml))
        if volume is not None
    ]
    apart = f" ({', '.join(sides)})" if sides else ""
    return (
        f"{result.name}: {result.lungs_ml or 0:.0f} mL{apart}; {result.num_slices} slices in "
        f"{result.total_s or 0:.1f} s"
    )
