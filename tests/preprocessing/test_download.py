import gzip
import hashlib
import io
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import gdown
import numpy as np
import pytest
import requests

from preprocessing.__main__ import main
from preprocessing.download import drive, failures, job, progress, retries, transfer
from preprocessing.download.config import DownloadConfig, drive_folder_id, shown_url
from preprocessing.download.job import DownloadSummary, kept_folder, run
from preprocessing.errors import PreprocessingError

MIB = 2**20
SLICES = {"images/a.bmp": b"BMa" * 700, "masks/a.bmp": b"BMm" * 300}
PROBE = "bytes=0-0"
FILE_ID = "1" * 33
FOLDER_ID = "F" * 33
DRIVE_FILE = f"https://drive.google.com/file/d/{FILE_ID}/view?usp=sharing"
DRIVE_FOLDER = f"https://drive.google.com/drive/folders/{FOLDER_ID}?usp=sharing"


@dataclass
class Resource:
    """What the server gives at a path."""

    content: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"1"'})
    takes_ranges: bool = True
    tells_size: bool = True
    status: int = 200


@dataclass
class Fault:
    """What goes wrong in one attempt, which begins with a probe."""

    kind: str  # status, close, reset or stall
    at: int = 0  # the status, or the byte
    headers: dict[str, str] = field(default_factory=dict)


class Site:
    """A server that fails as it is told."""

    def __init__(self):
        self.resources: dict[str, Resource] = {}
        self.faults: list[Fault | None] = []
        self.requests: list[tuple[str, str]] = []
        self.released = threading.Event()
        self.num_probes = 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                site.answer(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # clients that hang up
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, handler):
        path = urlsplit(handler.path).path
        wanted = handler.headers.get("Range", "")
        self.requests.append((path, wanted))
        self.num_probes += wanted == PROBE
        fault = self.faults[self.num_probes - 1 :][:1]
        fault = fault[0] if fault else None
        found = self.resources.get(path, Resource(status=404))
        if fault and fault.kind == "status":
            found = Resource(b"<html>no</html>", fault.headers, status=fault.at)
        start, end = 0, len(found.content)
        is_part = bool(wanted) and found.takes_ranges and found.status == 200
        marks = (found.headers.get("ETag"), found.headers.get("Last-Modified"))
        if handler.headers.get("If-Range", marks[0] or marks[1]) not in marks:
            is_part = False
        if is_part:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last) + 1 if last else end, end)
            if start >= len(found.content):
                found, is_part = Resource(status=416), False
                start = end = 0
        handler.send_response(206 if is_part else found.status)
        for name, value in found.headers.items():
            handler.send_header(name, value)
        if is_part:
            size = len(found.content)
            handler.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        if found.tells_size:
            handler.send_header("Content-Length", str(end - start))
        handler.end_headers()
        self.send_body(handler, found.content, start, end, None if wanted == PROBE else fault)

    def send_body(self, handler, content, start, end, fault):
        if fault is None or fault.kind == "status" or fault.at >= end:
            handler.wfile.write(content[start:end])
            return
        handler.wfile.write(content[start : fault.at])
        handler.wfile.flush()
        if fault.kind == "stall":
            self.released.wait(20)
        if fault.kind == "reset":
            handler.connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        handler.close_connection = True

    def ranges(self, path="/slices.zip"):
        """Gives the offsets from which clients went on, in order."""
        found = [wanted for where, wanted in self.requests if where == path]
        return [wanted for wanted in found if wanted not in ("", PROBE)]


@pytest.fixture(autouse=True)
def _no_proxy_and_short_waits(monkeypatch, tmp_path):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.01)


@pytest.fixture
def site():
    site = Site()
    yield site
    site.released.set()
    site.server.shutdown()
    site.server.server_close()


@pytest.fixture
def drive_site(site, monkeypatch):
    """The server in the place of Google Drive: what gdown asks goes there."""
    ask = requests.Session.request

    def ask_site(session, method, url, **options):
        parts = urlsplit(url)
        if parts.hostname in ("drive.google.com", "drive.usercontent.google.com"):
            url = f"{site.url}/{parts.hostname}{parts.path}?{parts.query}"
        return ask(session, method, url, **options)

    monkeypatch.setattr(requests.Session, "request", ask_site)
    return site


def noise(num_bytes, seed=3):
    return np.random.default_rng(seed).bytes(num_bytes)


def zip_of(files=SLICES):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return packed.getvalue()


BIG = {"images/a.bmp": b"BM" + noise(3 * MIB)}


def serve(site, content, name="slices.zip", **more):
    site.resources[f"/{name}"] = Resource(content, **more)
    return f"{site.url}/{name}"


def config_of(url, folder, **changes):
    return DownloadConfig(url=url, out=folder / "slices", timeout_s=5.0, **changes)


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def fail(config, match):
    with pytest.raises(PreprocessingError, match=match) as raised:
        run(config)
    assert "\n" not in str(raised.value)
    assert not config.out.exists()


