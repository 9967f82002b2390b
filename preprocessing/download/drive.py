"""What Google Drive knows of its files beside their bytes: the list of a folder, and names."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import gdown

from preprocessing.download.archives import safe_path
from preprocessing.download.config import DownloadConfig, shown_url
from preprocessing.download.retries import with_retries
from preprocessing.errors import PreprocessingError

_MAX_STEM_BYTES = 180
_MAX_ENDING_CHARS = 16


@dataclass(frozen=True, kw_only=True)
class DriveFile:
    """A file in a folder of Google Drive."""

    url: str
    """Its own address."""

    path: PurePosixPath
    """Where it stands in the folder."""


def list_folder(folder_id: str, *, config: DownloadConfig) -> tuple[DriveFile, ...]:
    """Lists a folder with its subfolders.

    Raises:
        PreprocessingError: if it is not shared, is empty or too large, or has two files of a name.
    """
    label = f"the folder of --url {shown_url(config.url)}"
    found = with_retries(
        lambda: gdown.download_folder(
            id=folder_id,
            quiet=True,
            use_cookies=False,
            skip_download=True,
            timeout=config.timeout_s,
        ),
        config=config,
    )
    files = tuple(
        DriveFile(
            url=f"https://drive.google.com/uc?id={file.id}", path=safe_path(file.path, label=label)
        )
        for file in found
    )
    if not files:
        raise PreprocessingError(
            f"{label} holds no files; expected slices; look at it in a browser"
        )
    if len(files) > config.max_files:
        raise PreprocessingError(
            f"{label} holds {len(files)} files, more than --max-files {config.max_files} allows; "
            "raise it if that is what you want"
        )
    # Google Drive takes any number of files of one name, or a file and a folder.
    taken = {parent for file in files for parent in file.path.parents}
    for file in files:
        if file.path in taken:
            raise PreprocessingError(
                f"{label} holds {str(file.path)!r} twice; expected each name once; rename one on "
                "Google Drive, or share the folder as one zip file"
            )
        taken.add(file.path)
    return files


def find_filename(config: DownloadConfig) -> str:
    """Gives the name of a file that is no archive, as its address or Google Drive tells it.

    Raises:
        PreprocessingError: if Google Drive does not tell it.
    """
    if drive_file_id(config.url):
        name = with_retries(lambda: _ask_name(config), config=config)
    else:
        name = unquote(urlsplit(config.url).path.rpartition("/")[2])
    name = re.sub(r"[\x00-\x1f/\\]", "_", name).lstrip(".")
    stem, dot, ending = name.rpartition(".")
    stem = stem.encode()[:_MAX_STEM_BYTES].decode(errors="ignore")
    return f"{stem}{dot}{ending[:_MAX_ENDING_CHARS]}" or "file"


def drive_file_id(url: str) -> str | None:
    """Gives the id of a file on Google Drive, or None if an address names no such file."""
    file_id: str | None = gdown.parse_url.parse_url(url)[0]
    return file_id


def _ask_name(config: DownloadConfig) -> str:
    file = gdown.download(
        config.url, quiet=True, use_cookies=False, skip_download=True, timeout=config.timeout_s
    )
    return str(file.path)
