"""From slices in a folder to masks in another, over gRPC: ``run`` reads from top to bottom."""

import dataclasses
import io
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from preprocessing.images.reading import (
    IMAGE_SUFFIXES,
    UnreadableImageError,
    decode_slice,
    read_slice,
)
from preprocessing.publish import write_bytes
from preprocessing.spec import MASK_FILE_FOREGROUND
from serving.client import SegmentationClient
from serving.config import PredictConfig
from serving.errors import (
    CallError,
    InputError,
    ModelNotFoundError,
    RefusedInputError,
    ServerUnavailableError,
    SignatureError,
    UnexpectedAnswerError,
)
from serving.overlay import draw_overlay
from serving.results import SliceResult, Summary, write_summary
from trainer.postprocessing import clean_mask
from trainer.signature import ENCODED_SIGNATURE, PROBABILITY_THRESHOLD
from trainer.test_time import NO_FLIPS

logger = logging.getLogger(__name__)

MASKS = "masks"
OVERLAYS = "overlays"

_CONCERNS_EVERY_SLICE = (ServerUnavailableError, ModelNotFoundError, SignatureError)
_MAX_FAILED_CALLS_IN_A_ROW = 3
_MAX_REFUSED_AT_FIRST = 10
_PNG_COMPRESSION = 1
"""Pictures to look at: zlib's fastest level."""

Progress = Callable[[list["SliceFile"]], Iterable["SliceFile"]]


@dataclass(frozen=True, kw_only=True)
class SliceFile:
    """A slice to segment."""

    path: Path
    """Where it is."""

    name: Path
    """Name of its results without suffix, below ``masks`` and ``overlays``."""


def run(
    config: PredictConfig,
    *,
    progress: Progress = iter,
    on_failure: Callable[[str], None] = logger.warning,
) -> Summary:
    """Segments every slice of the input, and writes masks, overlays and the summary.

    A slice that fails is told and counted, and the others go on. The run ends early when the
    server is gone, has no such model, fails three times in a row, or refuses the first ten slices.

    Args:
        config: what, where to, and which server.
        progress: goes through the list of slices, perhaps showing how far it is.
        on_failure: is told each failure in one line, as soon as it is known.

    Returns:
        What came of each slice that was tried.

    Raises:
        InputError: if there is no slice, or the results cannot be written.
    """
    slices = find_slices(config.input, out=config.out)
    results: list[SliceResult] = []
    stopped = ""
    start = time.perf_counter()
    try:
        with SegmentationClient(
            config.target,
            model_name=config.model_name,
            model_version=config.model_version,
            timeout_s=config.timeout_s,
        ) as client:
            try:
                for result in _segment_all(progress(slices), client, config):
                    results.append(result)
                    if result.error:
                        on_failure(result.error)
            except CallError as error:
                # What is done so far is still told below.
                stopped = _stop_reason(error, num_left=len(slices) - len(results))
        summary = Summary(results=results, seconds=time.perf_counter() - start, stopped=stopped)
        options = {
            **{key: _plain(value) for key, value in dataclasses.asdict(config).items()},
            "answered_version": client.answered_version,
        }
        if results:  # else the table of an earlier run is worth more than an empty one
            write_summary(config.out, summary, options=options)
    except OSError as error:
        raise InputError(f"{config.out} cannot be written: {error}; give another --out") from error
    return summary


def find_slices(source: Path, *, out: Path) -> list[SliceFile]:
    """Lists the slices of a file or folder, sorted by path.

    A folder is searched for files named as images. The masks and overlays below ``out``
    are left out, so that a second run does not segment the masks of the first.

    Args:
        source: a file, or a folder.
        out: where the results go.

    Raises:
        InputError: if there is none, if a folder cannot be read, or if masks would replace slices.
    """
    results = [(out / kind).resolve() for kind in (MASKS, OVERLAYS)]
    if any(source.resolve().is_relative_to(folder) for folder in results):
        raise InputError(
            f"{source} lies where results go, in {MASKS} or {OVERLAYS} of {out}; give another --out"
        )
    if source.is_file():
        return [SliceFile(path=source, name=Path(source.stem))]
    if not source.is_dir():
        found = "is neither a file nor a folder" if source.exists() else "does not exist"
        raise InputError(f"{source} {found}; expected a slice, or a folder of slices")
    paths = sorted(
        path
        for path in _walk(source, leave_out=results)
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    )
    if not paths:
        raise InputError(
            f"{source} holds no file named {', '.join(f'*{suffix}' for suffix in IMAGE_SUFFIXES)}; "
            "expected slices"
        )
    names = [path.relative_to(source).with_suffix("") for path in paths]
    if len(set(names)) < len(names):
        # a.bmp beside a.png: all keep their suffix. If only these two did, a.bmp.bmp would clash.
        names = [path.relative_to(source) for path in paths]
    return [SliceFile(path=path, name=name) for path, name in zip(paths, names, strict=True)]