def beside(config):
    """Gives the names that a job left next to its output."""
    return sorted(path.name for path in config.out.parent.glob(".slices*"))


# What is fetched, and how it is published.


def test_zip_is_downloaded_and_unpacked_and_nothing_is_left_beside(site, tmp_path):
    config = config_of(serve(site, zip_of()), tmp_path)
    summary = run(config)
    sha256 = hashlib.sha256(zip_of()).hexdigest()
    assert summary == DownloadSummary(
        num_files=2, num_bytes=3000, downloaded_bytes=len(zip_of()), sha256=sha256
    )
    assert files_in(config.out) == SLICES
    assert beside(config) == []


def test_home_folder_stays_empty(site, tmp_path):
    run(config_of(serve(site, zip_of()), tmp_path))
    assert not (tmp_path / "home").exists()


def test_compressed_tar_is_unpacked_whatever_its_name(site, tmp_path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        info = tarfile.TarInfo("a.bmp")
        info.size = 2
        archive.addfile(info, io.BytesIO(b"BM"))
    config = config_of(serve(site, packed.getvalue(), "slices"), tmp_path)
    assert run(config).num_files == 1
    assert files_in(config.out) == {"a.bmp": b"BM"}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("P1_z000.bmp", "P1_z000.bmp"),
        ("a%20b%2F..%2Fc.bmp", "a b_.._c.bmp"),
        ("...", "file"),
        ("", "file"),
        ("x" * 300 + ".bmp", "x" * 180 + ".bmp"),
    ],
)
def test_file_that_is_no_archive_is_published_under_its_name(site, tmp_path, path, name):
    config = config_of(serve(site, b"BM" + bytes(99), path) + "?token=1", tmp_path)
    summary = run(config)
    assert files_in(config.out) == {name: b"BM" + bytes(99)}
    assert (summary.num_files, summary.num_bytes) == (1, 101)


def test_compressed_file_that_is_no_tar_is_published_as_it_is(site, tmp_path):
    packed = gzip.compress(b"BM")
    config = config_of(serve(site, packed, "a.bmp.gz"), tmp_path)
    run(config)
    assert files_in(config.out) == {"a.bmp.gz": packed}


def test_redirect_is_followed(site, tmp_path):
    serve(site, zip_of())
    site.resources["/moved"] = Resource(headers={"Location": "/slices.zip"}, status=302)
    assert run(config_of(f"{site.url}/moved", tmp_path)).num_files == 2


# The hash.


def test_file_with_the_expected_hash_is_taken(site, tmp_path):
    sha256 = hashlib.sha256(zip_of()).hexdigest().upper()
    assert run(config_of(serve(site, zip_of()), tmp_path, sha256=sha256)).num_files == 2


def test_other_hash_is_told_and_the_file_is_removed(site, tmp_path):
    config = config_of(serve(site, zip_of()), tmp_path, sha256="a" * 64)
    sha256 = hashlib.sha256(zip_of()).hexdigest()
    fail(config, f"slices.zip has the SHA-256 {sha256}; expected --sha256 {'a' * 64}; it was rem")
    assert beside(config) == []


# Connections that fail.


def test_dropped_connection_goes_on_where_it_stopped(site, tmp_path):
    config = config_of(serve(site, zip_of(BIG)), tmp_path, num_retries=1)
    site.faults = [Fault("close", 2 * MIB)]
    run(config)
    assert files_in(config.out) == BIG
    # Whatever had arrived of the first two MiB when the connection went.
    (offset,) = site.ranges()
    assert 0 < int(offset.removeprefix("bytes=").removesuffix("-")) <= 2 * MIB


def test_connection_that_is_reset_is_tried_again(site, tmp_path):
    config = config_of(serve(site, zip_of(BIG)), tmp_path, num_retries=1)
    site.faults = [Fault("reset", 2 * MIB)]
    run(config)
    assert files_in(config.out) == BIG


def test_new_bytes_begin_the_count_of_failures_anew(site, tmp_path):
    config = config_of(serve(site, zip_of(BIG)), tmp_path, num_retries=1)
    site.faults = [Fault("close", MIB), Fault("close", 2 * MIB), Fault("close", 3 * MIB)]
    run(config)
    assert files_in(config.out) == BIG
    assert len(site.ranges()) == 3


def test_server_that_gives_no_parts_is_asked_for_the_whole_again(site, tmp_path):
    config = config_of(serve(site, zip_of(BIG), takes_ranges=False), tmp_path, num_retries=1)
    site.faults = [Fault("close", 2 * MIB)]
    run(config)
    assert files_in(config.out) == BIG
    assert site.ranges() == []


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"1"'}])
def test_file_without_a_version_is_never_resumed(site, tmp_path, headers):
    config = config_of(serve(site, zip_of(BIG), headers=headers), tmp_path, num_retries=1)
    site.faults = [Fault("close", 2 * MIB)]
    run(config)
    assert files_in(config.out) == BIG
    assert site.ranges() == []


