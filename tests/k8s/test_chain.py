"""The road from the manifests: what each pod would run, run here, one stage after the other.

Arguments and environment are those of the rendered overlay, with all their flags. Folders stand in
for mounts, this machine for the addresses of Services, the embedded server for TensorFlow Serving.
"""

import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from preprocessing.phantoms.drawing import PhantomsConfig, write_phantoms
from serving.client import SegmentationClient
from serving.embedded import metrics
from serving.endpoint import Endpoint
from tests.k8s.manifests import (
    Manifest,
    arguments_of,
    build_with,
    environment_of,
    named,
    read,
)
from trainer.interruption import EXIT_RETRY

pytestmark = pytest.mark.cluster

SLICES = "/data/download/images/*_z*0.bmp"
SMALL = {
    **{"RECIPE": "reference", "IMAGE_SIZE": "64", "FILTERS": "8", "EPOCHS": "6"},
    "SMOKE_SLICES": SLICES,
}
"""Of a model that is trained in seconds."""


class Node:
    """Runs containers of Jobs as a node would, on folders of this machine."""

    def __init__(self, folder: Path, objects: list[Manifest], *, is_new: bool = True) -> None:
        self.objects, self.folder = objects, folder
        for name in ("data", "runs", "models", "results", "tmp", "dev/shm"):
            (folder / name).mkdir(parents=True, exist_ok=not is_new)

    def start(self, job: str, *, container: int = 0, init: bool = False) -> subprocess.Popen[str]:
        pod = named(self.objects, "Job", job)["spec"]["template"]["spec"]
        spec = pod["initContainers" if init else "containers"][container]
        mounts = [mount["mountPath"] for mount in spec["volumeMounts"]]
        words = [self.mapped(word, mounts) for word in arguments_of(spec, self.objects)]
        variables = {"PATH": os.environ["PATH"], "HOME": str(self.folder / "tmp")}
        variables |= environment_of(spec, self.objects)
        return subprocess.Popen(
            [sys.executable, "-P", "-m", *words],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, job: str, **which: object) -> str:
        """Runs a container to its end, which has to be a good one."""
        with self.start(job, **which) as process:  # type: ignore[arg-type]
            said, _ = process.communicate()
        assert process.returncode == 0, said
        return said

    def fail(self, job: str) -> str:
        """Runs a container that has to end as the Job takes for final; gives what it said."""
        final = named(self.objects, "Job", job)["spec"]["podFailurePolicy"]["rules"][-1]
        with self.start(job) as process:
            said, _ = process.communicate()
        assert process.returncode in final["onExitCodes"]["values"], said
        assert "Traceback" not in said, said
        return said

    def mapped(self, word: str, mounts: list[str]) -> str:
        flag, equals, path = word.rpartition("=")
        if any(path.startswith(f"{mount}/") for mount in mounts):
            path = f"{self.folder}{path}"
        # Beam's own job service has its place for artifacts at another port, and tells it itself.
        path = path.replace("flink-job-server:8098", "")
        return flag + equals + re.sub(r"^(serving-headless|flink-job-server):", "localhost:", path)


class QuietServer(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, address: object) -> None:
        """The download breaks a connection off when it knows enough."""


@pytest.fixture(scope="module")
def slices(tmp_path_factory, request) -> str:
    """An archive of slices and masks behind an address: real ones where they are, else phantoms."""
    folder = tmp_path_factory.mktemp("archive")
    try:
        source = request.getfixturevalue("lctsc")
    except pytest.skip.Exception:
        source = folder / "phantoms"
        write_phantoms(
            PhantomsConfig(out=source, num_patients=5, slices_per_patient=12, image_size=128)
        )
    with zipfile.ZipFile(folder / "slices.zip", "w") as archive:
        for kind in ("images", "masks"):
            for path in sorted((source / kind).iterdir()):
                archive.write(path, f"{kind}/{path.name}")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with QuietServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/slices.zip"
        server.shutdown()


