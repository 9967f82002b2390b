"""The page: what it answers, whom it refuses, and what a browser shows."""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image

from serving.client import SegmentationClient
from serving.config import ViewConfig
from serving.embedded.server import EmbeddedServer
from serving.endpoint import Endpoint
from serving.view.app import FOLDER, make_app

WriteSlice = Callable[..., Path]


@pytest.fixture
def make_page() -> Iterator[Callable[..., FlaskClient]]:
    clients: list[SegmentationClient] = []

    def make(target: str, **settings: Any) -> FlaskClient:
        config = ViewConfig(target=target, **settings)
        clients.append(SegmentationClient(Endpoint.of(config)))
        return make_app(config, clients[-1]).test_client()

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def page(make_page: Callable[..., FlaskClient], server: EmbeddedServer) -> FlaskClient:
    return make_page(server.target, max_upload_mib=1)


def pixels(png: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        return np.asarray(image)


def test_slice_comes_back_with_its_mask(
    page: FlaskClient, write_slice: WriteSlice, gray_image: np.ndarray
) -> None:
    data = write_slice("a.bmp", gray_image).read_bytes()
    answer = page.post("/segment?name=P1/a.bmp", data=data)
    assert answer.status_code == 200
    told = answer.get_json()
    np.testing.assert_array_equal(pixels(told["slice_png"]), gray_image)
    mask = pixels(told["mask_png"])
    assert mask[:, :10].min() == 255
    assert mask[:, 10:].max() == 0
    assert told["name"] == "P1/a.bmp"
    assert (told["height"], told["width"], told["lung_area_px"]) == (20, 30, 200)
    assert told["model_version"] == 3


def test_masks_are_cleaned_unless_they_are_not_to_be(
    make_page: Callable[..., FlaskClient], server: EmbeddedServer, write_slice: WriteSlice
) -> None:
    image = np.full((200, 200), 200, np.uint8)
    image[50:150, 40:80] = 10
    image[180:181, 180:182] = 10  # a speck
    data = write_slice("a.png", image).read_bytes()
    for postprocess, area in ((True, 4000), (False, 4002)):
        page = make_page(server.target, postprocess=postprocess)
        assert page.post("/segment", data=data).get_json()["lung_area_px"] == area


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b"<html>no slice</html>", 422, "x.bmp"),
        (b"", 422, "x.bmp"),
        (bytes(2**20 + 1), 413, "more than 1 MiB; see --max-upload-mib"),
    ],
)
def test_file_that_is_no_slice_is_refused_with_a_reason(
    page: FlaskClient, data: bytes, status: int, message: str
) -> None:
    answer = page.post("/segment?name=x.bmp", data=data)
    assert answer.status_code == status
    assert message in answer.get_json()["error"]


def test_missing_server_is_told(
    make_page: Callable[..., FlaskClient], closed_port: int, write_slice: WriteSlice
) -> None:
    data = write_slice("a.png", np.zeros((4, 5), np.uint8)).read_bytes()
    answer = make_page(f"localhost:{closed_port}").post("/segment", data=data)
    assert answer.status_code == 502
    assert "no server answers at" in answer.get_json()["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:8080"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
    ],
)
def test_other_sites_are_refused(page: FlaskClient, headers: dict[str, str]) -> None:
    for path, method in (("/", "GET"), ("/segment", "POST")):
        answer = page.open(path, method=method, headers=headers)
        assert answer.status_code == 403
        assert "this computer only" in answer.get_json()["error"]


def test_page_loads_nothing_from_elsewhere(page: FlaskClient) -> None:
    for name in ("/", "/page.js", "/page.css"):
        answer = page.get(name)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    text = "".join(path.read_text() for path in FOLDER.glob("page.*"))
    assert not re.search(r"https?://", text)
    assert "Not a medical device" in text
    assert page.get("/etc/passwd").status_code == 404


