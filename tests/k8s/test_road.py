"""`make k8s-run` and its kin, on a cluster that goes through scenarios."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from k8s import road
from k8s.road import STAGES, main
from tests.k8s.manifests import FETCHED, K8S, ROOT, build

JOBS = [stage for stage in STAGES if stage not in ("setup", "serve")]
QUICK = ["--poll-s", "0"]


class Cluster:
    """What the test says, and what was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.set()

    def set(self, **scenario: list[str]) -> None:
        usual = {stage: ["running", "complete"] for stage in JOBS} | {"serve": ["running", "ready"]}
        (self.folder / "scenario.json").write_text(json.dumps(usual | scenario))
        (self.folder / "manifests.yaml").write_text("kind: Job\n")

    def has(self, **jobs: int) -> None:
        (self.folder / "state.json").write_text(json.dumps({"jobs": jobs, "serving": None}))

    def calls(self, verb: str) -> list[str]:
        calls = (self.folder / "calls.txt").read_text().splitlines()
        return [call for call in calls if f" {verb} " in f" {call} "]

    def stages(self) -> list[str]:
        return [re.search(r"stage=(\w+)", call)[1] for call in self.calls("apply")]


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    fake = Path(__file__).parent / "fake_kubectl.py"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {fake} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/bin:/usr/bin")
    monkeypatch.setenv("FAKE_CLUSTER", str(tmp_path))
    monkeypatch.setattr(road.shutil, "which", lambda name: None)
    monkeypatch.setattr(road, "HOPELESS_S", 0)
    return Cluster(tmp_path)


def test_stages_run_in_order_and_each_log_is_shown(cluster, capfd):
    assert main(["run", "local", *QUICK]) == 0
    assert cluster.stages() == list(STAGES)
    said = capfd.readouterr().out
    for stage in STAGES:
        assert f"--- {stage}: done in" in said
    for job in JOBS:
        assert said.count(f"log of {job}-0 --container={job}\n") == 1


def test_only_the_stages_that_are_named_run(cluster):
    assert main(["run", "local", "--stages", "smoke", "train", *QUICK]) == 0
    assert cluster.stages() == ["setup", "train", "smoke"]


def test_failed_job_ends_the_road_with_its_reason_and_its_log(cluster, capfd):
    cluster.set(tfrecords=["running", "failed"])
    assert main(["run", "local", *QUICK]) == 1
    assert cluster.stages() == ["setup", "download", "tfrecords"]
    said = capfd.readouterr()
    assert "log of tfrecords-0 --container=tfrecords" in said.out
    assert said.err.startswith(
        "error: the Job tfrecords has failed: PodFailurePolicy: of a test; exit codes [1]; its "
        "log, above, ends with the reason. Mend it and run again"
    )


def test_job_that_is_tried_again_is_waited_for(cluster):
    cluster.set(train=["running", "retried", "running", "complete"])
    assert main(["run", "local", "--stages", "train", *QUICK]) == 0


def test_job_that_has_ended_is_replaced_and_one_that_runs_is_followed(cluster):
    cluster.has(train=0, export=0)
    cluster.set(train=["failed"], export=["running", "running", "complete"])
    assert main(["run", "local", "--stages", "export", *QUICK]) == 0
    assert cluster.stages() == ["setup"]
    assert main(["run", "local", "--stages", "train", *QUICK]) == 1
    (call,) = cluster.calls("delete")
    assert call == "--namespace lung-ct delete --cascade=foreground job train"
    assert cluster.stages() == ["setup", "setup", "train"]


def test_job_that_has_not_begun_is_replaced(cluster):
    cluster.has(train=0)
    cluster.set(train=["waiting: ErrImagePull", "running", "complete"])
    assert main(["run", "local", "--stages", "train", *QUICK]) == 0
    assert len(cluster.calls("delete")) == 1


def test_first_container_that_runs_for_long_is_no_reason_to_give_up(cluster, capfd):
    cluster.set(export=["first", "first", "running", "complete"])
    assert main(["run", "local", "--stages", "export", "--pending-s", "0", *QUICK]) == 0
    said = capfd.readouterr().out
    assert "waiting" not in said
    assert "log of export-0 --container=first" in said


def test_claim_that_is_being_made_is_waited_for(cluster, capfd):
    unbound = "unscheduled: pod has unbound immediate PersistentVolumeClaims. not found"
    cluster.set(train=[unbound, unbound, "running", "complete"])
    assert main(["run", "local", "--stages", "train", *QUICK]) == 0


