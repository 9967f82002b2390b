"""The real image, and the pods of the Jobs as containers under their own rules.

Needs root, Podman, and, where no registry is reached, debootstrap (Debian: ``apt install podman
runc netavark aardvark-dns debootstrap``).
"""

import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from preprocessing import pipeline
from preprocessing.config import TfrecordsConfig
from preprocessing.phantoms.drawing import PhantomsConfig, write_phantoms
from tests.k8s.manifests import (
    Manifest,
    arguments_of,
    build_with,
    environment_of,
    named,
    read,
)
from tests.k8s.podman import BASE, IMAGE, build_image, ensure_base, podman
from trainer.interruption import EXIT_RETRY

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        not shutil.which("podman") or os.geteuid() != 0, reason="Podman or root is missing"
    ),
]

NETWORK = "lung-ct-test"
SMALL = {"RECIPE": "reference", "IMAGE_SIZE": "64", "FILTERS": "8", "EPOCHS": "6"}
LARGEST_IMAGE_GB = 3.0


@pytest.fixture(scope="module", autouse=True)
def image() -> None:
    start_s = time.monotonic()
    try:
        what = ensure_base()
        podman("run", "--rm", "--network=none", BASE, "true")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"Podman runs no container here: {error} {error.stderr}")
    base_s = time.monotonic() - start_s
    build_image()
    build_s = time.monotonic() - start_s - base_s
    print(f"base: {what}, {base_s:.0f} s; image built in {build_s:.0f} s")  # noqa: T201


def run_words(
    pod: Manifest,
    container: Manifest,
    objects: list[Manifest],
    *,
    claims: dict[str, Path],
    environment: dict[str, str] | None = None,
) -> list[str]:
    """Gives the arguments of ``podman run`` for a container of a pod.

    Args:
        pod: its specification, as rendered.
        container: one of it.
        objects: of the build, for its settings.
        claims: folders that stand for persistent volumes, by the name of the claim.
        environment: variables that the Job controller sets.
    """
    user, rules = pod["securityContext"], container["securityContext"]
    assert rules["readOnlyRootFilesystem"]
    assert not rules["allowPrivilegeEscalation"]
    words = ["--read-only", "--read-only-tmpfs=false", "--security-opt", "no-new-privileges"]
    words += ["--user", f"{user['runAsUser']}:{user['runAsGroup']}"]
    words += [word for each in rules["capabilities"]["drop"] for word in ("--cap-drop", each)]
    words += ["--memory", container["resources"]["limits"]["memory"].lower().rstrip("i")]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for mount in container["volumeMounts"]:
        volume, path = volumes[mount["name"]], mount["mountPath"]
        if "emptyDir" in volume and path == "/dev/shm":
            words += ["--shm-size", volume["emptyDir"]["sizeLimit"].lower().rstrip("i")]
        elif "emptyDir" in volume:
            words += ["--mount", f"type=tmpfs,tmpfs-mode=1777,destination={path}"]
        else:
            folder = claims[volume["persistentVolumeClaim"]["claimName"]]
            mode = "ro" if mount.get("readOnly") else "rw"
            words += ["--volume", f"{folder}:{path}:{mode}"]
    for name, value in (environment_of(container, objects) | (environment or {})).items():
        words += ["--env", f"{name}={value}"]
    return [*words, f"localhost/{container['image']}", *arguments_of(container, objects)]


