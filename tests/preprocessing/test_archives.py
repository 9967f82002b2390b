import bz2
import errno
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from preprocessing.download import archives
from preprocessing.download.archives import DamagedFileError, Limits, Unpacked, recognize, unpack
from preprocessing.errors import PreprocessingError

LABEL = "the file of --url http://x/slices"
ROOMY = Limits(max_bytes=2**24, max_files=100)
SLICES = {"images/a.bmp": b"BMa" * 700, "masks/a.bmp": b"BMm" * 300}
COMPRESSIONS = {"": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def make_zip(path, files=SLICES, *, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make_tar(path, files=SLICES, *, compression=""):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    path.write_bytes(COMPRESSIONS[compression](packed.getvalue()))
    return path


def make_tar_of(path, kind, name="a/x"):
    """Writes a tar with one member that is no file."""
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)


def unpack_all(path, folder, *, limits=ROOMY):
    kind = recognize(path, label=LABEL)
    return unpack(path, folder, kind=kind, label=LABEL, limits=limits, report=lambda *_: None)


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_zip_is_unpacked(tmp_path, out, method):
    packed = make_zip(tmp_path / "body", method=method)
    # 3 * 700 + 3 * 300 bytes
    assert unpack_all(packed, out) == Unpacked(num_files=2, num_bytes=3000)
    assert files_in(out) == SLICES


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_tar_is_unpacked(tmp_path, out, compression):
    packed = make_tar(tmp_path / "body", compression=compression)
    assert recognize(packed, label=LABEL) == archives.TAR
    assert unpack_all(packed, out) == Unpacked(num_files=2, num_bytes=3000)
    assert files_in(out) == SLICES


def test_old_tar_without_the_word_ustar_is_known_by_its_checksum(tmp_path, out):
    block = bytearray(make_tar(tmp_path / "tar", {"a.bmp": b"BM"}).read_bytes())
    block[257:265] = bytes(8)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    (tmp_path / "body").write_bytes(block)
    unpack_all(tmp_path / "body", out)
    assert files_in(out) == {"a.bmp": b"BM"}


def test_folders_and_names_with_dots_and_backslashes_are_unpacked(tmp_path, out):
    make_zip(tmp_path / "a", {"./empty/": b"", r"images\P1..x.bmp": b"BM"})
    unpack_all(tmp_path / "a", out)
    assert (out / "empty").is_dir()
    assert files_in(out) == {"images/P1..x.bmp": b"BM"}


def test_tar_with_its_own_folder_is_unpacked(tmp_path, out):
    with tarfile.open(tmp_path / "a", "w") as archive:
        archive.add(out, ".")
        info = tarfile.TarInfo("./a.bmp")
        info.size = 2
        archive.addfile(info, io.BytesIO(b"BM"))
    assert unpack_all(tmp_path / "a", out).num_files == 1


@pytest.mark.parametrize("content", [b"BM" + bytes(600), bytes(2000), b"P1_z000,1\n" * 99])
@pytest.mark.parametrize("compression", ["", "gz"])
def test_file_that_is_no_archive_is_told_apart(tmp_path, content, compression):
    (tmp_path / "body").write_bytes(COMPRESSIONS[compression](content))
    assert recognize(tmp_path / "body", label=LABEL) is None


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"Rar!\x1a\x07\x01", "a RAR archive"),
        (b"\x28\xb5\x2f\xfd", "packed with Zstandard"),
    ],
)
def test_archive_of_another_kind_is_named_and_kept(tmp_path, start, what):
    (tmp_path / "body").write_bytes(start + bytes(99))
    expected = rf"slices is {what}; expected zip, .* unpack it yourself$"
    with pytest.raises(PreprocessingError, match=expected) as raised:
        recognize(tmp_path / "body", label=LABEL)
    assert not isinstance(raised.value, DamagedFileError)