def test_file_with_a_date_is_resumed(site, tmp_path):
    headers = {"Last-Modified": formatdate(0, usegmt=True)}
    config = config_of(serve(site, zip_of(BIG), headers=headers), tmp_path, num_retries=1)
    site.faults = [Fault("close", 2 * MIB)]
    run(config)
    assert files_in(config.out) == BIG
    assert len(site.ranges()) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 503, 599])
def test_status_that_can_pass_is_tried_again(site, tmp_path, status):
    config = config_of(serve(site, zip_of()), tmp_path, num_retries=2)
    site.faults = [Fault("status", status), Fault("status", status)]
    assert run(config).num_files == 2


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "answers 401 Unauthorized: it wants a login; take a link that is shared"),
        (403, "answers 403 Forbidden: it does not give this file to everybody; look whether"),
        (404, "answers 404 Not Found: there is no such file; compare the address"),
        (410, "answers 410 Gone: the file was there and is gone; look for a new address"),
        (418, "answers 418 I'm a Teapot: look what a browser shows at the address"),
    ],
)
def test_status_that_stays_is_told_at_once(site, tmp_path, status, message):
    config = config_of(serve(site, zip_of()), tmp_path)
    site.faults = [Fault("status", status)] * 9
    fail(config, f"^--url {site.url}/slices.zip: the server {message}")
    assert len(site.requests) == 1
    assert beside(config) == []


def test_status_that_does_not_pass_is_told_in_the_end(site, tmp_path):
    site.faults = [Fault("status", 503)] * 9
    config = config_of(serve(site, zip_of()), tmp_path, num_retries=2)
    fail(config, "answers 503 Service Unavailable: the server is in trouble; try again later$")
    assert site.num_probes == 3


def test_waits_grow_and_heed_the_server(site, tmp_path, monkeypatch, caplog):
    waits = []
    monkeypatch.setattr(retries.time, "sleep", waits.append)
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 1.0)
    busy = Fault("status", 429, {"Retry-After": "7"})
    date = Fault("status", 503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})
    site.faults = [date, date, busy, date, Fault("status", 429, {"Retry-After": "9999"})]
    with caplog.at_level(logging.WARNING, "preprocessing"):
        run(config_of(serve(site, zip_of()), tmp_path))
    # 1, 2, 4, 8 s of our own; 7 s and, at most, a minute as the server asks.
    assert waits == [1, 2, 7, 8, 60]
    assert "was asked too often; wait some minutes; retry 3 of 5 in 7 s" in caplog.text


def test_stall_is_given_up_after_the_time_out_and_resumed(site, tmp_path):
    config = DownloadConfig(
        url=serve(site, zip_of(BIG)), out=tmp_path / "slices", timeout_s=0.2, num_retries=1
    )
    site.faults = [Fault("stall", 2 * MIB)]
    run(config)
    assert files_in(config.out) == BIG
    assert len(site.ranges()) == 1


def test_stall_that_lasts_is_told_with_the_flag(site, tmp_path):
    config = DownloadConfig(
        url=serve(site, zip_of()), out=tmp_path / "slices", timeout_s=0.1, num_retries=1
    )
    site.faults = [Fault("stall", 5)] * 9
    fail(config, r"nothing came for 0\.1 s; check the network, or raise --timeout-s$")


def test_server_that_accepts_and_says_nothing_is_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        config = DownloadConfig(url=url, out=tmp_path / "slices", timeout_s=0.1, num_retries=0)
        fail(config, r"nothing came for 0\.1 s; check the network")


def test_refused_connection_is_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    config = config_of(f"http://127.0.0.1:{port}/x.zip", tmp_path, num_retries=1)
    fail(config, r"connection failed or was dropped \(.*Connection refused.*\); check the address")


def test_encrypted_connection_to_a_plain_server_is_told_at_once(site, tmp_path):
    config = config_of(site.url.replace("http:", "https:"), tmp_path)
    fail(config, r"no trusted connection can be made \(.*\); check the address, and the clock")