class Cluster:
    """Folders for the claims, which the pods' user may write to, as `fsGroup` has it."""

    def __init__(self, folder: Path, text: str) -> None:
        self.objects = read(text)
        self.claims = {name: folder / name for name in ("data", "runs", "models")}
        for path in self.claims.values():
            path.mkdir()
        self.pod = named(self.objects, "Job", "train")["spec"]["template"]["spec"]

    def hand_over(self) -> None:
        """Gives all files to the pods' user."""
        user = self.pod["securityContext"]["runAsUser"]
        for path in self.claims.values():
            for each in (path, *path.rglob("*")):
                os.chown(each, user, user)

    def words(self, job: str, **environment: str) -> list[str]:
        pod = named(self.objects, "Job", job)["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        return run_words(pod, container, self.objects, claims=self.claims, environment=environment)

    def run(self, job: str) -> tuple[int, str]:
        done = podman("run", "--rm", "--network=none", *self.words(job), check=False)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def slices(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("phantoms") / "download"
    write_phantoms(PhantomsConfig(out=out, num_patients=4, slices_per_patient=8, image_size=64))
    return out


@pytest.fixture
def cluster(tmp_path, slices) -> Cluster:
    """One node, with slices where the download puts them."""
    # pytest's folders are for root only; the pods' user has to pass through them.
    for parent in (tmp_path, *list(tmp_path.parents)[:2]):
        parent.chmod(0o755)
    cluster = Cluster(tmp_path, build_with("local", [], settings=SMALL))
    shutil.copytree(slices, cluster.claims["data"] / "download")
    cluster.hand_over()
    return cluster


def test_image_is_lean_and_runs_as_nobody():
    shown = podman("image", "inspect", IMAGE, "--format", "{{.Size}} {{.User}}").stdout.split()
    assert int(shown[0]) < LARGEST_IMAGE_GB * 1e9
    assert shown[1] == "10001:10001"
    print(f"image: {int(shown[0]) / 1e9:.2f} GB")  # noqa: T201
    look = "import importlib.util, os; print(importlib.util.find_spec('pip'))"
    look += "; print(os.path.exists('/root/.cache'), os.path.exists('/src'))"
    said = podman("run", "--rm", "--user=0", "--entrypoint=python", IMAGE, "-c", look).stdout
    assert said.split() == ["None", "False", "False"]


def test_jobs_run_under_their_own_rules(cluster):
    """Read-only root, no capabilities, a user without rights, a limit of memory, no network."""
    for job in ("tfrecords", "train"):
        code, said = cluster.run(job)
        assert code == 0, said
    assert (cluster.claims["data"] / "dataset" / "dataset.json").exists()
    assert (cluster.claims["runs"] / "lung_unet" / "MODEL_CARD.md").exists()
    pod = named(cluster.objects, "Job", "export")["spec"]["template"]["spec"]
    for container in (*pod["initContainers"], *pod["containers"]):
        words = run_words(pod, container, cluster.objects, claims=cluster.claims)
        done = podman("run", "--rm", "--network=none", *words, check=False)
        assert done.returncode == 0, done.stderr
    assert (cluster.claims["models"] / "lung_unet" / "1" / "saved_model.pb").exists()


def test_volume_that_cannot_be_written_is_final(cluster):
    os.chown(cluster.claims["data"], 0, 0)
    code, said = cluster.run("tfrecords")
    assert code == 1, said
    assert "/data" in said.strip().splitlines()[-1]
    assert "Traceback" not in said


def test_sigterm_saves_the_state_and_ends_with_the_code_for_a_retry(cluster):
    assert cluster.run("tfrecords")[0] == 0
    podman("run", "--detach", "--name=lung-ct-stopped", "--network=none", *cluster.words("train"))
    try:
        wait_for_checkpoint(cluster, "lung-ct-stopped")
        podman("stop", "--time=120", "lung-ct-stopped")
        assert exit_code("lung-ct-stopped") == EXIT_RETRY, log_of("lung-ct-stopped")
    finally:
        podman("rm", "--force", "lung-ct-stopped")
    code, said = cluster.run("train")
    assert code == 0, said
    assert "going on in epoch" in said


# --- Two pods of an Indexed Job. ------------------------------------------------------------------


class IndexedJob:
    """The pods of training on several nodes, on a network with names, as their Job keeps them."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.name = cluster, name
        spec = named(cluster.objects, "Job", "train")["spec"]
        self.count, self.subdomain = spec["completions"], cluster.pod["subdomain"]
        self.final = spec["podFailurePolicy"]["rules"][-1]["onExitCodes"]["values"]

    def pod(self, index: int) -> str:
        return f"{self.name}-{index}"

    def start(self, index: int) -> None:
        host = f"train-{index}"
        podman(
            *("run", "--detach", "--name", self.pod(index), "--hostname", host),
            *("--network", NETWORK, "--network-alias", f"{host}.{self.subdomain}"),
            *self.cluster.words("train", JOB_COMPLETION_INDEX=str(index)),
        )

    def start_again(self) -> None:
        """Replaces pods that have ended, if the policy lets them be replaced."""
        assert not set(self.exit_codes()) & set(self.final)
        for index in range(self.count):
            podman("rm", self.pod(index))
            self.start(index)

    def exit_codes(self) -> list[int]:
        """Waits for the end of all pods."""
        return [int(podman("wait", self.pod(index)).stdout) for index in range(self.count)]

    def __enter__(self) -> "IndexedJob":
        for index in range(self.count):
            self.start(index)
        return self

    def __exit__(self, *error: object) -> None:
        for index in range(self.count):
            podman("rm", "--force", "--ignore", self.pod(index))


@pytest.fixture
def network():
    podman("network", "rm", "--force", NETWORK, check=False)
    podman("network", "create", NETWORK)
    yield
    podman("network", "rm", "--force", NETWORK)


def test_worker_that_is_killed_costs_no_result(tmp_path, slices, network):
    """Its peer ends with the code for a retry; both start again, and the model is the same."""
    results = []
    for kills in (0, 1):
        folder = tmp_path / f"kills-{kills}"
        folder.mkdir()
        for parent in (folder, *list(folder.parents)[:3]):
            parent.chmod(0o755)
        cluster = Cluster(folder, on_two_nodes())
        config = TfrecordsConfig(
            images=slices / "images", masks=slices / "masks", out=cluster.claims["data"] / "dataset"
        )
        pipeline.run(config)
        cluster.hand_over()
        with IndexedJob(cluster, f"lung-ct-{kills}") as job:
            if kills:
                wait_for_checkpoint(cluster, job.pod(0))
                podman("kill", "--signal=KILL", job.pod(1))
                killed_s = time.monotonic()
                assert int(podman("wait", job.pod(0)).stdout) == EXIT_RETRY, log_of(job.pod(0))
                ended_s = time.monotonic()
                job.start_again()
                while "going on in epoch" not in log_of(job.pod(0)):
                    assert time.monotonic() < ended_s + 300, log_of(job.pod(0))
                    time.sleep(0.1)
                end, again = ended_s - killed_s, time.monotonic() - ended_s
                print(f"a killed worker: its peer ended {end:.1f} s after, ")  # noqa: T201
                print(f"and {again:.1f} s later both trained again")  # noqa: T201
            assert job.exit_codes() == [0, 0], log_of(job.pod(0)) + log_of(job.pod(1))
        results.append(cluster.claims["runs"] / "lung_unet")
    first, second = (np.load(newest(run) / "weights.npz") for run in results)
    for name in first.files:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def on_two_nodes() -> str:
    """Training on several pods, on CPUs."""
    return build_with("local", ["multi-node"], settings=SMALL | {"CHECKPOINT_MINUTES": "0.05"})


def newest(run: Path) -> Path:
    return max((run / "checkpoints" / "latest").iterdir())


def wait_for_checkpoint(cluster: Cluster, container: str) -> None:
    latest = cluster.claims["runs"] / "lung_unet" / "checkpoints" / "latest"
    end_s = time.monotonic() + 300
    while not list(latest.glob("epoch-*")):
        running = podman("inspect", container, "--format", "{{.State.Running}}").stdout.strip()
        assert running == "true", log_of(container)
        assert time.monotonic() < end_s, log_of(container)
        time.sleep(0.2)


def exit_code(container: str) -> int:
    return int(podman("inspect", container, "--format", "{{.State.ExitCode}}").stdout)


def log_of(container: str) -> str:
    done = podman("logs", container, check=False)
    return done.stdout + done.stderr
