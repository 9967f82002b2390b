"""``report.html``: what came of a demo, in one file that can be sent around."""

import base64
import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from preprocessing.publish import write_text

FILENAME = "report.html"
STAGES_FILENAME = "stages.json"
NUM_OVERLAYS = 12


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of the road, as it ran."""

    name: str
    """Such as ``train``."""

    command: str
    """What was run."""

    seconds: float
    """Wall time, with the start of the program."""


def write_report(
    out: Path, *, stages: Sequence[Stage], slice_ids: Sequence[str], num_equal: int
) -> Path:
    """Writes the page of a demo, and the seconds of its stages as ``stages.json``.

    Args:
        out: the demo's folder, with ``dataset``, ``run``, ``evaluation`` and ``predictions``.
        stages: in the order in which they ran.
        slice_ids: of the slices whose masks were served.
        num_equal: how many of these masks equal the trainer's own.

    Returns:
        The page.

    Raises:
        OSError: if a file is missing or cannot be written.
    """
    evaluation = _read_json(out / "evaluation" / "evaluation.json")
    summary = _read_json(out / "predictions" / "summary.json")
    with (out / "run" / "history.csv").open(encoding="utf-8", newline="") as file:
        num_epochs = sum(1 for _ in csv.DictReader(file))
    page = _template().render(
        stages=stages,
        seconds=sum(stage.seconds for stage in stages),
        dataset=_read_json(out / "dataset" / "dataset.json"),
        settings=_read_json(out / "run" / "config.json"),
        num_epochs=num_epochs,
        overall=evaluation["overall"],
        patients=evaluation["by_patient"],
        summary=summary,
        num_served=len(slice_ids),
        num_equal=num_equal,
        curves=_embedded(out / "run" / "curves.png"),
        predictions=_embedded(out / "evaluation" / "predictions.png"),
        overlays=[
            (slice_id, _embedded(out / "predictions" / "overlays" / f"{slice_id}.png"))
            for slice_id in _spread(_with_lung(evaluation["by_slice"]), NUM_OVERLAYS)
        ],
    )
    seconds = {stage.name: round(stage.seconds, 2) for stage in stages}
    write_text(out / STAGES_FILENAME, json.dumps(seconds, indent=2) + "\n")
    write_text(out / FILENAME, page)
    return out / FILENAME


def _with_lung(by_slice: Sequence[dict[str, Any]]) -> list[str]:
    return sorted(e["slice_id"] for e in by_slice if e["mask_area_px"] or e["predicted_area_px"])


def _spread(slice_ids: Sequence[str], count: int) -> list[str]:
    """Takes at most ``count`` of them, evenly spread."""
    step = max(len(slice_ids) / count, 1)
    return [slice_ids[int(index * step)] for index in range(min(count, len(slice_ids)))]


def _embedded(picture: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")
