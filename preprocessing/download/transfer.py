"""One file over HTTP or from Google Drive: resumed, retried, and never mixed with another one.

gdown moves the bytes. What it leaves to its caller is done here: it goes on with whatever part of a
file lies in a folder, so each version of a file at an address gets a folder of its own.
"""

import hashlib
import logging
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import gdown
import requests

from preprocessing.download.config import DownloadConfig, shown_url
from preprocessing.download.drive import drive_file_id
from preprocessing.download.failures import ChangedFileError
from preprocessing.download.progress import Report
from preprocessing.download.retries import with_retries
from preprocessing.errors import PreprocessingError

BODY = "body"
"""Name of a whole file; gdown adds eight characters and ``.part`` while it is none."""

DRIVE_CONTENT = "https://drive.usercontent.google.com/download?id={id}&export=download&confirm=t"
"""Where Drive's bytes come from in the end; asked only for the version of a file."""

_ANEW_SUFFIX = "-anew"
_PARTIAL_CONTENT = 206
_RANGE_NOT_SATISFIABLE = 416

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Version:
    """What tells a file at an address from what stood, or will stand, there."""

    url: str
    """The address."""

    etag: str
    """The server's own mark of this version, or nothing."""

    last_modified: str
    """When it was written, or nothing."""

    num_bytes: int
    """Its size."""

    def folder_name(self) -> str:
        """Gives a name that no other version and no other address has."""
        key = _key("\n".join([self.etag, self.last_modified, str(self.num_bytes)]))
        return f"{_key(self.url)}-{key}"


def fetch(url: str, kept: Path, *, config: DownloadConfig, max_bytes: int, report: Report) -> Path:
    """Downloads a file, or the rest of it.

    Args:
        url: its address.
        kept: folder for parts of files; what earlier calls left there is used again.
        config: how patiently.
        max_bytes: the largest file that is taken.
        report: is told how far it is.

    Returns:
        The whole file, somewhere in `kept`.

    Raises:
        PreprocessingError: if it cannot be had.
        OSError: if it cannot be written.
    """

    def attempt() -> Path:
        return _attempt(url, kept, timeout_s=config.timeout_s, max_bytes=max_bytes, report=report)

    return with_retries(attempt, config=config, num_bytes_kept=lambda: _num_resumable(kept))


def probe(url: str, *, timeout_s: float) -> Version | None:
    """Asks for the version of a file, and for its first byte only.

    Returns:
        The version; None if it cannot be told, or if the server gives no part of a file: then
        nothing can be resumed.

    Raises:
        requests.RequestException: if the server gives the file to nobody or does not answer.
    """
    file_id = drive_file_id(url)
    headers = {"Range": "bytes=0-0", "Accept-Encoding": "identity", "User-Agent": "Mozilla/5.0"}
    address = DRIVE_CONTENT.format(id=file_id) if file_id else url
    with requests.get(address, headers=headers, stream=True, timeout=timeout_s) as response:
        # What Drive refuses, gdown explains better; and an empty file has no first byte.
        if not file_id and response.status_code != _RANGE_NOT_SATISFIABLE:
            response.raise_for_status()
        size = re.fullmatch(r"bytes 0-0/(\d+)", response.headers.get("Content-Range", ""))
        if response.status_code != _PARTIAL_CONTENT or not size:
            return None
        etag = response.headers.get("ETag", "")
        version = Version(
            url=url,
            # A weak mark stands for equal meaning, not for equal bytes.
            etag="" if etag.startswith("W/") else etag,
            last_modified=response.headers.get("Last-Modified", ""),
            num_bytes=int(size[1]),
        )
    return version if version.etag or version.last_modified else None


def remove_useless(kept: Path) -> None:
    """Removes parts of files that no run can go on with; whole files stay."""
    for folder in kept.iterdir():
        is_whole = (folder / BODY).exists()
        if not is_whole and (folder.name.endswith(_ANEW_SUFFIX) or not _num_bytes(folder)):
            shutil.rmtree(folder)


def remove_others(kept: Path, *, urls: Iterable[str]) -> None:
    """Removes what was kept of all files but those at some addresses."""
    wanted = {_key(url) for url in urls}
    for folder in kept.iterdir():
        if folder.name.partition("-")[0] not in wanted:
            shutil.rmtree(folder)


def _attempt(url: str, kept: Path, *, timeout_s: float, max_bytes: int, report: Report) -> Path:
    version = probe(url, timeout_s=timeout_s)
    folder = _folder_for(version, url=url, kept=kept)
    body = folder / BODY
    if body.exists():
        return body
    num_before = _num_bytes(folder)
    if num_before:
        logger.info("going on after %.1f MiB of %s", num_before / 2**20, shown_url(url))
    _download(url, body, timeout_s=timeout_s, max_bytes=max_bytes, report=report)
    # gdown compares the answer it resumes from with the answer just before, not with the part that
    # lies here: a file that was replaced in this moment would be half old, half new.
    if num_before and probe(url, timeout_s=timeout_s) != version:
        shutil.rmtree(folder)
        raise ChangedFileError
    return body


def _folder_for(version: Version | None, *, url: str, kept: Path) -> Path:
    if version is None:
        # Parts of a known version stay: Drive, for one, hides it while a quota is used up.
        outdated = [kept / f"{_key(url)}{_ANEW_SUFFIX}"]
        folder = outdated[0]
    else:
        folder = kept / version.folder_name()
        outdated = [path for path in kept.glob(f"{_key(url)}-*") if path != folder]
    for path in outdated:
        shutil.rmtree(path, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    return folder


def _download(url: str, body: Path, *, timeout_s: float, max_bytes: int, report: Report) -> None:
    is_size_known = True

    def progress(num_bytes: int, total_bytes: int | None) -> None:
        nonlocal is_size_known
        is_size_known = total_bytes is not None
        largest = num_bytes if total_bytes is None else total_bytes
        if largest > max_bytes:
            raise PreprocessingError(
                f"--url {shown_url(url)}: at least {largest / 2**30:.3g} GiB would be downloaded, "
                "more than --max-gib allows; raise it if that is what you want"
            )
        report("download", num_bytes, total_bytes)

    num_before = _num_bytes(body.parent)
    try:
        gdown.download(
            url,
            output=str(body),
            quiet=True,
            use_cookies=False,  # it would write into the home folder
            resume=True,
            progress=progress,
            timeout=timeout_s,
        )
    except gdown.DownloadError as error:
        # The server does not go on where the part ends, and never will: begin anew.
        if num_before == _num_bytes(body.parent) and "incomplete" not in str(error):
            for part in body.parent.iterdir():
                part.unlink()
        raise
    if not is_size_known:
        logger.warning(
            "%s: the server does not tell the size of the file, so a file that was cut short would "
            "look whole; check what you got, or give --sha256",
            shown_url(url),
        )


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _num_resumable(kept: Path) -> int:
    """Gives the number of bytes that another run could go on with."""
    folders = [path for path in kept.iterdir() if not path.name.endswith(_ANEW_SUFFIX)]
    return sum(_num_bytes(folder) for folder in folders)


def _num_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
