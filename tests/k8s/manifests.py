"""Manifests as the cluster would see them: built by Kustomize, and read."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
FETCHED = ROOT / ".venv" / "kustomize" / "kustomize"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
ADD_ONS = sorted({path.name for path in (K8S / "components").iterdir()} - {"gpu", "multi-node"})
"""Components that an overlay of the user's may take besides."""
BUILDS = [*OVERLAYS, *(f"multi-node+{name}" for name in ADD_ONS)]

Manifest = dict[str, Any]


def kustomize() -> list[str]:
    """Gives the command that builds a folder."""
    if FETCHED.exists():
        return [str(FETCHED), "build"]
    if found := shutil.which("kustomize"):
        return [found, "build"]
    if found := shutil.which("kubectl"):
        return [found, "kustomize"]
    pytest.fail("neither kustomize nor kubectl is installed; `make test` fetches one on Linux")


def build(folder: Path) -> str:
    """Builds a folder; a mistake in it fails the test."""
    ended = subprocess.run([*kustomize(), str(folder)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "deprecated" not in ended.stderr, ended.stderr
    return ended.stdout


@cache
def rendered(name: str) -> str:
    """Builds an overlay, ``NAME``, or one with a component added, ``NAME+COMPONENT``."""
    overlay, _, component = name.partition("+")
    if not component:
        return build(K8S / "overlays" / overlay)
    return build_with(overlay, [component])


def build_with(
    overlay: str, components: list[str], *, settings: dict[str, str] | None = None
) -> str:
    """Builds an overlay as a user's own one on top of it would."""
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(K8S, Path(name) / "k8s")
        folder = Path(name) / "k8s" / "overlays" / "own"
        folder.mkdir()
        lines = ["resources:", f"  - ../{overlay}", "components:"]
        lines += [f"  - ../../components/{name}" for name in components]
        if settings:
            lines += ["configMapGenerator:", "  - name: settings", "    namespace: lung-ct"]
            lines += ["    behavior: merge", "    literals:"]
            lines += [f"      - {name}={value}" for name, value in settings.items()]
        (folder / "kustomization.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return build(folder)


@cache
def manifests(name: str) -> list[Manifest]:
    """Gives the objects of a build."""
    return read(rendered(name))


def read(text: str) -> list[Manifest]:
    """Reads YAML with several documents."""
    return [document for document in yaml.safe_load_all(text) if document]


def by_kind(objects: list[Manifest], *kinds: str) -> list[Manifest]:
    return [each for each in objects if each["kind"] in kinds]


def named(objects: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = [each for each in by_kind(objects, kind) if each["metadata"]["name"] == name]
    return found


def name_of(each: Manifest) -> str:
    return f"{each['kind']}/{each['metadata']['name']}"


def workloads(objects: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Gives each Job and Deployment with the template of its pods."""
    for each in by_kind(objects, "Job", "Deployment"):
        yield each, each["spec"]["template"]


def containers(pod_spec: Manifest) -> list[Manifest]:
    return [*pod_spec.get("initContainers", []), *pod_spec["containers"]]


def environment_of(container: Manifest, objects: list[Manifest]) -> dict[str, str]:
    """Gives the variables of a container, as a node would set them."""
    environment: dict[str, str] = {}
    for source in container.get("envFrom", []):
        settings = named(objects, "ConfigMap", source["configMapRef"]["name"])
        environment |= settings["data"]
    return environment | {each["name"]: each["value"] for each in container.get("env", [])}


def expanded(words: list[str], environment: dict[str, str]) -> list[str]:
    """Replaces ``$(NAME)`` in arguments, as a node does; a name that is not known stays."""
    return [
        re.sub(r"\$\((\w+)\)", lambda found: environment.get(found[1], found[0]), word)
        for word in words
    ]


def arguments_of(container: Manifest, objects: list[Manifest]) -> list[str]:
    """Gives the arguments with which a container is started."""
    return expanded(container.get("args", []), environment_of(container, objects))