@pytest.fixture(scope="module")
def node(slices, tmp_path_factory) -> Node:
    text = build_with("local", [], settings={**SMALL, "DATA_URL": slices})
    return Node(tmp_path_factory.mktemp("node"), read(text))


@pytest.fixture(scope="module")
def road(node) -> Node:
    """All stages, one after the other."""
    times = {}
    for stage, run in (
        ("download", lambda: node.run("download")),
        ("tfrecords", lambda: node.run("tfrecords")),
        ("train", lambda: train_with_a_stop(node)),
        ("evaluate", lambda: node.run("export", init=True)),
        ("export", lambda: node.run("export")),
        ("serve and smoke", lambda: serve_and_smoke(node)),
    ):
        start_s = time.monotonic()
        run()
        times[stage] = f"{time.monotonic() - start_s:.1f} s"
    print(f"the road from the manifests: {times}")  # noqa: T201
    return node


def serve_and_smoke(node: Node) -> None:
    with serving(node):
        said = node.run("smoke")
    (num_masks,) = re.findall(r"^(\d+) masks in", said)
    assert int(num_masks) > 0


def test_road_leaves_what_the_next_stage_and_people_look_for(road):
    for path in (
        "data/download/images",
        "data/dataset/dataset.json",
        "runs/lung_unet/MODEL_CARD.md",
        "runs/evaluation/evaluation.json",
        "models/lung_unet/1/saved_model.pb",
        "results/masks/summary.csv",
    ):
        assert (road.folder / path).exists(), path


def test_stages_that_are_done_are_not_done_again(road):
    assert "nothing was downloaded" in road.run("download")
    assert "epoch 6/6" not in road.run("train")


def test_two_versions_are_served_under_labels(road):
    """The component `canary`, over the model of the road and one more version of it."""
    road.run("export")
    objects = read(build_with("local", ["canary"], settings=SMALL))
    canary = Node(road.folder, objects, is_new=False)
    with serving(canary):
        for label, version in (("stable", 1), ("canary", 2)):
            endpoint = Endpoint("localhost:8500", model_label=label)
            with SegmentationClient(endpoint) as client:
                client.predict(np.zeros((64, 64), np.uint8))
                assert client.answered_version == version


def test_tfrecords_on_workers_beside_flink(road, tmp_path):
    """The driver and the worker pool of the component `flink`, with Beam's own job service."""
    objects = read(build_with("local", ["flink"], settings=SMALL))
    driver = Node(tmp_path, objects)
    (driver.folder / "data").rmdir()
    (driver.folder / "data").symlink_to(road.folder / "data")
    first = json.loads((road.folder / "data" / "dataset" / "dataset.json").read_text())
    pod = named(objects, "Deployment", "flink-taskmanager")["spec"]["template"]["spec"]
    pool = next(each["args"] for each in pod["containers"] if each["name"] == "beam-workers")
    service = ["apache_beam.runners.portability.local_job_service_main", "--job_port", "8099"]
    # The pool starts its workers with the first `python` of the PATH: in the image, ours.
    environment = os.environ | {"PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [
        subprocess.Popen([sys.executable, "-m", *words], env=environment, **quiet)
        for words in (pool, service)
    ]
    try:
        for port in (8099, 50000):
            wait_for_port(port)
        driver.run("tfrecords")
    finally:
        for process in processes:
            process.kill()
            process.wait()
    second = json.loads((road.folder / "data" / "dataset" / "dataset.json").read_text())
    assert second["splits"]["train"]["patients"] == first["splits"]["train"]["patients"]
    # 64 are asked for, and no shard is empty.
    train = second["splits"]["train"]
    assert len(train["shards"]) == min(64, train["num_examples"])


