"""The road on a cluster: renders an overlay, runs its stages in order, or takes it down.

    python k8s/road.py render local
    python k8s/road.py run local --stages train export
    python k8s/road.py down local

Needs ``kubectl`` and nothing else: standard library only. See k8s/README.md.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

OVERLAYS = Path(__file__).parent / "overlays"
NAMESPACE = "lung-ct"
STAGE_LABEL = "lung-ct/stage"
STAGES = ("setup", "download", "tfrecords", "train", "export", "serve", "smoke")
SERVING = "serving"

HOPELESS = ("InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "not found")
"""What a pod waits for in vain: in the reason or the message of its wait."""

LOGS_END_S = 30.0


class RoadError(Exception):
    """A stage has failed; the message says why and what to do."""


def main(arguments: list[str] | None = None) -> int:
    """Runs a verb; gives 0, or 1 with one line on stderr."""
    flags = read_flags(arguments)
    try:
        overlay = find_overlay(flags.overlay)
        if flags.verb == "render":
            print(render(overlay), end="")
        elif flags.verb == "run":
            run(render(overlay), flags)
        else:
            take_down(render(overlay), with_volumes=flags.volumes)
    except RoadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped watching; what runs on the cluster goes on", file=sys.stderr)
        return 130
    return 0


def read_flags(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, meaning in (
        ("render", "print all manifests"),
        ("run", "apply the stages in order; wait for each, show its log, stop at a failure"),
        ("down", "delete Jobs and serving; claims and their data stay"),
    ):
        parsed = verbs.add_parser(verb, help=meaning, description=meaning)
        parsed.add_argument("overlay", help="folder in k8s/overlays, or a path to one of your own")
        if verb == "run":
            parsed.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
            parsed.add_argument(
                "--pending-s", type=float, default=900, help="longest wait of a pod for its start"
            )
            parsed.add_argument("--poll-s", type=float, default=3, help="between two looks")
        if verb == "down":
            parsed.add_argument("--volumes", action="store_true", help="delete the claims too")
    return parser.parse_args(arguments)


def find_overlay(name: str) -> Path:
    """Gives the folder of an overlay.

    Raises:
        RoadError: if there is none.
    """
    for folder in (OVERLAYS / name, Path(name)):
        if (folder / "kustomization.yaml").is_file():
            return folder
    known = ", ".join(sorted(path.parent.name for path in OVERLAYS.glob("*/kustomization.yaml")))
    raise RoadError(
        f"there is no overlay {name!r}; expected {known}, or the path of a folder with a "
        "kustomization.yaml"
    )


def render(overlay: Path) -> str:
    """Builds the manifests of an overlay.

    Raises:
        RoadError: if there is no program for it, or it finds a mistake.
    """
    if shutil.which("kustomize"):
        return command("kustomize", "build", str(overlay))
    return command("kubectl", "kustomize", str(overlay))


def run(manifests: str, flags: argparse.Namespace) -> None:
    """Runs stages one after the other.

    Raises:
        RoadError: if one of them fails; those after it are not begun.
    """
    for stage in STAGES:
        if stage not in flags.stages:
            continue
        start_s = time.monotonic()
        print(f"--- {stage}", flush=True)
        if stage in ("setup", "serve"):
            apply(manifests, stage)
        if stage == "serve":
            wait_for_serving(flags)
        elif stage != "setup":
            run_job(manifests, stage, flags)
        print(f"--- {stage}: done in {time.monotonic() - start_s:.0f} s", flush=True)


def take_down(manifests: str, *, with_volumes: bool) -> None:
    """Deletes Jobs and serving, or all with the claims.

    Raises:
        RoadError: if the cluster refuses.
    """
    which = [] if with_volumes else ["--selector", f"{STAGE_LABEL}!=setup"]
    print(kubectl("delete", "--ignore-not-found", *which, "--filename=-", text=manifests), end="")


def apply(manifests: str, stage: str) -> None:
    """Applies what belongs to a stage."""
    which = ["--selector", f"{STAGE_LABEL}={stage}"]
    print(kubectl("apply", *which, "--filename=-", text=manifests), end="", flush=True)


def run_job(manifests: str, name: str, flags: argparse.Namespace) -> None:
    """Starts a Job, or finds it running, and waits for its end.

    A Job that has ended is replaced: what it wrote is there, and its program goes on from it.

    Raises:
        RoadError: if it fails, or its pods cannot start.
    """
    job = get("job", name)
    if job and ending_of(job):
        kubectl("delete", "job", name)
        job = None
    if job is None:
        apply(manifests, name)
    logs: dict[str, subprocess.Popen[bytes]] = {}
    starting = Starting(f"job/{name}", flags.pending_s)
    while True:
        job = get("job", name)
        if job is None:
            raise RoadError(f"the Job {name} was deleted while it ran")
        pods = pods_of(f"batch.kubernetes.io/job-name={name}")
        follow_logs(pods, logs)
        ending = ending_of(job)
        if ending:
            break
        if job["spec"].get("suspend"):
            starting.tell("it is suspended: it waits in a queue, or was paused")
        else:
            starting.look(pods)
        time.sleep(flags.poll_s)
    for process in logs.values():
        try:
            process.wait(LOGS_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
    if ending["type"] == "Failed":
        codes = sorted({code for pod in pods for code in exit_codes(pod)})
        raise RoadError(
            f"the Job {name} has failed: {ending.get('reason')}: {ending.get('message')}; exit "
            f"codes {codes or 'unknown'}; its log, above, ends with the reason. Mend it and run "
            "again: what is done is not done twice"
        )


def wait_for_serving(flags: argparse.Namespace) -> None:
    """Waits until every pod of serving is ready.

    Raises:
        RoadError: if they do not become ready in time.
    """
    starting = Starting(f"deployment/{SERVING}", flags.pending_s)
    while True:
        deployment = get("deployment", SERVING)
        if deployment is None:
            raise RoadError(f"the Deployment {SERVING} was deleted")
        status, wanted = deployment.get("status", {}), deployment["spec"].get("replicas", 1)
        is_seen = status.get("observedGeneration") == deployment["metadata"]["generation"]
        counts = [status.get(key, 0) for key in ("updatedReplicas", "readyReplicas", "replicas")]
        if is_seen and counts == [wanted] * 3:
            return
        starting.look(pods_of(f"app.kubernetes.io/component={SERVING}"), is_ready_needed=True)
        time.sleep(flags.poll_s)


class Starting:
    """Watches pods that do not start, and gives up when it is of no use."""

    def __init__(self, owner: str, limit_s: float) -> None:
        """Begins to count."""
        self._owner, self._limit_s = owner, limit_s
        self._since_s: float | None = None
        self._told = ""

    def look(self, pods: list[dict[str, Any]], *, is_ready_needed: bool = False) -> None:
        """Tells what pods wait for.

        Raises:
            RoadError: if it will never come, or has not come for too long.
        """
        waiting = {pod["metadata"]["name"]: why_waiting(pod) for pod in pods}
        waiting = {name: reason for name, reason in waiting.items() if reason}
        if is_ready_needed or not pods:
            waiting = waiting or {self._owner: "its pods are not ready yet"}
        if not waiting:
            self._since_s = None
            return
        name, reason = next(iter(waiting.items()))
        self.tell(f"{name}: {reason}")
        self._since_s = self._since_s or time.monotonic()
        is_late = time.monotonic() - self._since_s > self._limit_s
        if is_late or any(word in reason for word in HOPELESS):
            events = kubectl("get", "events", "--field-selector", "type=Warning")
            raise RoadError(
                f"{name} does not start: {reason}; `kubectl -n {NAMESPACE} describe pods` tells "
                f"more. Warnings of the cluster:\n{events}"
            )

    def tell(self, text: str) -> None:
        """Prints a line, once."""
        if text != self._told:
            print(f"waiting: {text}", flush=True)
            self._told = text


def follow_logs(pods: list[dict[str, Any]], logs: dict[str, "subprocess.Popen[bytes]"]) -> None:
    """Shows the log of each pod that has started, from its beginning, as it grows."""
    for pod in pods:
        name = pod["metadata"]["name"]
        if name not in logs and pod["status"].get("phase") in ("Running", "Succeeded", "Failed"):
            logs[name] = subprocess.Popen(
                ["kubectl", "--namespace", NAMESPACE, "logs", "--follow", "--all-containers", name]
            )


def why_waiting(pod: dict[str, Any]) -> str:
    """Tells what a pod waits for; empty if it does not."""
    status = pod["status"]
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind, []):
            wait = container["state"].get("waiting", {})
            if wait and wait.get("reason") not in ("PodInitializing", "ContainerCreating"):
                return f"{wait.get('reason')}: {wait.get('message', '')}"
    if status.get("phase") != "Pending":
        return ""
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason')}: {condition.get('message', '')}"
    return "its containers are made"


def exit_codes(pod: dict[str, Any]) -> list[int]:
    """Gives the exit codes of a pod's containers that failed."""
    statuses = [
        container["state"].get("terminated", {}).get("exitCode", 0)
        for kind in ("initContainerStatuses", "containerStatuses")
        for container in pod["status"].get(kind, [])
    ]
    return [code for code in statuses if code]


