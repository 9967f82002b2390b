"""A page with slices and the outlines of their masks, the worst first, in one file."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from preprocessing.config import BY_PATIENT
from preprocessing.finding import printable
from preprocessing.inspection.findings import KINDS, Finding, JudgedSlice
from preprocessing.inspection.scan import read_again
from preprocessing.inspection.tables import (
    SPLIT_BY_SLICE_WARNING,
    count_findings,
    mebibytes,
    num_bytes_of,
    num_patients_of,
    num_slices_of,
    options_text,
)
from preprocessing.inspection.thumbnails import Thumbnail, draw_thumbnail
from preprocessing.manifest import DatasetManifest
from preprocessing.publish import write_text

MAX_PAGE_REFUSED = 100
MAX_PAGE_PATIENTS = 1000


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What the page shows of one slice."""

    slice_id: str
    """Which slice it is, printable."""

    patient_id: str
    """Whose slice it is, printable; empty if that is not known."""

    split: str
    """``train`` or ``validation``."""

    lung_percent: float
    """Share of the slice that is lung, in percent."""

    findings: tuple[Finding, ...]
    """What is odd about it."""

    slice_url: str
    """The slice, embedded."""

    mask_url: str
    """Its mask as drawn, embedded."""

    height: int
    """Rows of both pictures."""

    width: int
    """Columns of both pictures."""


def write_gallery(
    page: Path,
    *,
    dataset_dir: Path,
    dataset: DatasetManifest,
    judged: Sequence[JudgedSlice],
    max_slices: int,
) -> int:
    """Writes the page, whole or not at all; an older one is replaced.

    Args:
        page: the file to write.
        dataset_dir: folder of the dataset.
        dataset: its manifest.
        judged: all of its slices, the worst first.
        max_slices: at most this many are shown.

    Returns:
        How many slices are shown.

    Raises:
        PreprocessingError: if the dataset is replaced meanwhile.
        DamagedShardError: if a shard is truncated or damaged.
        OSError: if a shard cannot be read, or the page cannot be written.
    """
    shown = judged[:max_slices]
    pictures = _draw(dataset_dir, shown)
    patients = _patient_rows(dataset)
    num_odd = sum(1 for entry in judged if entry.severity)
    num_odd_shown = min(num_odd, len(shown))
    text = _template().render(
        name=printable(dataset_dir.resolve().name),
        dataset=dataset,
        split_warning="" if dataset.split_by == BY_PATIENT else SPLIT_BY_SLICE_WARNING,
        num_slices=num_slices_of(dataset),
        num_patients=num_patients_of(dataset),
        size=mebibytes(num_bytes_of(dataset)),
        splits=_split_rows(dataset, judged),
        kinds=KINDS,
        counts=count_findings(judged),
        num_odd=num_odd,
        odd=pictures[:num_odd_shown],
        others=pictures[num_odd_shown:],
        num_others=len(judged) - num_odd,
        patients=patients[:MAX_PAGE_PATIENTS],
        num_more_patients=max(0, len(patients) - MAX_PAGE_PATIENTS),
        refused=[
            (printable(entry.file), printable(entry.reason))
            for entry in dataset.refused[:MAX_PAGE_REFUSED]
        ],
        options=options_text(dataset.options),
        versions=options_text(dataset.versions),
    )
    write_text(page, text)
    return len(shown)


def _draw(dataset_dir: Path, shown: Sequence[JudgedSlice]) -> list[Picture]:
    thumbnails = {
        (entry.shard, entry.record_index): draw_thumbnail(example)
        for entry, example in read_again(dataset_dir, [judged.entry for judged in shown])
    }
    return [
        _picture(judged, thumbnails[judged.entry.shard, judged.entry.record_index])
        for judged in shown
    ]


def _picture(judged: JudgedSlice, thumbnail: Thumbnail) -> Picture:
    return Picture(
        slice_id=printable(judged.entry.slice_id),
        patient_id=printable(judged.entry.patient_id),
        split=judged.entry.split,
        lung_percent=100 * judged.entry.measures.lung_share,
        findings=judged.findings,
        slice_url=_embedded(thumbnail.slice_jpeg, "image/jpeg"),
        mask_url=_embedded(thumbnail.mask_png, "image/png"),
        height=thumbnail.height,
        width=thumbnail.width,
    )


def _split_rows(
    dataset: DatasetManifest, judged: Sequence[JudgedSlice]
) -> list[tuple[str, int, float, int, int, str, float]]:
    """Gives name, slices, their percentage, patients, shards, MiB and percentage of lung."""
    rows = []
    for name, split in dataset.splits.items():
        measures = [entry.entry.measures for entry in judged if entry.entry.split == name]
        num_pixels = max(1, sum(of_slice.num_pixels for of_slice in measures))
        rows.append(
            (
                name,
                split.num_examples,
                100 * split.num_examples / max(1, num_slices_of(dataset)),
                len(split.patients),
                len(split.shards),
                mebibytes(sum(shard.num_bytes for shard in split.shards)),
                100 * sum(of_slice.lung_area_px for of_slice in measures) / num_pixels,
            )
        )
    return rows


def _patient_rows(dataset: DatasetManifest) -> list[tuple[str, str, int]]:
    """Gives patient, split and number of slices."""
    return [
        (printable(patient), name, num_slices)
        for name, split in dataset.splits.items()
        for patient, num_slices in split.patients.items()
    ]


def _embedded(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("gallery.html.j2")