def wait_for_port(port: int) -> None:
    for _ in range(300):
        try:
            socket.create_connection(("localhost", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"nothing listens at port {port}")


def train_with_a_stop(node: Node) -> None:
    """Stops the pod once, as a drained node does: the Job starts another, which goes on."""
    with node.start("train") as process:
        latest = node.folder / "runs" / "lung_unet" / "checkpoints" / "latest"
        while process.poll() is None and not list(latest.glob("epoch-*")):
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate()
    assert process.returncode == EXIT_RETRY, said
    assert "going on in epoch" in node.run("train")


@contextmanager
def serving(node: Node) -> Iterator[None]:
    """Runs the Deployment's container, by the server that takes the same arguments."""
    pod = named(node.objects, "Deployment", "serving")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    config = next(volume["configMap"] for volume in pod["volumes"] if "configMap" in volume)
    (node.folder / "config").mkdir(exist_ok=True)
    for name, text in named(node.objects, "ConfigMap", config["name"])["data"].items():
        text = text.replace('base_path: "/models', f'base_path: "{node.folder}/models')
        (node.folder / "config" / name).write_text(text)
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    words = [node.mapped(word, mounts) for word in container["args"]]
    probe = container["readinessProbe"]["httpGet"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    rest = f"http://127.0.0.1:{ports[probe['port']]}"
    with subprocess.Popen(
        [sys.executable, "-m", "serving", "serve", *words], stdout=subprocess.DEVNULL
    ) as process:
        try:
            wait_until_ready(process, rest + probe["path"])
            yield
            with urllib.request.urlopen(f"{rest}{metrics.DEFAULT_PATH}", timeout=5) as answer:
                assert b":tensorflow:serving:request_count" in answer.read()
        finally:
            process.terminate()
    assert process.returncode == 0


def wait_until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                assert "signature_def" in json.load(answer)["metadata"]
            return
        except OSError:
            assert process.poll() is None, "the server has ended"
            time.sleep(0.2)
    pytest.fail("the readiness probe was never answered")


# --- What cannot work ends at once, and for good. -------------------------------------------------


@pytest.fixture
def empty_node(slices, tmp_path) -> Node:
    return Node(tmp_path, read(build_with("local", [], settings={**SMALL, "DATA_URL": slices})))


def test_wrong_path_on_a_claim_is_final(empty_node):
    for job, named_path in (
        ("tfrecords", "/data/download/images"),
        ("train", "/data/dataset"),
        ("export", "/runs/lung_unet"),
        ("smoke", "/data/download/images"),
    ):
        last_line = empty_node.fail(job).strip().splitlines()[-1]
        assert re.match(f"error: .*{empty_node.folder}{named_path}", last_line), last_line


def test_address_that_was_not_set_is_final(tmp_path):
    node = Node(tmp_path, read(build_with("local", [], settings={"DATA_URL": "slices.zip"})))
    assert "expected an address that starts with http" in node.fail("download")


def test_node_without_a_gpu_is_final(road):
    objects = read(build_with("gpu", [], settings=SMALL))
    assert "nvidia.com/gpu" in Node(road.folder, objects, is_new=False).fail("train")


def test_service_that_does_not_resolve_is_final(empty_node, monkeypatch):
    images = empty_node.folder / "data" / "download" / "images"
    images.mkdir(parents=True)
    few = PhantomsConfig(out=empty_node.folder / "few", num_patients=1, slices_per_patient=1)
    write_phantoms(few)
    (slice_path,) = (few.out / "images").iterdir()
    slice_path.rename(images / "a_z000.bmp")
    mapped = empty_node.mapped

    def elsewhere(word: str, mounts: list[str]) -> str:
        # It waits for a server that is not there yet; here not for a minute.
        word = mapped(word, mounts).replace("localhost:", "serving.invalid:")
        return word.replace("--timeout-s=60", "--timeout-s=3")

    monkeypatch.setattr(empty_node, "mapped", elsewhere)
    assert "serving.invalid:8500" in empty_node.fail("smoke")
