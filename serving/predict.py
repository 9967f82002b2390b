"""From slices in a folder to masks in another, over gRPC: ``run`` reads from top to bottom."""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocessing.images.reading import UnreadableImageError, decode_slice, read_slice
from preprocessing.publish import write_bytes
from preprocessing.spec import MASK_FILE_FOREGROUND
from serving.client import SegmentationClient, mask_of_pixels
from serving.config import PredictConfig
from serving.endpoint import Endpoint
from serving.errors import (
    CallError,
    InputError,
    ModelNotFoundError,
    RefusedInputError,
    ServerUnavailableError,
    SignatureError,
    UnexpectedAnswerError,
)
from serving.journal import Journal
from serving.mask_files import WRITERS, png_of, png_of_mask
from serving.overlay import draw_overlay
from serving.pipeline import in_order
from serving.results import SliceResult, Summary, write_summary
from serving.slice_files import SliceFile, find_slices
from trainer.postprocessing import clean_mask
from trainer.signature import ENCODED_SIGNATURE

logger = logging.getLogger(__name__)

MASKS = "masks"
OVERLAYS = "overlays"

_CONCERNS_EVERY_SLICE = (ServerUnavailableError, ModelNotFoundError, SignatureError)
_MAX_FAILED_CALLS_IN_A_ROW = 3
_MAX_REFUSED_AT_FIRST = 10
_RESULTS_DEPEND_ON = (
    "model_name",
    "model_version",
    "model_label",
    "signature",
    "postprocess",
    "masks_as",
    "overlays",
)
"""Settings with which the results of an earlier run are other results."""

Progress = Callable[[list[SliceFile]], Iterable[SliceFile]]
Outcome = SliceResult | CallError


def run(
    config: PredictConfig,
    *,
    progress: Progress = iter,
    on_failure: Callable[[str], None] = logger.warning,
) -> Summary:
    """Segments every slice of the input, and writes masks, overlays and the summary.

    Several slices are under way at the same time. A slice that fails is told and counted, and the
    others go on. The run ends early when the server is gone, has no such model, fails three times
    in a row, or refuses the first ten slices. What an earlier run into the same folder has
    finished is not made again.

    Args:
        config: what, where to, and which server.
        progress: goes through the list of slices to segment, perhaps showing how far it is.
        on_failure: is told each failure in one line, as soon as it is known.

    Returns:
        What came of each slice that was tried, now or earlier.

    Raises:
        InputError: if there is no slice, or the results cannot be written.
    """
    slices = find_slices(config.inputs, results=[config.out / MASKS, config.out / OVERLAYS])
    start = time.perf_counter()
    try:
        with Journal(config.out, settings=_settings(config), resume=config.resume) as journal:
            finished = _finished_before(slices, config, journal)
            to_do = [each for each in slices if each.path not in finished]
            results, stopped, version = _segment_all(
                to_do,
                config,
                journal,
                num_masks=len(finished),
                progress=progress,
                on_failure=on_failure,
            )
        made = dict(zip((each.path for each in to_do), results, strict=False)) | finished
        summary = Summary(
            results=[made[each.path] for each in slices if each.path in made],
            seconds=time.perf_counter() - start,
            stopped=stopped,
            num_finished_before=len(finished),
        )
        options = {key: _plain(value) for key, value in dataclasses.asdict(config).items()}
        options |= {"flips": config.flip_set, "answered_version": version}
        if made:  # else the table of an earlier run is worth more than an empty one
            write_summary(config.out, summary, options=options)
    except OSError as error:
        raise InputError(f"{config.out} cannot be written: {error}; give another --out") from error
    return summary


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
    mask_file = None
    if config.signature == ENCODED_SIGNATURE.name:
        mask_file = client.predict_encoded(slice_file.path.read_bytes())
        milliseconds = 1000 * (time.perf_counter() - start)
        mask = _decoded_mask(mask_file, height=height, width=width)
    else:
        mask = mask_of_pixels(image, client=client, flips=config.flip_set)
        milliseconds = 1000 * (time.perf_counter() - start)
    if config.postprocess:
        mask, mask_file = clean_mask(mask, image), None
    paths = mask_paths(config, slice_file)
    for name, (_, encode) in WRITERS.items():
        if name not in config.masks_as:
            paths[name].unlink(missing_ok=True)
        elif mask_file and encode is png_of_mask:
            write_bytes(paths[name], mask_file)  # as the server made it
        else:
            write_bytes(paths[name], encode(mask))
    overlay_path = _overlay_path(config, slice_file)
    if config.overlays:
        write_bytes(overlay_path, png_of(draw_overlay(image, mask)))
    else:
        overlay_path.unlink(missing_ok=True)
    lung_area_px = int(np.count_nonzero(mask))
    return SliceResult(
        file=str(slice_file.path),
        height=height,
        width=width,
        lung_area_px=lung_area_px,
        lung_fraction=round(lung_area_px / mask.size, 6),
        model_version=client.answered_version,
        milliseconds=round(milliseconds, 2),
    )