@pytest.mark.parametrize(
    ("page", "shown"),
    [
        (b"<!DOCTYPE html><html><title>Google Drive - \nQuota</title>", "'Google Drive - Quota'"),
        (b"\xef\xbb\xbf\n <HTML><body>", "is a web page, such as"),
        (b"<?xml version='1.0'?><!-- x --><html xmlns=''>", "is a web page, such as"),
    ],
)
def test_web_page_in_place_of_a_file_is_told(tmp_path, page, shown):
    (tmp_path / "body").write_bytes(page)
    with pytest.raises(DamagedFileError, match=shown):
        recognize(tmp_path / "body", label=LABEL)


def test_empty_file_is_refused(tmp_path):
    (tmp_path / "body").touch()
    with pytest.raises(DamagedFileError, match="slices is empty; expected slices"):
        recognize(tmp_path / "body", label=LABEL)


@pytest.mark.parametrize("name", ["/etc/x.bmp", "../x.bmp", "a/../../x.bmp", "a/.."])
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_name_outside_of_the_folder_is_refused(tmp_path, out, name, make):
    make(tmp_path / "body", {"a.bmp": b"BM", name: b"BM"})
    with pytest.raises(PreprocessingError, match="would be written outside of its folder; nothing"):
        unpack_all(tmp_path / "body", out)
    assert sorted(path.name for path in tmp_path.rglob("*.bmp")) == ["a.bmp"]


def test_backslashes_do_not_lead_outside(tmp_path, out):
    make_zip(tmp_path / "body", {r"..\..\x.bmp": b"BM"})
    with pytest.raises(PreprocessingError, match=r"'\.\./\.\./x\.bmp', which would be written"):
        unpack_all(tmp_path / "body", out)


@pytest.mark.parametrize(
    ("kind", "what"),
    [(tarfile.SYMTYPE, "link"), (tarfile.LNKTYPE, "link"), (tarfile.CHRTYPE, "device")],
)
def test_link_or_device_in_a_tar_is_refused(tmp_path, out, kind, what):
    make_tar_of(tmp_path / "body", kind)
    with pytest.raises(PreprocessingError, match=f"holds 'a/x', which is a {what}; expected files"):
        unpack_all(tmp_path / "body", out)
    assert files_in(out) == {}


@pytest.mark.parametrize(("mode", "what"), [(stat.S_IFLNK, "link"), (stat.S_IFIFO, "device")])
def test_link_or_device_in_a_zip_is_refused(tmp_path, out, mode, what):
    info = zipfile.ZipInfo("a/x")
    info.external_attr = (mode | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "body", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(PreprocessingError, match=f"holds 'a/x', which is a {what}; expected files"):
        unpack_all(tmp_path / "body", out)


def test_encrypted_zip_is_told(tmp_path, out):
    packed = bytearray(make_zip(tmp_path / "body", {"a.bmp": b"BM"}).read_bytes())
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "body").write_bytes(packed)
    with pytest.raises(
        PreprocessingError, match=r"is encrypted \('a.bmp' wants a password\); unpa"
    ):
        unpack_all(tmp_path / "body", out)


def test_bytes_are_counted_while_they_are_written(tmp_path, out):
    make_zip(tmp_path / "body", {"a.bmp": bytes(600_000), "b.bmp": bytes(600_000)})
    limits = Limits(max_bytes=1_100_000, max_files=10)
    with pytest.raises(PreprocessingError, match="more than the 0.00102 GiB that --max-gib allows"):
        unpack_all(tmp_path / "body", out, limits=limits)
    assert sum(map(len, files_in(out).values())) < 1_100_000 + 2 * archives._CHUNK_BYTES


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_number_of_files_and_folders_is_limited(tmp_path, out, make):
    make(tmp_path / "body", {"a.bmp": b"BM", "b.bmp": b"BM", "c.bmp": b"BM"})
    assert (
        unpack_all(tmp_path / "body", out, limits=Limits(max_bytes=9, max_files=3)).num_files == 3
    )
    (out / "again").mkdir()
    limits = Limits(max_bytes=9, max_files=2)
    with pytest.raises(PreprocessingError, match="files and folders than --max-files 2 allows"):
        unpack_all(tmp_path / "body", out / "again", limits=limits)