def test_proxy_that_does_not_answer_is_told_at_once(site, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("no_proxy", "")
    fail(config_of("http://example.invalid/x", tmp_path), "the proxy gives no connection")


def test_redirects_in_a_circle_are_told_at_once(site, tmp_path):
    site.resources["/a"] = Resource(headers={"Location": "/a"}, status=302)
    fail(config_of(f"{site.url}/a", tmp_path), "the request cannot be made .Exceeded 30 redirects")


@pytest.mark.parametrize("at", [0, 100, 2 * MIB])
def test_short_body_is_never_published(site, tmp_path, at):
    config = config_of(serve(site, b"BM" + noise(3 * MIB), "a.bmp"), tmp_path, num_retries=1)
    site.faults = [Fault("close", at)] * 9
    fail(config, "the file did not come whole .*; check the network")


def test_password_in_an_address_is_not_shown(site, tmp_path, caplog):
    url = site.url.replace("//", "//user:secret@") + "/none.zip"
    with caplog.at_level(logging.INFO, "preprocessing"):
        fail(config_of(url, tmp_path), f"^--url {site.url}/none.zip: ")
    assert "secret" not in caplog.text
    assert shown_url("https://u:p@x.org:8/a?b=1") == "https://x.org:8/a?b=1"


# What a failed run leaves for the next one.


def test_failed_run_keeps_its_part_and_the_next_one_goes_on(site, tmp_path):
    config = config_of(serve(site, zip_of(BIG)), tmp_path, num_retries=0)
    site.faults = [Fault("close", 2 * MIB)]
    fail(config, r"; [12]\.\d MiB are kept, and the same command goes on from there$")
    assert beside(config) == [".slices.download"]
    run(config)
    assert len(site.ranges()) == 1
    assert files_in(config.out) == BIG
    assert beside(config) == []


@pytest.mark.parametrize("change", ["etag", "size", "date"])
def test_part_of_an_older_version_is_not_mixed_with_the_new_one(site, tmp_path, change):
    dated = {"Last-Modified": formatdate(0, usegmt=True)}
    config = config_of(serve(site, zip_of(BIG), headers=dated), tmp_path, num_retries=0)
    site.faults = [Fault("close", 2 * MIB)]
    fail(config, "are kept")
    new = {"images/a.bmp": b"BM" + noise(3 * MIB + (change == "size"), seed=4)}
    headers = {
        "etag": dated | {"ETag": '"2"'},
        "size": dated,
        "date": {"Last-Modified": formatdate(1, usegmt=True)},
    }[change]
    serve(site, zip_of(new), headers=headers)
    run(config)
    assert files_in(config.out) == new
    assert site.ranges() == []


def test_part_of_another_address_is_not_used(site, tmp_path):
    config = config_of(serve(site, zip_of(BIG)), tmp_path, num_retries=0)
    site.faults = [Fault("close", 2 * MIB)]
    fail(config, "are kept")
    new = {"images/a.bmp": b"BM" + noise(3 * MIB, seed=4)}
    other = config_of(serve(site, zip_of(new), "other.zip"), tmp_path)
    run(other)
    assert files_in(config.out) == new
    assert site.ranges("/other.zip") == []


def test_file_replaced_while_it_is_resumed_is_fetched_anew(site, tmp_path, monkeypatch):
    config = config_of(serve(site, zip_of(BIG)), tmp_path, num_retries=2)
    site.faults = [Fault("close", 2 * MIB)]
    new = {"images/a.bmp": b"BM" + noise(3 * MIB, seed=4)}
    download = gdown.download
    calls = []

    def replace_and_download(*args, **options):
        calls.append(options)
        if len(calls) == 2:  # after the probe found the old version
            serve(site, zip_of(new), headers={"ETag": '"2"'})
        return download(*args, **options)

    monkeypatch.setattr(gdown, "download", replace_and_download)
    run(config)
    assert len(calls) == 3
    assert files_in(config.out) == new


def test_server_that_does_not_go_on_is_asked_for_the_whole(site, tmp_path, monkeypatch):
    config = config_of(serve(site, zip_of(BIG)), tmp_path, num_retries=2)
    site.faults = [Fault("close", 2 * MIB)]
    download = gdown.download
    calls = []

    def lose_ranges(*args, **options):
        calls.append(options)
        site.resources["/slices.zip"].takes_ranges = len(calls) != 2
        try:
            return download(*args, **options)
        finally:
            site.resources["/slices.zip"].takes_ranges = True

    monkeypatch.setattr(gdown, "download", lose_ranges)
    run(config)
    assert len(calls) == 3
    assert files_in(config.out) == BIG


def test_part_outlives_a_server_that_refuses_for_a_while(site, tmp_path):
    config = config_of(serve(site, zip_of(BIG)), tmp_path, num_retries=0)
    site.faults = [Fault("close", 2 * MIB), Fault("status", 403)]
    fail(config, "are kept")
    fail(config, "403 Forbidden.*are kept")
    run(config)
    assert len(site.ranges()) == 1


def test_whole_file_is_not_fetched_again_when_only_unpacking_failed(site, tmp_path):
    config = config_of(serve(site, zip_of(BIG)), tmp_path, max_gib=2**-9)
    fail(config, r"at least 0\.00293 GiB would be downloaded, more than --max-gib allows; raise it")
    packed = serve(site, zip_of(), "two.zip")
    few = DownloadConfig(url=packed, out=config.out, max_files=1)
    kept_as = r"; the downloaded file is kept as .*/\.slices\.download/\S+/body$"
    fail(few, f"holds more files and folders than --max-files 1 allows; raise it.*{kept_as}")
    enough = DownloadConfig(url=packed, out=config.out)
    site.requests.clear()
    run(enough)
    assert site.requests == [("/two.zip", PROBE)]
    assert files_in(config.out) == SLICES


def test_damaged_archive_is_not_kept(site, tmp_path):
    config = config_of(serve(site, zip_of()[:-30]), tmp_path)
    fail(
        config, r"the file of --url .*slices.zip is damaged or was cut short \(.*to download it an"
    )
    assert beside(config) == []


def test_web_page_is_not_kept(site, tmp_path):
    config = config_of(serve(site, b"<html><title>Log in</title></html>"), tmp_path)
    fail(config, "slices.zip is a web page with the title 'Log in'")
    assert beside(config) == []


def test_empty_file_is_told(site, tmp_path):
    fail(config_of(serve(site, b""), tmp_path), "slices.zip is empty; expected slices")


def test_unknown_size_is_warned_of(site, tmp_path, caplog):
    url = serve(site, zip_of(), takes_ranges=False, tells_size=False)
    with caplog.at_level(logging.WARNING, "preprocessing"):
        run(config_of(url, tmp_path))
    assert "slices.zip: the server does not tell the size of the file" in caplog.text


def test_endless_file_of_unknown_size_is_ended_by_the_limit(site, tmp_path):
    url = serve(site, noise(4 * MIB), takes_ranges=False, tells_size=False)
    config = config_of(url, tmp_path, max_gib=2**-10)
    fail(config, "more than --max-gib allows")
    assert beside(config) == []


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def start_download(config):
    command = [sys.executable, "-m", "preprocessing", "download", "--url", config.url]
    return subprocess.Popen(
        [*command, "--out", str(config.out)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )


def part_bytes(config):
    folder = config.out.with_name(".slices.download")
    return sum(path.stat().st_size for path in folder.glob("*/body*.part"))


def test_killed_run_leaves_no_output_and_the_next_one_resumes(site, tmp_path):
    config = config_of(serve(site, zip_of(BIG)), tmp_path)
    site.faults = [Fault("stall", 2 * MIB)]
    with start_download(config) as process:
        wait_for(lambda: part_bytes(config) >= MIB)
        process.send_signal(signal.SIGKILL)
    assert not config.out.exists()
    assert site.ranges() == []
    run(config)
    (offset,) = site.ranges()
    assert int(offset.removeprefix("bytes=").removesuffix("-")) >= MIB
    assert files_in(config.out) == BIG
    assert beside(config) == []


def test_second_run_for_one_output_is_told(site, tmp_path):
    config = config_of(serve(site, zip_of(BIG)), tmp_path)
    site.faults = [Fault("stall", 2 * MIB)]
    with start_download(config) as process:
        wait_for(lambda: part_bytes(config) >= MIB)
        with pytest.raises(PreprocessingError, match=r"another run is writing to .*/slices; wait"):
            run(config)
        process.send_signal(signal.SIGINT)
        _, message = process.communicate(timeout=20)
    assert process.returncode == 130
    assert message.decode().splitlines()[-1] == "error: interrupted; nothing was published"
    assert part_bytes(config) >= MIB


# The output.


def test_output_with_files_is_refused_before_anything_is_asked(site, tmp_path):
    config = config_of(serve(site, zip_of()), tmp_path)
    config.out.mkdir()
    (config.out / "thesis.tex").touch()
    with pytest.raises(PreprocessingError, match="holds 'thesis.tex'; expected a new or empty fol"):
        run(config)
    assert site.requests == []


def test_output_with_files_is_kept_where_that_is_asked_for(site, tmp_path, capsys):
    out = tmp_path / "slices"
    command = ["download", "--url", serve(site, zip_of()), "--out", str(out), "--keep-existing"]
    assert main(command) == 0
    assert files_in(out) == SLICES
    num_requests = len(site.requests)
    assert main(command) == 0
    assert capsys.readouterr().out.endswith("slices is there already; nothing was downloaded\n")
    assert len(site.requests) == num_requests


def test_empty_output_is_taken(site, tmp_path):
    config = config_of(serve(site, zip_of()), tmp_path)
    config.out.mkdir()
    run(config)
    assert files_in(config.out) == SLICES


def test_output_that_is_a_file_or_a_mount_point_is_refused(tmp_path, monkeypatch):
    (tmp_path / "slices").touch()
    with pytest.raises(PreprocessingError, match="slices is a file; expected a folder, which"):
        run(config_of("http://x/y", tmp_path))
    monkeypatch.setattr(os.path, "ismount", lambda _: True)
    with pytest.raises(PreprocessingError, match=r"is a mount point.*such as .*/slices"):
        run(config_of("http://x/y", tmp_path))


def test_output_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    config = DownloadConfig(url="http://x/y", out=tmp_path / "file" / "a" / "b")
    with pytest.raises(PreprocessingError, match=r"/a/b cannot be made \(Not a directory: "):
        run(config)


def test_disk_that_is_full_is_told(site, tmp_path, monkeypatch):
    def fill(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(job, "unpack", fill)
    config = config_of(serve(site, zip_of()), tmp_path)
    fail(config, "slices cannot be written: No space left on device; make room, or choose another")


def test_folder_of_downloads_that_is_gone_is_not_tidied(tmp_path):
    with kept_folder(tmp_path / "slices") as kept:
        kept.rename(tmp_path / "elsewhere")
        kept.mkdir()
        (kept / "theirs").mkdir()
    assert (kept / "theirs").is_dir()


# Google Drive.


def drive_answers(site, path, content, **more):
    site.resources[f"/{path}"] = Resource(content, **more)


def html(body):
    return {"headers": {"Content-Type": "text/html"}, "content": body.encode()}


CONFIRM_PAGE = """<html><form id="download-form" method="get"
action="https://drive.usercontent.google.com/download"><input type="hidden" name="id" value="x">
<input type="hidden" name="confirm" value="t"></form></html>""".replace("\n", " ")


def serve_drive_file(site, content, **headers):
    attached = {"Content-Disposition": 'attachment; filename="P1_z000.bmp"'}
    headers = {"Content-Type": "application/octet-stream"} | attached | headers
    drive_answers(site, "drive.google.com/uc", **html(CONFIRM_PAGE))
    drive_answers(site, "drive.usercontent.google.com/download", content, headers=headers)


def test_large_file_of_drive_is_fetched_through_its_warning_page(drive_site, tmp_path):
    serve_drive_file(drive_site, zip_of())
    config = config_of(DRIVE_FILE, tmp_path)
    run(config)
    assert files_in(config.out) == SLICES


def test_single_slice_of_drive_has_its_name(drive_site, tmp_path):
    serve_drive_file(drive_site, b"BM" + bytes(50))
    config = config_of(DRIVE_FILE, tmp_path)
    run(config)
    assert files_in(config.out) == {"P1_z000.bmp": b"BM" + bytes(50)}
    assert not (tmp_path / "home").exists()


def test_file_of_drive_is_resumed(drive_site, tmp_path):
    serve_drive_file(drive_site, zip_of(BIG), **{"Last-Modified": formatdate(0, usegmt=True)})
    drive_site.faults = [Fault("close", 2 * MIB)]
    config = config_of(DRIVE_FILE, tmp_path, num_retries=1)
    run(config)
    assert files_in(config.out) == BIG
    assert len(drive_site.ranges("/drive.usercontent.google.com/download")) == 1


def test_quota_of_drive_is_told_and_the_part_is_kept(drive_site, tmp_path):
    serve_drive_file(drive_site, zip_of(BIG), **{"Last-Modified": formatdate(0, usegmt=True)})
    drive_site.faults = [Fault("close", 2 * MIB)]
    config = config_of(DRIVE_FILE, tmp_path, num_retries=0)
    fail(config, "are kept")
    page = html(
        '<p class="uc-error-caption">Sorry</p>\n<p class="uc-error-subcaption">Too many users have '
        "viewed or downloaded this file recently.</p>"
    )
    kept = drive_site.resources.copy()
    for path in kept:
        drive_answers(drive_site, path.lstrip("/"), **page)
    fail(
        config,
        r"the quota of this file on Google Drive is used up \(Too many users have viewed or "
        r"downloaded this file recently\.\); try again in 24 hours.*MiB are kept",
    )
    drive_site.resources = kept
    run(config)
    assert files_in(config.out) == BIG


def test_file_of_drive_that_is_not_shared_is_told_at_once(drive_site, tmp_path):
    drive_answers(drive_site, "drive.google.com/uc", **html("<html>Sign in</html>"))
    fail(
        config_of(DRIVE_FILE, tmp_path),
        r"drive.google.com/file/d/1+/view\?usp=sharing: Google Drive does not give this file to "
        r"everybody, .* share it with 'Anyone with the link', .*Drive and gdown say: Cannot retr",
    )
    assert len([path for path, _ in drive_site.requests if path.endswith("/uc")]) == 1


def test_answer_of_drive_without_its_headers_is_told(drive_site, tmp_path):
    drive_answers(drive_site, "drive.google.com/uc", b"x")
    fail(config_of(DRIVE_FILE, tmp_path), r"the answer makes no sense \(KeyError: 'content-type'\)")


def folder_page(*links):
    rows = "".join(f'<a href="{href}">{name}</a>' for href, name in links)
    return html(f"<html><title>slices</title>{rows}</html>")


def file_link(letter, name):
    return f"https://drive.google.com/file/d/{letter * 33}/view?usp=drive_web", name


def test_folder_of_drive_is_published_as_it_is(drive_site, tmp_path):
    drive_answers(
        drive_site,
        "drive.google.com/embeddedfolderview",
        **folder_page(file_link("a", "a.bmp"), file_link("b", "b.zip")),
    )
    serve_drive_file(drive_site, zip_of())
    config = config_of(DRIVE_FOLDER, tmp_path)
    assert run(config) == DownloadSummary(
        num_files=2,
        num_bytes=2 * len(zip_of()),
        downloaded_bytes=2 * len(zip_of()),
        sha256=None,
    )
    assert files_in(config.out) == {"a.bmp": zip_of(), "b.zip": zip_of()}
    assert beside(config) == []


def test_files_of_a_folder_that_are_there_are_not_fetched_again(drive_site, tmp_path, monkeypatch):
    drive_answers(
        drive_site,
        "drive.google.com/embeddedfolderview",
        **folder_page(file_link("a", "a.bmp"), file_link("b", "b.bmp")),
    )
    serve_drive_file(drive_site, b"BM" + bytes(50), ETag='"1"')
    download = gdown.download
    fetched = []

    def fetch_first(url, **options):
        fetched.append(url[-1])
        if fetched == ["a", "b"]:
            raise gdown.FileURLRetrievalError("Too many users")
        return download(url, **options)

    monkeypatch.setattr(gdown, "download", fetch_first)
    config = config_of(DRIVE_FOLDER, tmp_path)
    fail(config, "^b.bmp in --url .*the quota of this file on Google Drive is used up")
    run(config)
    assert fetched == ["a", "b", "b"]
    assert sorted(files_in(config.out)) == ["a.bmp", "b.bmp"]


def list_as(monkeypatch, *paths):
    files = [
        gdown.download_folder.__globals__["GoogleDriveFileToDownload"](
            id="x", path=path, local_path=""
        )
        for path in paths
    ]
    monkeypatch.setattr(gdown, "download_folder", lambda **_: files)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "the folder of --url .* holds no files; expected slices"),
        (["a.bmp", "a.bmp"], "holds 'a.bmp' twice; expected each name once; rename one on Google"),
        (["a/b", "a"], "holds 'a' twice"),
        (["../a.bmp"], "holds '../a.bmp', which would be written outside of its folder"),
        (["a", "b", "c"], "holds 3 files, more than --max-files 2 allows; raise it"),
    ],
)
def test_folder_of_drive_that_cannot_be_written_is_told(tmp_path, monkeypatch, paths, message):
    list_as(monkeypatch, *paths)
    fail(config_of(DRIVE_FOLDER, tmp_path, max_files=2), message)


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ({"status": 404}, "the server answers 404 Not Found: there is no such file"),
        ({"status": 403}, "the server answers 403 Forbidden"),
        (
            {"content": b"<html>Sign in</html>"},
            "this is no folder that Google Drive shows to every",
        ),
    ],
)
def test_folder_of_drive_that_is_not_shared_is_told_at_once(drive_site, tmp_path, page, message):
    drive_site.resources["/drive.google.com/embeddedfolderview"] = Resource(**page)
    fail(config_of(DRIVE_FOLDER, tmp_path), message)
    assert len(drive_site.requests) == 1