def test_settings_are_told(page: FlaskClient) -> None:
    about = page.get("/about").get_json()
    assert about["model_name"] == "lung_unet"
    assert about["flips"] == "horizontal"
    assert about["max_upload_mib"] == 1


@pytest.fixture
def address(server: EmbeddedServer) -> Iterator[str]:
    """The address of the page, served by the command."""
    command = [sys.executable, "-m", "serving", "view", "--port", "0", "--target", server.target]
    command += ["--max-upload-mib", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"open (http://127\.0\.0\.1:\d+) \(Ctrl-C ends it\)\n", line)
        assert found, line
        try:
            yield found[1]
        finally:
            process.terminate()


def test_port_in_use_is_told(address: str) -> None:
    port = address.rsplit(":", 1)[1]
    ended = subprocess.run(
        [sys.executable, "-m", "serving", "view", "--port", port],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert f"port {port} of 127.0.0.1 cannot be had: Address already in use" in ended.stderr


@pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="needs Chromium and its driver: packages chromium and chromium-driver",
)
def test_browser_shows_slice_mask_and_overlay(
    address: str, write_slice: WriteSlice, tmp_path: Path
) -> None:
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    image = np.full((200, 300), 200, np.uint8)
    image[50:150, 40:80] = 10  # lung for the tiny model
    first = write_slice("P1/z1.bmp", image)
    write_slice("P1/z2.png", image[:, ::-1])
    (tmp_path / "slices" / "P1" / "z3.png").write_bytes(b"no slice")
    (tmp_path / "slices" / "P1" / "z4.bmp").write_bytes(bytes(3 * 2**20))
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("headless=new", "no-sandbox", "window-size=1200,900", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options=options, service=service) as browser:
        browser.get(address)
        browser.find_element(By.ID, "folder").send_keys(str(first.parent))
        WebDriverWait(browser, 30).until(
            lambda _: browser.find_element(By.ID, "progress").text == "4 of 4 done, 2 failed"
        )
        rows = [row.text for row in browser.find_elements(By.CSS_SELECTOR, "#slices tr")]
        assert [row.split()[0] for row in rows] == [
            *("P1/z1.bmp", "P1/z2.png", "P1/z3.png", "P1/z4.bmp"),
        ]
        assert "the file has more than 1 MiB; see --max-upload-mib" in rows[3]
        assert "4,000 6.7 %" in rows[0]
        browser.find_elements(By.CSS_SELECTOR, "#slices tr")[0].click()

        def pixel(x: int, y: int) -> list[int]:
            return browser.execute_script(  # type: ignore[no-any-return]
                "return [...document.getElementById('picture').getContext('2d')"
                f".getImageData({x}, {y}, 1, 1).data]"
            )

        wait = WebDriverWait(browser, 10)
        wait.until(lambda _: pixel(60, 100)[1:] == [73, 96, 255])  # 35 % of the color of lung
        assert pixel(200, 100) == [200, 200, 200, 255]
        browser.find_element(By.CSS_SELECTOR, "input[value=mask]").click()
        wait.until(lambda _: pixel(60, 100) == [255, 255, 255, 255])
        browser.find_element(By.CSS_SELECTOR, "input[value=slice]").click()
        wait.until(lambda _: pixel(60, 100) == [10, 10, 10, 255])
        link = browser.find_element(By.ID, "download")
        assert link.get_attribute("download") == "z1_mask.png"
        mask = pixels(link.get_attribute("href").split(",")[1])
        assert mask.shape == (200, 300)
        assert int((mask > 0).sum()) == 4000
        browser.find_element(By.TAG_NAME, "body").send_keys("\ue015")  # arrow down
        wait.until(lambda _: "z2.png" in browser.find_element(By.ID, "caption").text)
        browser.save_screenshot(str(tmp_path / "page.png"))
        errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    # The file that is no slice is answered with 422, which browsers log.
    assert all("422" in entry["message"] for entry in errors), json.dumps(errors)
