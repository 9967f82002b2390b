"""Unpacks zip and tar without trust: nothing outside of its folder, no links, nothing without end.

An archive is recognized by its first bytes, not by its name, and read in pieces: memory does not
grow with the bytes that it holds, and only a zip's own list of names is held as a whole.
"""

import bz2
import errno
import gzip
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, Self

from preprocessing.download.progress import Report
from preprocessing.errors import PreprocessingError

ZIP = "zip"
TAR = "tar"

_ZIP_UTF8_FLAG = 0x800
_CHUNK_BYTES = 2**18
_MAX_HEADER_BYTES = 2**20
"""More than any name or note of a tar member takes; tarfile holds them in memory."""

_GZIP_START = b"\x1f\x8b"
_BZIP2_START = b"BZh"
_XZ_START = b"\xfd7zXZ\x00"
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_FOREIGN_STARTS = (
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "packed with Zstandard"),
)
_HTML = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml.*?>\s*)?(?:<!--.*?-->\s*)?<(?:!doctype\s+)?html\b", re.I | re.S
)
_HTML_TITLE = re.compile(rb"<title[^>]*>(.*?)</title>", re.I | re.S)
_HEAD_BYTES = 2**14

_DAMAGE_ERRORS = (
    EOFError,
    IndexError,
    NotImplementedError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What the libraries raise on bytes that make no sense."""


class DamagedFileError(PreprocessingError):
    """A file that is not what its owner meant to share; it is not worth keeping."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much may come out of an archive."""

    max_bytes: int
    """Most bytes, counted while they are written."""

    max_files: int
    """Most files and folders."""


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """What came out of an archive."""

    num_files: int
    """Files, without folders."""

    num_bytes: int
    """Their size."""


@dataclass(frozen=True, kw_only=True)
class _Member:
    name: str
    content: IO[bytes] | None
    """None: a folder."""


def recognize(path: Path, *, label: str) -> str | None:
    """Tells what a downloaded file is, by its content.

    Args:
        path: the file.
        label: what messages call it.

    Returns:
        ``zip``, ``tar`` (compressed or not), or None for a file that is no archive.

    Raises:
        DamagedFileError: if it is empty, a web page, or a damaged archive.
        PreprocessingError: if it is an archive of a kind that is not unpacked here.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        raise DamagedFileError(f"{label} is empty; expected slices; look at it in a browser")
    if _HTML.match(head):
        raise DamagedFileError(_describe_page(head, label))
    for start, what in _FOREIGN_STARTS:
        if head.startswith(start):
            raise PreprocessingError(
                f"{label} is {what}; expected zip, tar, tar.gz, tar.bz2 or tar.xz; unpack it "
                "yourself"
            )
    if head.startswith(_ZIP_STARTS):
        return ZIP
    return TAR if _is_tar(path, label) else None


def unpack(
    path: Path, folder: Path, *, kind: str, label: str, limits: Limits, report: Report
) -> Unpacked:
    """Unpacks an archive.

    Args:
        path: the archive.
        folder: where to; exists, and is empty.
        kind: what `recognize` gave.
        label: what messages call it.
        limits: how much may come out.
        report: is told how far it is.

    Raises:
        DamagedFileError: if it is cut short or damaged.
        PreprocessingError: if more comes out than `limits` allow, if it is encrypted, or if it
            holds a link, a device, a name twice, or a name outside of the folder.
        OSError: if the disk refuses.
    """
    members = _zip_members(path, label) if kind == ZIP else _tar_members(path, label)
    try:
        with closing(members):
            unpacked = _write_members(members, folder, label=label, limits=limits, report=report)
    except PreprocessingError:
        raise
    except _DAMAGE_ERRORS as error:
        raise DamagedFileError(_describe_damage(error, label)) from error
    except OSError as error:
        if not _is_damage(error):
            raise
        raise DamagedFileError(_describe_damage(error, label)) from error
    if not unpacked.num_files:
        raise DamagedFileError(f"{label} is an archive without files; expected slices")
    return unpacked


def safe_path(name: str, *, label: str) -> PurePosixPath:
    """Turns a name from outside into a path that stays in its folder.

    Raises:
        PreprocessingError: if it would not stay there.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise PreprocessingError(
            f"{label} holds {name!r}, which would be written outside of its folder; nothing was "
            "unpacked; expected names below it; do not trust such an archive"
        )
    return path


def _write_members(
    members: Iterable[_Member], folder: Path, *, label: str, limits: Limits, report: Report
) -> Unpacked:
    num_members = num_files = num_bytes = 0
    for member in members:
        num_members += 1
        if num_members > limits.max_files:
            raise PreprocessingError(
                f"{label} holds more files and folders than --max-files {limits.max_files} allows; "
                "raise it if that is what you want"
            )
        target = folder / safe_path(member.name, label=label)
        if member.content is None:
            with _name_errors(member, label):
                target.mkdir(parents=True, exist_ok=True)
            continue
        for size in _write(member.content, target, member, label):
            num_bytes += size
            if num_bytes > limits.max_bytes:
                raise PreprocessingError(
                    f"{label} unpacks to more than the {limits.max_bytes / 2**30:.3g} GiB that "
                    "--max-gib allows; raise it if that is what you want"
                )
            report("unpack", num_bytes, None)
        num_files += 1
    return Unpacked(num_files=num_files, num_bytes=num_bytes)


def _zip_members(path: Path, label: str) -> Generator[_Member, None, None]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            # Some programs on Windows write backslashes, against the format's own rules.
            name = _zip_name(info).replace("\\", "/")
            if info.flag_bits & 0x1:
                raise PreprocessingError(
                    f"{label} is encrypted ({name!r} wants a password); unpack it yourself"
                )
            if name.endswith("/"):
                yield _Member(name=name, content=None)
                continue
            # Files from Windows have no mode: 0.
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise _describe_special(name, "link" if stat.S_ISLNK(mode) else "device", label)
            with archive.open(info) as content:
                yield _Member(name=name, content=content)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Gives the name as its writer meant it: many write UTF-8 without saying so."""
    if info.flag_bits & _ZIP_UTF8_FLAG:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


class _StrictTarInfo(tarfile.TarInfo):
    """A header of a tar, where damage is an error; tarfile takes it for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Reads a header of 512 bytes.

        Raises:
            tarfile.ReadError: if it is none, or announces a name or note that is far too long.
        """
        try:
            info = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # the mark at the end
            raise tarfile.ReadError(f"{error}; the mark at the end is missing") from error
        is_regular = info.type in (*tarfile.REGULAR_TYPES, tarfile.GNUTYPE_SPARSE)
        if not is_regular and info.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {info.size} bytes")
        return info


def _tar_members(path: Path, label: str) -> Generator[_Member, None, None]:
    with (
        _decompressed(path) as stream,
        tarfile.open(fileobj=stream, mode="r:", tarinfo=_StrictTarInfo) as archive,
    ):
        while (info := archive.next()) is not None:
            # Else tarfile remembers all of them.
            archive.members.clear()  # type: ignore[attr-defined]
            if info.isdir():
                yield _Member(name=f"{info.name}/", content=None)
                continue
            if not info.isreg():
                is_link = info.issym() or info.islnk()
                raise _describe_special(info.name, "link" if is_link else "device", label)
            yield _Member(name=info.name, content=archive.extractfile(info))
        # The checksum of a compressed file stands behind its last byte.
        while stream.read(_CHUNK_BYTES):
            pass


def _decompressed(path: Path) -> BinaryIO | gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile:
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(_GZIP_START):
        return gzip.open(path)
    if start.startswith(_BZIP2_START):
        return bz2.open(path)
    if start.startswith(_XZ_START):
        return lzma.open(path)
    return path.open("rb")


def _is_tar(path: Path, label: str) -> bool:
    try:
        with _decompressed(path) as stream:
            block = stream.read(tarfile.BLOCKSIZE)
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    except (*_DAMAGE_ERRORS, OSError) as error:
        if isinstance(error, OSError) and not _is_damage(error):
            raise
        raise DamagedFileError(_describe_damage(error, label)) from error
    return True


def _write(content: IO[bytes], target: Path, member: _Member, label: str) -> Iterator[int]:
    """Writes a file, and gives the size of each piece after it is written."""
    with _name_errors(member, label):
        target.parent.mkdir(parents=True, exist_ok=True)
        # Never through a name that is there, on disks too that do not tell `A` from `a`.
        file = target.open("xb")
    with file:
        while chunk := content.read(_CHUNK_BYTES):
            file.write(chunk)
            yield len(chunk)


@contextmanager
def _name_errors(member: _Member, label: str) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        raise PreprocessingError(
            f"{label} holds {member.name!r} twice, as a file and a folder, or under a name that "
            "this disk takes for the same; expected each name once; pack it again"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.EINVAL):
            raise
        raise PreprocessingError(
            f"{label} holds the name {member.name[:40]!r}…, which this disk does not take "
            f"({error.strerror}); pack it again with shorter and plainer names"
        ) from error


def _is_damage(error: OSError) -> bool:
    """Tells bytes that make no sense from a disk that refuses."""
    # bz2 and gzip raise a bare OSError; zipfile follows an offset to before the start of the file.
    return error.errno in (None, errno.EINVAL)


def _describe_special(name: str, what: str, label: str) -> PreprocessingError:
    return PreprocessingError(
        f"{label} holds {name!r}, which is a {what}; expected files and folders only; nothing was "
        "unpacked; pack it again without it, or unpack it yourself"
    )


def _describe_damage(error: Exception, label: str) -> str:
    return (
        f"{label} is damaged or was cut short ({' '.join(str(error).split())}); expected a whole "
        "archive; give the same command again to download it anew, and if that does not help, ask "
        "who shares it to pack it again"
    )


def _describe_page(head: bytes, label: str) -> str:
    found = _HTML_TITLE.search(head)
    title = " ".join(found[1].decode(errors="replace").split()) if found else ""
    shown = f" with the title {title[:80]!r}" if title else ""
    return (
        f"{label} is a web page{shown}, such as one that asks for a login or tells of a limit; "
        "expected an archive or a file of slices; open the address in a private browser window, "
        "and take the link behind its download button"
    )