def test_list_of_a_folder_is_asked_for_again(monkeypatch, tmp_path):
    calls = []

    def fail_twice(**_):
        calls.append(1)
        if len(calls) == 1:
            raise requests.ConnectionError("gone")
        raise gdown.DownloadError(f"Failed to retrieve (status code {[503, 404][len(calls) - 2]})")

    monkeypatch.setattr(gdown, "download_folder", fail_twice)
    fail(config_of(DRIVE_FOLDER, tmp_path), "404 Not Found")
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("url", "folder_id"),
    [
        (DRIVE_FOLDER, FOLDER_ID),
        ("https://drive.google.com/drive/u/0/folders/abc-_9", "abc-_9"),
        (DRIVE_FILE, None),
        ("https://example.org/drive/folders/abc", None),
    ],
)
def test_folder_of_drive_is_known_by_its_address(url, folder_id):
    assert drive_folder_id(url) == folder_id


def test_file_of_drive_is_known_by_its_address():
    assert drive.drive_file_id(DRIVE_FILE) == FILE_ID
    assert drive.drive_file_id(f"https://drive.google.com/uc?id={FILE_ID}") == FILE_ID
    assert drive.drive_file_id("https://example.org/uc?id=1") is None


# What gdown and requests raise, and what becomes of it.