def test_cluster_that_does_not_answer_for_a_moment_is_asked_again(monkeypatch):
    answers = [road.RoadError("no route"), '{"items": []}']

    def kubectl(*words):
        answer = answers.pop(0)
        if isinstance(answer, road.RoadError):
            raise answer
        return answer

    monkeypatch.setattr(road, "kubectl", kubectl)
    monkeypatch.setattr(road, "PATIENCE_S", 0.2)
    assert road.pods_of("a=b") == []
    monkeypatch.setattr(road, "PATIENCE_S", -1)
    answers = [road.RoadError("no route")]
    with pytest.raises(road.RoadError, match="no route"):
        road.pods_of("a=b")


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (
            'unscheduled: persistentvolumeclaim "data" not found',
            'train-0 does not start: Unschedulable: persistentvolumeclaim "data" not found',
        ),
        ("waiting: InvalidImageName", "train-0 does not start: InvalidImageName: …"),
        (
            "waiting: CreateContainerConfigError",
            "train-0 does not start: CreateContainerConfigError",
        ),
    ],
)
def test_pod_that_waits_in_vain_ends_the_road_at_once(cluster, capfd, state, reason):
    cluster.set(train=[state])
    assert main(["run", "local", "--stages", "train", *QUICK]) == 1
    said = capfd.readouterr().err
    assert said.startswith(f"error: {reason}")
    assert "`kubectl -n lung-ct describe pods` tells more" in said
    assert "FailedMount" in said


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (
            "unscheduled: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
            "train-0: Unsched",
        ),
        ("waiting: ImagePullBackOff", "train-0: ImagePullBackOff"),
        ("none", "job/train: its pods are not ready yet"),
    ],
)
def test_pod_that_waits_for_long_is_told_and_given_up(cluster, capfd, state, told):
    cluster.set(train=[state, state, "running", "complete"])
    assert main(["run", "local", "--stages", "train", *QUICK]) == 0
    assert f"waiting: {told}" in capfd.readouterr().out
    cluster.has()
    cluster.set(train=[state])
    assert main(["run", "local", "--stages", "train", "--pending-s", "0.1", *QUICK]) == 1
    assert "does not start" in capfd.readouterr().err


def test_suspended_job_is_waited_for_without_end(cluster, capfd):
    cluster.set(train=["suspended"] * 3 + ["running", "complete"])
    assert main(["run", "local", "--stages", "train", "--pending-s", "0", *QUICK]) == 0
    assert capfd.readouterr().out.count("waiting: it is suspended") == 1


def test_serving_that_does_not_become_ready_is_told(cluster, capfd):
    cluster.set(serve=["waiting: CrashLoopBackOff"])
    assert main(["run", "local", "--stages", "serve", "--pending-s", "0.1", *QUICK]) == 1
    assert "serving-0 does not start: CrashLoopBackOff" in capfd.readouterr().err


def test_down_keeps_claims_unless_told(cluster):
    assert main(["down", "local"]) == 0
    assert main(["down", "local", "--volumes"]) == 0
    first, second = cluster.calls("delete")
    assert "--selector lung-ct/stage!=setup" in first
    assert "--selector" not in second


def test_unknown_overlay_is_told(capsys):
    assert main(["render", "clod"]) == 1
    assert (
        "no overlay 'clod'; expected gpu, local, multi-node, or the path" in capsys.readouterr().err
    )


def test_missing_kubectl_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["render", "local"]) == 1
    assert "error: kubectl is not installed" in capsys.readouterr().err


def test_cluster_that_is_not_there_is_told(tmp_path, monkeypatch, capsys):
    program = tmp_path / "kubectl"
    program.write_text(
        "#!/bin/sh\necho 'dial tcp 127.0.0.1:8080: connection refused' >&2; exit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr(road, "render", lambda overlay: "")
    assert main(["run", "local", "--stages", "train"]) == 1
    said = capsys.readouterr().err
    assert "connection refused; does the cluster of `kubectl config current-context` run?" in said


def test_overlay_with_a_mistake_is_told(tmp_path, monkeypatch, capsys):
    (tmp_path / "kustomization.yaml").write_text("resources: [none.yaml]\n")
    if FETCHED.exists():
        monkeypatch.setenv("PATH", f"{FETCHED.parent}:/bin:/usr/bin")
    assert main(["render", str(tmp_path)]) == 1
    assert "none.yaml" in capsys.readouterr().err


def test_no_package_is_needed():
    command = [sys.executable, "-S", "-I", str(ROOT / "k8s" / "road.py"), "--help"]
    assert "render" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_overlays_of_the_readme_build(tmp_path):
    text = (K8S / "README.md").read_text(encoding="utf-8")
    first = re.search(r"<<END\n(.*?)\nEND\n", text, flags=re.DOTALL)[1]
    second = re.search(r"```yaml\n(.*?)```", text, flags=re.DOTALL)[1]
    shutil.copytree(K8S, tmp_path / "k8s")
    for content, expected in (
        (first, "DATA_URL: https://my.site/slices.zip"),
        (second, "image: registry.example/lung-ct-gpu:0.1.0"),
    ):
        mine = tmp_path / "mine"
        mine.mkdir(exist_ok=True)
        (mine / "kustomization.yaml").write_text(content, encoding="utf-8")
        assert expected in build(mine)


def test_make_renders_an_overlay():
    path = f"{FETCHED.parent}:/bin:/usr/bin"
    command = ["make", "--silent", "k8s-render", "OVERLAY=gpu"]
    text = subprocess.run(
        command, env={"PATH": path}, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "lung-ct-gpu:" in text
