"""A DICOM series to lungs in milliliters, end to end: ours beside a loop that one writes by hand.

The series has many slices: those of a real patient, with others interpolated between them, or of
phantoms where there are none. Both ways ask the same server in a process of its own on the same
cores, for the same model. The loop reads with pydicom, asks for one slice after the other, and
saves a NIfTI; it checks nothing, cleans nothing, and writes no SEG and no pictures. While ours
waits for the model it cleans the masks of the slices before.
"""

import logging
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from PIL import Image
from served_model import Server, model_of, parser_of, servers, some_slices
from slices import ROOT, default_folders

from serving.client import SegmentationClient
from serving.config import PredictConfig
from serving.volumes.job import run
from serving.volumes.scan_results import ScanResult

sys.path.insert(0, str(ROOT))  # the tests are no package that is installed
from tests.scan_files import write_series  # noqa: E402

SIZE = 512
PATIENT = "LCTSC-Test-S1-103"
LOWEST_HU, WIDTH_HU = -1350, 1500
SPACING_MM = (1.0, 0.98, 0.98)


def make_series(folder: Path, *, num_slices: int) -> str:
    """Writes the series, and says what it is of."""
    paths = sorted(default_folders()[0].glob(f"{PATIENT}_z*.bmp"))
    kind = "real slices and between them"
    images = [np.asarray(Image.open(path).convert("L")) for path in paths]
    if not images:
        kind, images = some_slices(50, size=SIZE)
    places = np.linspace(0, len(images) - 1, num_slices)
    hounsfield = np.empty((num_slices, SIZE, SIZE), np.int16)
    for index, place in enumerate(places):
        below = min(int(place), len(images) - 2)
        share = place - below
        gray_values = (1 - share) * images[below] + share * images[below + 1]
        hounsfield[index] = np.rint(gray_values * (WIDTH_HU / 255) + LOWEST_HU)
    write_series(folder, hounsfield, spacing=SPACING_MM)
    return kind


def ours(series: Path, out: Path, server: Server, *, flips: str) -> ScanResult:
    """``python -m serving predict``, without the start of Python."""
    config = PredictConfig(inputs=[series], out=out, target=server.target, flips=flips)
    (result,) = run(config).results
    if result.error:
        sys.exit(result.error)
    return result


def by_hand(series: Path, out: Path, server: Server) -> float:
    """A loop over the files; gives the seconds that it waits for the server."""
    headers = [pydicom.dcmread(path) for path in series.iterdir()]
    headers.sort(key=lambda header: header.ImagePositionPatient[2])
    masks, waited = [], 0.0
    with SegmentationClient(server.target) as client:
        for header in headers:
            hounsfield = header.pixel_array * header.RescaleSlope + header.RescaleIntercept
            gray = ((hounsfield - LOWEST_HU) / WIDTH_HU).clip(0, 1) * 255
            start = time.perf_counter()
            masks.append(client.predict(np.rint(gray).astype(np.uint8)))
            waited += time.perf_counter() - start
    affine = np.diag([-SPACING_MM[2], -SPACING_MM[1], SPACING_MM[0], 1.0])
    out.mkdir()
    nib.save(nib.Nifti1Image(np.stack(masks).transpose(2, 1, 0), affine), out / "lungs.nii.gz")
    return waited


def main() -> None:
    """Reads the flags and measures."""
    parser = parser_of(__doc__, image_size=256, filters=16)
    parser.add_argument("--slices", type=int, default=300)
    flags = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = model_of(flags, folder)
        kind = make_series(folder / "series", num_slices=flags.slices)
        rows: dict[str, list[tuple[float, float, float]]] = {}
        with servers(model) as (server,):
            for _ in range(flags.rounds):
                for way in ("by hand", "ours, no flips", "ours"):
                    out = folder / "out"
                    start = time.perf_counter()
                    if way == "by hand":
                        reading, waited = 0.0, by_hand(folder / "series", out, server)
                    else:
                        flips = "none" if way != "ours" else "horizontal"
                        result = ours(folder / "series", out, server, flips=flips)
                        reading, waited = result.reading_s or 0.0, result.model_s or 0.0
                    total = time.perf_counter() - start
                    rows.setdefault(way, []).append((total, waited, reading))
                    print(f"{way}: {total:.1f} s", file=sys.stderr, flush=True)
                    shutil.rmtree(out)
    print(f"\n{flags.slices} slices of {SIZE}x{SIZE} as DICOM ({kind}); {flags.model or 'a new'} "
          f"model; {flags.rounds} rounds\n")  # fmt: skip
    print("| way | time, ratio | s | share of masks asked for | reading, s | after the masks, s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for way, times in rows.items():
        ratio = statistics.median(a[0] / b[0] for a, b in zip(times, rows["by hand"], strict=True))
        total, waited, reading = (statistics.median(column) for column in zip(*times, strict=True))
        print(
            f"| {way} | {ratio:.2f} | {total:.1f} | {waited / total:.2f} | {reading:.1f} "
            f"| {total - waited - reading:.1f} |"
        )


if __name__ == "__main__":
    main()
