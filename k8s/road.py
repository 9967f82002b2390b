"""The road on a cluster: renders an overlay, runs its stages in order, or takes it down.

    python k8s/road.py render local
    python k8s/road.py run local --stages train export
    python k8s/road.py down local

Needs ``kubectl`` and nothing else: standard library only. See k8s/README.md.
"""

import argparse
import json
import re
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

HOPELESS = re.compile(
    r"InvalidImageName|ErrImageNeverPull|CreateContainerConfigError"
    r'|persistentvolumeclaim "[^"]*" not found'
)
"""What a pod waits for in vain, in the reason or the message of its wait."""

HOPELESS_S = 30.0
"""How long that has to be so: a claim that was just made is not seen everywhere at once."""

PATIENCE_S = 60.0
"""How long a cluster may give no answer while it is watched."""

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
    """Runs stages one after the other; `setup` always, as settings may be others.

    Raises:
        RoadError: if one of them fails; those after it are not begun.
    """
    for stage in STAGES:
        if stage not in ("setup", *flags.stages):
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
    # In the foreground: what comes after must not meet pods that are about to end.
    words = ["delete", "--cascade=foreground", "--ignore-not-found", *which, "--filename=-"]
    print(kubectl(*words, text=manifests), end="")


def apply(manifests: str, stage: str) -> None:
    """Applies what belongs to a stage."""
    which = ["--selector", f"{STAGE_LABEL}={stage}"]
    print(kubectl("apply", *which, "--filename=-", text=manifests), end="", flush=True)


def run_job(manifests: str, name: str, flags: argparse.Namespace) -> None:
    """Starts a Job, or finds it running, and waits for its end.

    A Job that has ended is replaced: what it wrote is there, and its program goes on from it. So is
    one that has not begun, which may wait for what is mended in these manifests.

    Raises:
        RoadError: if it fails, or its pods cannot start.
    """
    job = get("job", name)
    if job and (ending_of(job) or not is_under_way(job)):
        kubectl("delete", "--cascade=foreground", "job", name)
        job = None
    if job is None:
        apply(manifests, name)
    logs = Logs()
    starting = Starting(f"job/{name}", flags.pending_s)
    try:
        while True:
            job = get("job", name)
            if job is None:
                raise RoadError(f"the Job {name} was deleted while it ran")
            pods = pods_of_job(job)
            logs.follow(pods)
            ending = ending_of(job)
            if ending:
                break
            if job["spec"].get("suspend"):
                starting.tell("it is suspended: it waits in a queue, or was paused")
            else:
                starting.look(pods)
            time.sleep(flags.poll_s)
    finally:
        logs.end()
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
        waited_s = time.monotonic() - self._since_s
        is_hopeless = HOPELESS.search(reason) and waited_s >= HOPELESS_S
        if is_hopeless or waited_s > self._limit_s:
            events = kubectl("get", "events", "--field-selector", "type=Warning")
            hint = (
                "" if is_hopeless else " It goes on waiting on the cluster; --pending-s is longer."
            )
            raise RoadError(
                f"{name} does not start: {reason}; `kubectl -n {NAMESPACE} describe pods` tells "
                f"more.{hint} Warnings of the cluster:\n{events}"
            )

    def tell(self, text: str) -> None:
        """Prints a line, once."""
        if text != self._told:
            print(f"waiting: {text}", flush=True)
            self._told = text


class Logs:
    """The logs of a Job's containers on the terminal, as they grow."""

    def __init__(self) -> None:
        """Shows nothing yet."""
        self._shown: dict[tuple[str, str], subprocess.Popen[bytes]] = {}

    def follow(self, pods: list[dict[str, Any]]) -> None:
        """Shows each container that has started, from its beginning."""
        for pod in pods:
            for container in statuses_of(pod):
                key = pod["metadata"]["name"], container["name"]
                has_started = container["state"].keys() & {"running", "terminated"}
                if has_started and key not in self._shown:
                    words = ["logs", "--follow", key[0], f"--container={key[1]}"]
                    self._shown[key] = subprocess.Popen(["kubectl", "-n", NAMESPACE, *words])

    def end(self) -> None:
        """Waits for the last lines, for a while."""
        for process in self._shown.values():
            try:
                process.wait(LOGS_END_S)
            except subprocess.TimeoutExpired:
                process.kill()


def statuses_of(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """Gives the states of a pod's containers, those that run first before the others."""
    status = pod["status"]
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def why_waiting(pod: dict[str, Any]) -> str:
    """Tells what a pod waits for; empty if it does not."""
    status = pod["status"]
    for container in statuses_of(pod):
        if "running" in container["state"]:
            return ""
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
    codes = [each["state"].get("terminated", {}).get("exitCode", 0) for each in statuses_of(pod)]
    return [code for code in codes if code]


def is_under_way(job: dict[str, Any]) -> bool:
    """Tells whether a Job has begun, or waits in a queue; else nothing is lost with it."""
    if job["spec"].get("suspend"):
        return True
    statuses = [each["state"] for pod in pods_of_job(job) for each in statuses_of(pod)]
    return any(state.keys() & {"running", "terminated"} for state in statuses)


def ending_of(job: dict[str, Any]) -> dict[str, Any] | None:
    """Gives the condition that a Job has ended with."""
    for condition in job.get("status", {}).get("conditions", []):
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return dict(condition)
    return None


def get(kind: str, name: str) -> dict[str, Any] | None:
    """Gives an object of the cluster, or None."""
    text = patiently("get", kind, name, "--ignore-not-found", "--output=json")
    return json.loads(text) if text.strip() else None


def pods_of_job(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Gives the pods of this Job, and not of one that had the name before."""
    return pods_of(f"batch.kubernetes.io/controller-uid={job['metadata']['uid']}")


def pods_of(selector: str) -> list[dict[str, Any]]:
    """Gives pods by label."""
    text = patiently("get", "pods", "--selector", selector, "--output=json")
    return list(json.loads(text)["items"])


def patiently(*words: str) -> str:
    """Calls ``kubectl``, again where a cluster does not answer for a moment."""
    end_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return kubectl(*words)
        except RoadError:
            if time.monotonic() > end_s:
                raise
            time.sleep(PATIENCE_S / 20)


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
        said = ended.stderr.strip()
        hint = ""
        if "connection refused" in said or "no such host" in said:
            hint = "; does the cluster of `kubectl config current-context` run?"
        raise RoadError(f"`{' '.join(words)}` fails: {said}{hint}")
    return ended.stdout


if __name__ == "__main__":
    sys.exit(main())