@pytest.mark.parametrize(
    ("error", "reason", "may_pass"),
    [
        (requests.HTTPError("no answer"), "the request cannot be made (no answer)", False),
        (requests.exceptions.InvalidURL("bad"), "the request cannot be made (bad)", False),
        (requests.ConnectTimeout("x"), "nothing came for 3 s", True),
        (requests.ConnectionError("HTTPPool(host='x'): Read timed out."), "nothing came", True),
        (requests.ConnectionError(), "was dropped (ConnectionError)", True),
        (requests.exceptions.ChunkedEncodingError("cut"), "was dropped (cut)", True),
        (requests.exceptions.ContentDecodingError("cut"), "was dropped (cut)", True),
        (gdown.DownloadError("Download is\nincomplete."), "come whole (Download is inco", True),
        (failures.ChangedFileError(), "replaced at its address while it was downloaded", True),
        (AssertionError("what"), "the answer makes no sense (AssertionError: what)", False),
    ],
)
def test_error_becomes_a_reason(error, reason, may_pass):
    failure = failures.explain(error, timeout_s=3.0)
    assert reason in failure.reason
    assert failure.may_pass == may_pass


def test_version_of_an_address_names_one_folder():
    one = transfer.Version(url="u", etag='"1"', last_modified="", num_bytes=1)
    others = [
        transfer.Version(url="v", etag='"1"', last_modified="", num_bytes=1),
        transfer.Version(url="u", etag='"2"', last_modified="", num_bytes=1),
        transfer.Version(url="u", etag="", last_modified='"1"', num_bytes=1),
        transfer.Version(url="u", etag='"1"', last_modified="", num_bytes=11),
    ]
    assert len({version.folder_name() for version in [one, *others]}) == 5


