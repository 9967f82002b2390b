"""Stands in for ``kubectl``: a cluster whose Jobs go through the states of a scenario.

The folder of the environment variable FAKE_CLUSTER holds scenario.json, ``{"download": ["running",
"complete"], …}``: what each look at a Job finds, the last state for ever. All calls are written to
calls.txt, what was applied and deleted to state.json.
"""

import json
import os
import sys
from pathlib import Path

FOLDER = Path(os.environ["FAKE_CLUSTER"])
CODES = {"failed": 1, "retried": 75}


def main(words: list[str]) -> None:
    with (FOLDER / "calls.txt").open("a") as file:
        file.write(" ".join(words) + "\n")
    words = [word for word in words if word not in ("--namespace", "-n", "lung-ct")]
    if words[0] == "logs":  # of these, several run at once
        print(f"log of {words[2]} {words[3]}")
        return
    scenario = json.loads((FOLDER / "scenario.json").read_text())
    path = FOLDER / "state.json"
    state = json.loads(path.read_text()) if path.exists() else {"jobs": {}, "serving": None}
    flags = [word for word in words if word.startswith("--")]
    answer = answer_to(words, flags, scenario, state)
    path.write_text(json.dumps(state))
    print(answer, end="")


def answer_to(words: list[str], flags: list[str], scenario: dict, state: dict) -> str:
    verb = words[0]
    if verb == "kustomize":
        return (FOLDER / "manifests.yaml").read_text()
    if verb in ("apply", "delete") and "--filename=-" in flags:
        text = sys.stdin.read()
        assert text == (FOLDER / "manifests.yaml").read_text()
        if verb == "delete":
            return "deleted\n"
        stage = words[words.index("--selector") + 1].partition("=")[2]
        if stage == "serve":
            state["serving"] = 0
        elif stage != "setup":
            assert stage not in state["jobs"], "the Job is there: its template cannot be changed"
            state["jobs"][stage] = 0
        return f"{stage} applied\n"
    if verb == "delete":
        assert "--cascade=foreground" in flags
        del state["jobs"][words[-1]]
        return ""
    kind = words[1]
    if kind == "job":
        return job(words[2], scenario, state)
    if kind == "deployment":
        return deployment(scenario, state)
    if kind == "pods":
        return json.dumps({"items": pods(words[words.index("--selector") + 1], scenario, state)})
    assert kind == "events", words
    return "LAST SEEN  TYPE     REASON\n1s         Warning  FailedMount\n"


def state_of(name: str, scenario: dict, state: dict) -> str:
    states = scenario[name]
    return states[min(state["jobs"][name], len(states)) - 1]


def job(name: str, scenario: dict, state: dict) -> str:
    if name not in state["jobs"]:
        return ""
    state["jobs"][name] += 1
    now = state_of(name, scenario, state)
    ending = {"complete": "Complete", "failed": "Failed"}.get(now)
    conditions = []
    if ending:
        reason = {"Failed": "PodFailurePolicy"}.get(ending, "CompletionsReached")
        conditions = [{"type": ending, "status": "True", "reason": reason, "message": "of a test"}]
    spec, found = {"suspend": now == "suspended"}, {"conditions": conditions}
    return json.dumps({"metadata": {"uid": name}, "spec": spec, "status": found})


def deployment(scenario: dict, state: dict) -> str:
    if state["serving"] is None:
        return ""
    state["serving"] += 1
    states = scenario["serve"]
    ready = states[min(state["serving"], len(states)) - 1] == "ready"
    counts = {"updatedReplicas": 2, "readyReplicas": 2 if ready else 1, "replicas": 2}
    status = {"observedGeneration": 1, **counts}
    return json.dumps({"metadata": {"generation": 1}, "spec": {"replicas": 2}, "status": status})


def pods(selector: str, scenario: dict, state: dict) -> list[dict]:
    name = selector.partition("=")[2]
    if name == "serving":
        states = scenario["serve"]
        now = states[min(state["serving"], len(states)) - 1]
    else:
        now = state_of(name, scenario, state)
    if now in ("none", "suspended"):
        return []
    kind, _, reason = now.partition(": ")
    status: dict = {"phase": "Pending"}
    if kind == "unscheduled":
        scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        status["conditions"] = [scheduled | {"message": reason}]
    elif kind == "waiting":
        status |= in_state(name, {"waiting": {"reason": reason, "message": "…"}})
    elif kind == "first":
        waiting = {"waiting": {"reason": "PodInitializing"}}
        status |= in_state(name, waiting)
        status["initContainerStatuses"] = [{"name": "first", "state": {"running": {}}}]
    elif kind in ("failed", "retried"):
        status = {"phase": "Failed"} | in_state(name, {"terminated": {"exitCode": CODES[kind]}})
    elif kind == "complete":
        status = {"phase": "Succeeded"} | in_state(name, {"terminated": {"exitCode": 0}})
    elif kind in ("running", "ready"):
        status = {"phase": "Running"} | in_state(name, {"running": {}})
    return [{"metadata": {"name": f"{name}-0"}, "status": status}]


def in_state(name: str, state: dict) -> dict:
    return {"containerStatuses": [{"name": name, "state": state}]}


main(sys.argv[1:])