def ending_of(job: dict[str, Any]) -> dict[str, Any] | None:
    """Gives the condition that a Job has ended with."""
    for condition in job.get("status", {}).get("conditions", []):
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return dict(condition)
    return None


def get(kind: str, name: str) -> dict[str, Any] | None:
    """Gives an object of the cluster, or None."""
    text = kubectl("get", kind, name, "--ignore-not-found", "--output=json")
    return json.loads(text) if text.strip() else None


def pods_of(selector: str) -> list[dict[str, Any]]:
    """Gives pods by label."""
    items = json.loads(kubectl("get", "pods", "--selector", selector, "--output=json"))["items"]
    return list(items)


def kubectl(*words: str, text: str | None = None) -> str:
    """Calls ``kubectl`` in the namespace; gives what it printed."""
    return command("kubectl", "--namespace", NAMESPACE, *words, text=text)


def command(*words: str, text: str | None = None) -> str:
    """Calls a program; gives what it printed.

    Raises:
        RoadError: if it is not installed or fails.
    """
    try:
        ended = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise RoadError(
            f"{words[0]} is not installed; it comes with https://kubernetes.io/docs/tasks/tools"
        ) from error
    if ended.returncode:
        raise RoadError(f"`{' '.join(words)}` fails: {ended.stderr.strip()}")
    return ended.stdout


if __name__ == "__main__":
    sys.exit(main())
