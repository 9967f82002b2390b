"""The job: fetch, check, unpack, publish; parts of files outlive a failure, half an output never.

Two folders stand beside the output while it is made: ``.NAME.download`` keeps what was downloaded,
for the next run if need be, and another one is filled and then renamed.
"""

import dataclasses
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from preprocessing.download.archives import DamagedFileError, Limits, Unpacked, recognize, unpack
from preprocessing.download.config import DownloadConfig, drive_folder_id, shown_url
from preprocessing.download.drive import DriveFile, find_filename, list_folder
from preprocessing.download.progress import Report, show_bytes
from preprocessing.download.transfer import fetch, remove_others, remove_useless
from preprocessing.errors import PreprocessingError
from preprocessing.publish import whole_folder
from preprocessing.staging import is_named, lock_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DownloadSummary:
    """What a job did."""

    num_files: int
    """Files in the output."""

    num_bytes: int
    """Their size."""

    downloaded_bytes: int
    """Size of what was downloaded, now or by runs before."""

    sha256: str | None
    """Hash of the downloaded file; None for a folder of Google Drive."""


def run(config: DownloadConfig, *, is_terminal: bool = False) -> DownloadSummary:
    """Downloads an archive, a file or a folder, and publishes it whole or not at all.

    Args:
        config: what, where to, and how.
        is_terminal: whether to draw a progress bar on standard error.

    Raises:
        PreprocessingError: if it cannot be had or written, or is not what was expected; nothing is
            published then.
    """
    out = config.out.resolve()
    try:
        with kept_folder(out) as kept, show_bytes(is_terminal=is_terminal) as report:
            _log_options(config)
            summary = _publish(config, out, kept=kept, report=report)
            shutil.rmtree(kept)
    except OSError as error:
        raise PreprocessingError(
            f"--out {out} cannot be written: {error.strerror or error}; make room, or choose "
            "another place"
        ) from error
    return summary


@contextmanager
def kept_folder(out: Path) -> Iterator[Path]:
    """Makes or finds the folder for downloads beside an output, and holds it for this process.

    Raises:
        PreprocessingError: if the output is there already or cannot be made, or if another run is
            making it.
    """
    _check_output(out)
    kept = out.with_name(f".{out.name}.download")
    try:
        kept.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(kept, os.O_RDONLY)
    except OSError as error:
        raise PreprocessingError(
            f"--out {out} cannot be made ({error.strerror}: {error.filename}); choose another place"
        ) from error
    try:
        lock_folder(descriptor, kept, out=out)
        try:
            _check_output(out)
            yield kept
        finally:
            if is_named(descriptor, kept):
                remove_useless(kept)
                if not any(kept.iterdir()):
                    kept.rmdir()
    finally:
        os.close(descriptor)


def _check_output(out: Path) -> None:
    if os.path.ismount(out):
        raise PreprocessingError(
            f"--out {out} is a mount point, which cannot be made as a whole; choose a folder in "
            f"it, such as {out / 'slices'}"
        )
    if out.exists() and not out.is_dir():
        raise PreprocessingError(f"--out {out} is a file; expected a folder, which the job makes")
    if out.exists() and any(out.iterdir()):
        raise PreprocessingError(
            f"--out {out} holds {min(os.listdir(out))!r}; expected a new or empty folder, as a "
            "download replaces nothing; choose another one or remove it first"
        )


def _log_options(config: DownloadConfig) -> None:
    options = dataclasses.asdict(config) | {"url": shown_url(config.url)}
    logger.info("options: %s", ", ".join(f"{name} {value}" for name, value in options.items()))


def _publish(config: DownloadConfig, out: Path, *, kept: Path, report: Report) -> DownloadSummary:
    folder_id = drive_folder_id(config.url)
    if folder_id is None:
        return _publish_file(config, out, kept=kept, report=report)
    files = list_folder(folder_id, config=config)
    return _publish_folder(files, config, out, kept=kept, report=report)


def _publish_file(
    config: DownloadConfig, out: Path, *, kept: Path, report: Report
) -> DownloadSummary:
    remove_others(kept, urls=[config.url])
    body = fetch(config.url, kept, config=config, max_bytes=config.max_bytes(), report=report)
    downloaded_bytes = body.stat().st_size
    label = f"the file of --url {shown_url(config.url)}"
    try:
        sha256 = _check_hash(body, config=config, label=label)
        kind = recognize(body, label=label)
        if kind is None:
            _publish_plain(body, out, name=find_filename(config))
            unpacked = Unpacked(num_files=1, num_bytes=downloaded_bytes)
        else:
            limits = Limits(max_bytes=config.max_bytes(), max_files=config.max_files)
            with whole_folder(out) as staging:
                unpacked = unpack(
                    body, staging, kind=kind, label=label, limits=limits, report=report
                )
    except DamagedFileError:
        body.unlink()
        raise
    except PreprocessingError as error:
        raise PreprocessingError(f"{error}; the downloaded file is kept as {body}") from error
    return DownloadSummary(
        num_files=unpacked.num_files,
        num_bytes=unpacked.num_bytes,
        downloaded_bytes=downloaded_bytes,
        sha256=sha256,
    )


def _publish_plain(body: Path, out: Path, *, name: str) -> None:
    with whole_folder(out) as staging:
        os.rename(body, staging / name)


def _publish_folder(
    files: Sequence[DriveFile], config: DownloadConfig, out: Path, *, kept: Path, report: Report
) -> DownloadSummary:
    remove_others(kept, urls=[file.url for file in files])
    bodies = {}
    num_bytes = 0
    for index, file in enumerate(files, start=1):
        body = _fetch_of_folder(
            file,
            kept,
            config=config,
            max_bytes=config.max_bytes() - num_bytes,
            report=partial(_report_of_folder, report, f"file {index} of {len(files)}"),
        )
        bodies[file.path] = body
        num_bytes += body.stat().st_size
    with whole_folder(out) as staging:
        for path, body in bodies.items():
            (staging / path).parent.mkdir(parents=True, exist_ok=True)
            os.rename(body, staging / path)
    return DownloadSummary(
        num_files=len(files), num_bytes=num_bytes, downloaded_bytes=num_bytes, sha256=None
    )


def _fetch_of_folder(
    file: DriveFile, kept: Path, *, config: DownloadConfig, max_bytes: int, report: Report
) -> Path:
    try:
        return fetch(file.url, kept, config=config, max_bytes=max_bytes, report=report)
    except PreprocessingError as error:
        raise PreprocessingError(f"{file.path} in {error}") from error


def _report_of_folder(
    report: Report, place: str, doing: str, num_bytes: int, total_bytes: int | None
) -> None:
    report(f"{doing} {place}", num_bytes, total_bytes)


def _check_hash(body: Path, *, config: DownloadConfig, label: str) -> str:
    with body.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if config.sha256 is not None and sha256 != config.sha256.lower():
        raise DamagedFileError(
            f"{label} has the SHA-256 {sha256}; expected --sha256 {config.sha256.lower()}; it was "
            "removed; look whether the file was replaced, or the hash belongs to another one"
        )
    return sha256