# Options, progress, command line.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "slices.zip"}, "url 'slices.zip'; expected an address that starts with http://"),
        ({"url": "ftp://x/y"}, "url 'ftp://x/y'; expected an address"),
        ({"url": "http:///y"}, "expected an address"),
        ({"url": "http://x:port/y"}, "expected an address"),
        ({"url": "http://[x/y"}, "expected an address"),
        ({"url": "http://x/a b"}, "quote it if it holds & or spaces"),
        ({"sha256": "abc"}, "sha256 'abc'; expected 64 hexadecimal digits, as `sha256sum FILE`"),
        ({"sha256": "a" * 64, "url": DRIVE_FOLDER}, "which is a folder; expected the address of"),
        ({"timeout_s": 0}, "timeout_s 0; expected seconds above 0"),
        ({"timeout_s": float("nan")}, "timeout_s nan; expected seconds above 0"),
        ({"timeout_s": float("inf")}, "timeout_s inf; expected seconds above 0"),
        ({"num_retries": -1}, "num_retries -1; expected 0"),
        ({"max_gib": 0}, "max_gib 0; expected GiB above 0"),
        ({"max_files": 0}, "max_files 0; expected at least 1"),
    ],
)
def test_value_that_cannot_be_used_is_refused(changes, message):
    with pytest.raises(ValueError, match="received") as raised:
        DownloadConfig(**{"url": "http://x/y", "out": Path("out")} | changes)
    assert message in str(raised.value)