@pytest.mark.parametrize(
    "files",
    [{"a": b"BM", "a/b.bmp": b"BM"}, {"a/b.bmp": b"BM", "a": b"BM"}, {"a": b"BM", "a/": b""}],
)
def test_name_that_is_a_file_and_a_folder_is_refused(tmp_path, out, files):
    make_zip(tmp_path / "body", files)
    with pytest.raises(PreprocessingError, match="twice, as a file and a folder, or under a name"):
        unpack_all(tmp_path / "body", out)


def test_name_that_stands_twice_is_refused(tmp_path, out):
    with tarfile.open(tmp_path / "body", "w") as archive:
        for content in (b"first", b"later"):
            info = tarfile.TarInfo("a.bmp")
            info.size = 5
            archive.addfile(info, io.BytesIO(content))
    with pytest.raises(PreprocessingError, match="holds 'a.bmp' twice"):
        unpack_all(tmp_path / "body", out)
    assert files_in(out) == {"a.bmp": b"first"}


def test_names_that_differ_in_case_are_two_files_where_the_disk_tells_them_apart(tmp_path, out):
    make_zip(tmp_path / "body", {"A.bmp": b"BM1", "a.bmp": b"BM2"})
    (tmp_path / "probe").touch()
    if (tmp_path / "PROBE").exists():
        with pytest.raises(PreprocessingError, match="that this disk takes for the same"):
            unpack_all(tmp_path / "body", out)
    else:
        unpack_all(tmp_path / "body", out)
        assert files_in(out) == {"A.bmp": b"BM1", "a.bmp": b"BM2"}


def test_name_too_long_for_the_disk_is_told(tmp_path, out):
    make_zip(tmp_path / "body", {"a" * 300: b"BM"})
    with pytest.raises(
        PreprocessingError,
        match="holds the name 'aaa.*…, which this disk does not take .File name too long",
    ):
        unpack_all(tmp_path / "body", out)


@pytest.mark.parametrize("kind", [archives.ZIP, archives.TAR])
def test_archive_without_files_is_refused(tmp_path, out, kind):
    if kind == archives.ZIP:
        make_zip(tmp_path / "body", {"empty/": b""})
    else:
        make_tar_of(tmp_path / "body", tarfile.DIRTYPE)
    with pytest.raises(DamagedFileError, match="is an archive without files; expected slices"):
        unpack_all(tmp_path / "body", out)


def noise(num_bytes):
    return np.random.default_rng(3).bytes(num_bytes)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize("share", [0.5, 0.95, 0.999])
def test_archive_that_was_cut_short_is_told(tmp_path, out, kind, share):
    files = {"a.bmp": noise(9000), "b.bmp": noise(5000)}
    if kind == "zip":
        make_zip(tmp_path / "body", files)
    else:
        make_tar(tmp_path / "body", files, compression=kind.removeprefix("tar").lstrip("."))
    packed = (tmp_path / "body").read_bytes()
    end = len(packed) if kind != "tar" else 512 + 9216 + 512 + 5120  # without its padding
    (tmp_path / "body").write_bytes(packed[: int(share * end)])
    expected = r"damaged or was cut short \(.*give the same command again"
    with pytest.raises(DamagedFileError, match=expected):
        unpack_all(tmp_path / "body", out)


def test_tar_cut_between_two_members_is_told(tmp_path, out):
    packed = make_tar(tmp_path / "body", {"a.bmp": noise(512), "b.bmp": noise(512)}).read_bytes()
    (tmp_path / "body").write_bytes(packed[:1024])
    with pytest.raises(DamagedFileError, match="the mark at the end is missing"):
        unpack_all(tmp_path / "body", out)