def mask_paths(config: PredictConfig, slice_file: SliceFile) -> dict[str, Path]:
    """Gives where the mask of a slice stands in each format, whether it is asked for or not."""
    folder, stem = config.out / MASKS / slice_file.name.parent, slice_file.name.name
    # Not with_suffix: a name may hold dots of its own, such as series.1.0042
    return {name: folder / f"{stem}{suffix}" for name, (suffix, _) in WRITERS.items()}


def _segment_all(
    slices: list[SliceFile],
    config: PredictConfig,
    journal: Journal,
    *,
    num_masks: int,
    progress: Progress,
    on_failure: Callable[[str], None],
) -> tuple[list[SliceResult], str, int | None]:
    """Segments slices until they are done or going on is of no use.

    Masks that were there before count: a server that has given some does not refuse all.

    Returns:
        A result for each slice up to there, why slices are left, and the version that answered.
    """
    results: list[SliceResult] = []
    num_refused = failed_in_a_row = 0
    client = SegmentationClient(Endpoint.of(config))
    segmented = in_order(partial(_try, client=client, config=config), slices, window=config.window)
    # The client is closed first: that ends the calls under way when the run is interrupted.
    with closing(segmented), client:
        for slice_file, outcome in zip(progress(slices), segmented, strict=True):
            if isinstance(outcome, CallError):
                num_refused += isinstance(outcome, RefusedInputError)
                failed_in_a_row += not isinstance(outcome, RefusedInputError)
                if (
                    isinstance(outcome, _CONCERNS_EVERY_SLICE)
                    or failed_in_a_row == _MAX_FAILED_CALLS_IN_A_ROW
                    or (not num_masks and num_refused == _MAX_REFUSED_AT_FIRST)
                ):
                    stopped = _stop_reason(outcome, num_left=len(slices) - len(results))
                    return results, stopped, _latest_version(results)
                outcome = SliceResult(
                    file=str(slice_file.path), error=f"{slice_file.path}: {outcome}"
                )
            elif not outcome.error:
                num_masks, failed_in_a_row = num_masks + 1, 0
            if outcome.error:
                _remove_results(config, slice_file)  # an earlier run may have left some
                on_failure(outcome.error)
            else:
                journal.add(slice_file.path, slice_file.name, outcome)
            results.append(outcome)
    return results, "", _latest_version(results)


def _try(slice_file: SliceFile, *, client: SegmentationClient, config: PredictConfig) -> Outcome:
    """Segments one slice; gives the error of a call instead of raising it."""
    try:
        return segment(slice_file, client=client, config=config)
    except UnreadableImageError as error:
        return SliceResult(file=str(slice_file.path), error=str(error))
    except CallError as error:
        return error


def _finished_before(
    slices: Sequence[SliceFile], config: PredictConfig, journal: Journal
) -> dict[Path, SliceResult]:
    """Gives what earlier runs made of these slices, and says how much of it counts."""
    if journal.other_settings:
        logger.warning(
            "%s holds results of other settings (%s), so all slices are segmented anew",
            config.out,
            ", ".join(journal.other_settings),
        )
    finished: dict[Path, SliceResult] = {}
    for slice_file in slices:
        paths = mask_paths(config, slice_file)
        needed = [paths[name] for name in config.masks_as]
        if config.overlays:
            needed.append(_overlay_path(config, slice_file))
        result = journal.result_of(slice_file.path, needed)
        if result:
            finished[slice_file.path] = result
    if finished:
        versions = sorted({str(result.model_version) for result in finished.values()})
        logger.info(
            "%d of %d slices have their masks from an earlier run (model version %s) and are "
            "skipped; --no-resume segments them anew",
            len(finished),
            len(slices),
            ", ".join(versions),
        )
    return finished


def _settings(config: PredictConfig) -> dict[str, Any]:
    settings = {name: _plain(getattr(config, name)) for name in _RESULTS_DEPEND_ON}
    return {**settings, "flips": config.flip_set}


def _latest_version(results: Sequence[SliceResult]) -> int | None:
    return next((each.model_version for each in reversed(results) if not each.error), None)


def _stop_reason(error: CallError, *, num_left: int) -> str:
    return str(error) if num_left == 1 else f"stopped with {num_left} slices left: {error}"


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


def _overlay_path(config: PredictConfig, slice_file: SliceFile) -> Path:
    return config.out / OVERLAYS / slice_file.name.parent / f"{slice_file.name.name}.png"


def _remove_results(config: PredictConfig, slice_file: SliceFile) -> None:
    paths = (*mask_paths(config, slice_file).values(), _overlay_path(config, slice_file))
    for path in paths:
        path.unlink(missing_ok=True)


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value