def test_limit_is_in_bytes():
    assert DownloadConfig(url="http://x/y", out=Path("out"), max_gib=1.5).max_bytes() == 1610612736


def test_bar_on_a_terminal_counts_bytes(site, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "tqdm", partial(progress.tqdm, mininterval=0))
    run(config_of(serve(site, zip_of(BIG)), tmp_path), is_terminal=True)
    shown = capsys.readouterr().err
    assert "download" in shown
    assert "3.00M/3.00M" in shown


def test_log_line_now_and_then_without_a_terminal(site, tmp_path, caplog, capsys, monkeypatch):
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0.0)
    with caplog.at_level(logging.INFO, "preprocessing"):
        run(config_of(serve(site, zip_of(BIG)), tmp_path))
    assert "download: 1.0 of 3.0 MiB" in caplog.text
    assert "unpack: 3.0 MiB" in caplog.text
    assert capsys.readouterr().err == ""


def test_files_of_a_folder_are_counted(drive_site, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0.0)
    drive_answers(
        drive_site,
        "drive.google.com/embeddedfolderview",
        **folder_page(file_link("a", "a.bmp"), file_link("b", "b.bmp")),
    )
    serve_drive_file(drive_site, bytes(MIB))
    with caplog.at_level(logging.INFO, "preprocessing"):
        run(config_of(DRIVE_FOLDER, tmp_path))
    assert "download file 2 of 2: 1.0 of 1.0 MiB" in caplog.text


def test_command_ends_with_a_summary_and_the_hash(site, tmp_path, capsys):
    out = tmp_path / "slices"
    assert main(["download", "--url", serve(site, zip_of(BIG)), "--out", str(out)]) == 0
    told, advice = capsys.readouterr().out.splitlines()
    assert told == f"{out}: 1 files, 3.0 MiB, from a download of 3.0 MiB"
    sha256 = hashlib.sha256(zip_of(BIG)).hexdigest()
    assert advice == f"pass --sha256 {sha256} to be sure of the same file the next time"


def test_failure_is_one_line_and_a_failing_status(site, tmp_path, capsys):
    assert main(["download", "--url", f"{site.url}/none", "--out", str(tmp_path / "a")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --url {site.url}/none: the server answers 404 Not Found: ")


def test_download_takes_nothing_for_beam(tmp_path, capsys):
    assert main(["download", "--url", "http://x", "--out", str(tmp_path), "--", "--x"]) == 1
    assert "`download` takes nothing after `--`" in capsys.readouterr().err