def test_tar_with_a_damaged_header_is_told(tmp_path, out):
    packed = make_tar(tmp_path / "body", {"a.bmp": noise(512), "b.bmp": noise(512)}).read_bytes()
    (tmp_path / "body").write_bytes(packed[:1024] + b"X" + packed[1025:])
    with pytest.raises(DamagedFileError, match=r"bad checksum; the mark at the end is missing"):
        unpack_all(tmp_path / "body", out)


def test_tar_note_that_would_fill_the_memory_is_refused(tmp_path, out):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2**40
    (tmp_path / "body").write_bytes(info.tobuf(format=tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(DamagedFileError, match=r"a header of 1099511627776 bytes"):
        unpack_all(tmp_path / "body", out)


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_archive_with_a_flipped_byte_is_told(tmp_path, out, kind):
    files = {"a.bmp": noise(9000)}
    if kind == "zip":
        make_zip(tmp_path / "body", files)
    else:
        make_tar(tmp_path / "body", files, compression=kind.removeprefix("tar."))
    packed = bytearray((tmp_path / "body").read_bytes())
    packed[len(packed) // 2] ^= 0xFF
    (tmp_path / "body").write_bytes(packed)
    with pytest.raises(DamagedFileError, match="damaged or was cut short"):
        unpack_all(tmp_path / "body", out)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_damage_anywhere_is_a_message_and_writes_nothing_outside(tmp_path, kind):
    files = {"images/a.bmp": noise(300), "masks/a.bmp": bytes(300)}
    if kind == "zip":
        make_zip(tmp_path / "whole", files)
    else:
        make_tar(tmp_path / "whole", files, compression=kind.removeprefix("tar").lstrip("."))
    packed = (tmp_path / "whole").read_bytes()
    rng = np.random.default_rng(7)
    messages = []
    for index in range(150):
        damaged = bytearray(packed)
        for place in rng.integers(0, len(packed), 3):
            damaged[place] = rng.integers(0, 256)
        (tmp_path / "body").write_bytes(damaged)
        folder = tmp_path / f"out{index}"
        folder.mkdir()
        try:
            if recognize(tmp_path / "body", label=LABEL):
                unpack_all(tmp_path / "body", folder)
        except PreprocessingError as error:
            messages.append(str(error))
    assert messages
    assert not any("\n" in message for message in messages)
    beside = {path.name for path in tmp_path.iterdir() if not path.name.startswith("out")}
    assert beside == {"whole", "body"}


def test_disk_that_refuses_is_no_damage(tmp_path, out):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    make_zip(tmp_path / "body")
    with pytest.raises(OSError, match="No space left") as raised:
        unpack(tmp_path / "body", out, kind=archives.ZIP, label=LABEL, limits=ROOMY, report=fail)
    assert not isinstance(raised.value, PreprocessingError)


def test_unpacking_is_reported(tmp_path, out):
    make_zip(tmp_path / "body")
    reports = []
    unpack(
        tmp_path / "body",
        out,
        kind=archives.ZIP,
        label=LABEL,
        limits=ROOMY,
        report=lambda *values: reports.append(values),
    )
    assert reports == [("unpack", 2100, None), ("unpack", 3000, None)]


@pytest.mark.parametrize(
    ("stored", "name"),
    [("Müller/ж.bmp".encode(), "Müller/ж.bmp"), (b"M\x81ller.bmp", "Müller.bmp")],
)
def test_names_of_a_zip_that_does_not_say_its_encoding_are_read(tmp_path, out, stored, name):
    placeholder = "x" * len(stored)
    path = make_zip(tmp_path / "a.zip", {placeholder: b"1"})
    path.write_bytes(path.read_bytes().replace(placeholder.encode(), stored))
    unpack_all(path, out)
    assert files_in(out) == {name: b"1"}
