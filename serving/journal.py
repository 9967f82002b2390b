"""Which slices a run has finished, so that the next one goes on from there.

``journal.jsonl`` in the folder of the results: the settings that results depend on, then a line for
each slice that has its mask. A line counts while the slice has the size and the time of then, its
results are there, and no other slice has written results of the same name since.
"""

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from serving.results import SliceResult

JOURNAL_FILENAME = "journal.jsonl"


class Journal:
    """The journal of a folder of results, open to be written.

    Attributes:
        other_settings: what differs from the settings of the results that are there, such as
            ``flips``; they do not count then.
    """

    def __init__(self, folder: Path, *, settings: Mapping[str, Any], resume: bool) -> None:
        """Reads what an earlier run has finished, and begins anew where that does not count.

        Args:
            folder: of the results; made if it is missing.
            settings: on which the results depend; plain JSON.
            resume: whether earlier results are wanted.

        Raises:
            OSError: if it cannot be read or written.
        """
        path = folder / JOURNAL_FILENAME
        self.other_settings: list[str] = []
        self._finished: dict[str, Mapping[str, Any]] = {}
        lines = _read_lines(path) if resume else []
        if lines:
            earlier = lines[0].get("settings", {})
            self.other_settings = sorted(
                name
                for name in {*settings, *earlier}
                if earlier.get(name) != dict(settings).get(name)
            )
        if lines and not self.other_settings:
            last = {line["name"]: line for line in lines[1:]}
            self._finished = {line["result"]["file"]: line for line in last.values()}
            self._file = path.open("a", encoding="utf-8")
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8")
        self._write({"settings": dict(settings)})

    def result_of(self, path: Path, results: Iterable[Path]) -> SliceResult | None:
        """Gives what an earlier run made of a slice; None if it has to be made.

        Args:
            path: of the slice.
            results: files that have to be there.
        """
        line = self._finished.get(str(path))
        if line is None or line["stamp"] != _stamp(path):
            return None
        if not all(result.exists() for result in results):
            return None
        return SliceResult(**line["result"])

    def add(self, path: Path, name: Path, result: SliceResult) -> None:
        """Notes that a slice has its results, which are on the disk.

        Args:
            path: of the slice.
            name: of its results.
            result: what it came to.

        Raises:
            OSError: if that cannot be written.
        """
        line = {"name": str(name), "stamp": _stamp(path), "result": dataclasses.asdict(result)}
        self._write(line)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> Self:
        """Gives the journal itself."""
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the file."""
        self.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def _stamp(path: Path) -> list[int]:
    """Gives size in bytes and time of change in nanoseconds; of nothing, nothing."""
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _read_lines(path: Path) -> list[Mapping[str, Any]]:
    """Reads the whole lines; the last may be torn by a kill, and is cut off then."""
    if not path.exists():
        return []
    lines: list[Mapping[str, Any]] = []
    end = 0
    with path.open("rb+") as file:
        for line in file:
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
            end += len(line)
        file.truncate(end)
    return lines
