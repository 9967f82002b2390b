"""The options of the verb ``download``; flags and fields have the same names."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_BYTES_PER_GIB = 2**30
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_DRIVE_HOST = "drive.google.com"
_DRIVE_FOLDER = re.compile(r"/drive/(?:u/\d+/)?(?:mobile/)?folders/([-\w]+)/?")


@dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """What to fetch, where to, and how patiently."""

    url: str
    """Address of an archive, a file, or a file or folder that Google Drive shares with all."""

    out: Path
    """Folder to make; an archive is unpacked into it."""

    sha256: str | None = None
    """What the downloaded file must hash to, as 64 hexadecimal digits; None: anything."""

    keep_existing: bool = False
    """Do nothing where ``out`` holds files already: a download is published whole or not at all."""

    timeout_s: float = 60.0
    """The longest wait for a connection, and for the next byte, in seconds."""

    num_retries: int = 5
    """How many failures in a row are borne; new bytes start the count anew."""

    max_gib: float = 50.0
    """Most GiB of the download, and most GiB that are unpacked from it."""

    max_files: int = 1_000_000
    """Most files and folders that an archive or a Drive folder may hold."""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: if a value is out of its range or cannot be used.
        """
        _check_url(self.url)
        if self.sha256 is not None:
            _check_sha256(self.sha256, url=self.url)
        if not (0 < self.timeout_s < math.inf):
            raise ValueError(
                f"received timeout_s {self.timeout_s}; expected seconds above 0, such as 60"
            )
        if self.num_retries < 0:
            raise ValueError(
                f"received num_retries {self.num_retries}; expected 0 (fail at once) or more"
            )
        if not (0 < self.max_gib < math.inf):
            raise ValueError(f"received max_gib {self.max_gib}; expected GiB above 0, such as 50")
        if self.max_files < 1:
            raise ValueError(f"received max_files {self.max_files}; expected at least 1")

    def max_bytes(self) -> int:
        """Gives `max_gib` in bytes."""
        return int(self.max_gib * _BYTES_PER_GIB)


def drive_folder_id(url: str) -> str | None:
    """Gives the id of a folder of Google Drive, or None if an address names no such folder."""
    parts = urlsplit(url)
    found = _DRIVE_FOLDER.fullmatch(parts.path) if parts.hostname == _DRIVE_HOST else None
    return found[1] if found else None


def shown_url(url: str) -> str:
    """Gives an address as messages show it: without a user's name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:  # brackets that do not close, a port that is no number
        is_usable = False
    if not is_usable or re.search(r"\s", url):
        raise ValueError(
            f"received url {url!r}; expected an address that starts with http:// or https://, such "
            "as the one that a browser shows for the file; quote it if it holds & or spaces"
        )


def _check_sha256(sha256: str, *, url: str) -> None:
    if not _SHA256.fullmatch(sha256):
        raise ValueError(
            f"received sha256 {sha256!r}; expected 64 hexadecimal digits, as `sha256sum FILE` "
            "prints them, or leave it out"
        )
    if drive_folder_id(url):
        raise ValueError(
            f"received sha256 for {url}, which is a folder; expected the address of one file; "
            "leave sha256 out, or share the folder as one zip file"
        )