def segment(
    slice_file: SliceFile, *, client: SegmentationClient, config: PredictConfig
) -> SliceResult:
    """Segments one slice and writes its mask and overlay; without overlays, an old one goes.

    Raises:
        UnreadableImageError: if the file is no slice.
        CallError: one of its kinds, if there is no mask.
        OSError: if a result cannot be written.
    """
    image = read_slice(slice_file.path)
    height, width = image.shape
    start = time.perf_counter()
    if config.signature == ENCODED_SIGNATURE.name:
        mask_file = client.predict_encoded(slice_file.path.read_bytes())
        milliseconds = 1000 * (time.perf_counter() - start)
        mask = _decoded_mask(mask_file, height=height, width=width)
    else:
        mask = _mask_from_pixels(image, client=client, flips=config.flips)
        milliseconds = 1000 * (time.perf_counter() - start)
        mask_file = _png_of_mask(mask)
    if config.postprocess:
        mask = clean_mask(mask)
        mask_file = _png_of_mask(mask)
    write_bytes(_result_path(config.out, MASKS, slice_file), mask_file)
    overlay_path = _result_path(config.out, OVERLAYS, slice_file)
    if config.overlays:
        write_bytes(overlay_path, _png(draw_overlay(image, mask)))
    else:
        overlay_path.unlink(missing_ok=True)
    lung_area_px = int(np.count_nonzero(mask))
    return SliceResult(
        file=str(slice_file.path),
        height=height,
        width=width,
        lung_area_px=lung_area_px,
        lung_fraction=round(lung_area_px / mask.size, 6),
        milliseconds=round(milliseconds, 2),
    )


def _segment_all(
    slices: Iterable[SliceFile], client: SegmentationClient, config: PredictConfig
) -> Iterator[SliceResult]:
    """Gives a result for each slice.

    Raises:
        CallError: if going on is of no use.
    """
    num_masks = num_refused = failed_in_a_row = 0
    for slice_file in slices:
        file = str(slice_file.path)
        try:
            result = segment(slice_file, client=client, config=config)
            num_masks, failed_in_a_row = num_masks + 1, 0
        except UnreadableImageError as error:
            result = SliceResult(file=file, error=str(error))
        except _CONCERNS_EVERY_SLICE:
            raise
        except RefusedInputError as error:
            num_refused += 1
            if not num_masks and num_refused == _MAX_REFUSED_AT_FIRST:
                raise
            result = SliceResult(file=file, error=f"{file}: {error}")
        except CallError as error:
            failed_in_a_row += 1
            if failed_in_a_row == _MAX_FAILED_CALLS_IN_A_ROW:
                raise
            result = SliceResult(file=file, error=f"{file}: {error}")
        if result.error:
            for kind in (MASKS, OVERLAYS):  # an earlier run may have left some
                _result_path(config.out, kind, slice_file).unlink(missing_ok=True)
        yield result


def _walk(folder: Path, *, leave_out: Sequence[Path]) -> Iterator[Path]:
    """Gives all files of a folder; links to folders are not followed but told.

    Raises:
        InputError: if a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise InputError(
            f"{error.filename} cannot be read: {error.strerror}; check its rights"
        ) from error

    links: list[str] = []
    for root, folders, names in os.walk(folder, onerror=fail):
        here = Path(root)
        links.extend(str(here / name) for name in folders if (here / name).is_symlink())
        folders[:] = [name for name in folders if (here / name).resolve() not in leave_out]
        yield from (here / name for name in names)
    if links:
        logger.warning(
            "links to folders are not followed: %s; give each as INPUT", ", ".join(sorted(links))
        )


def _stop_reason(error: CallError, *, num_left: int) -> str:
    return str(error) if num_left == 1 else f"stopped with {num_left} slices left: {error}"


def _mask_from_pixels(
    image: npt.NDArray[np.uint8], *, client: SegmentationClient, flips: str
) -> npt.NDArray[np.uint8]:
    if flips == NO_FLIPS:
        return client.predict(image)
    probability = client.probability(image, flips=flips)
    return (probability >= PROBABILITY_THRESHOLD).astype(np.uint8)


def _decoded_mask(mask_file: bytes, *, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Reads the server's mask file; 1 is lung.

    Raises:
        UnexpectedAnswerError: if it is no mask of this size.
    """
    try:
        mask = decode_slice(mask_file, source="the server's mask")
    except UnreadableImageError as error:
        raise UnexpectedAnswerError(str(error)) from error
    if mask.shape != (height, width) or not np.isin(mask, (0, MASK_FILE_FOREGROUND)).all():
        raise UnexpectedAnswerError(
            f"the server's mask is {list(mask.shape)} with gray values up to {mask.max()}; "
            f"expected {[height, width]} with 0 and {MASK_FILE_FOREGROUND} only"
        )
    return (mask > 0).astype(np.uint8)


def _result_path(out: Path, kind: str, slice_file: SliceFile) -> Path:
    # Not with_suffix: a name may hold dots of its own, such as series.1.0042
    return out / kind / slice_file.name.parent / f"{slice_file.name.name}.png"


def _png_of_mask(mask: npt.NDArray[np.uint8]) -> bytes:
    return _png(mask * np.uint8(MASK_FILE_FOREGROUND))


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG", compress_level=_PNG_COMPRESSION)
    return encoded.getvalue()


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value
