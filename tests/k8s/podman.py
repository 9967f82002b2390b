"""The containers of a pod on Podman, under the pod's own rules: user, read-only root, limits."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import IO

from tests.k8s.manifests import ROOT, Manifest, arguments_of, environment_of

BASE = "python:3.11-slim"
"""What the Dockerfile stands on."""

SUITE = "bookworm"
"""Debian's release with that Python."""

_CONF = Path(__file__).with_name("containers.conf")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def podman(
    *words: str, check: bool = True, stdin: IO[bytes] | None = None
) -> subprocess.CompletedProcess[str]:
    """Calls Podman."""
    environment = {"CONTAINERS_CONF": str(_CONF)} | os.environ
    command = ["podman", *words]
    return subprocess.run(
        command, env=environment, stdin=stdin, capture_output=True, text=True, check=check
    )


def ensure_base(folder: Path) -> str:
    """Pulls the base image; where no registry is reached, makes a stand-in of Debian's packages.

    Returns:
        Which of both it is.
    """
    if podman("image", "exists", BASE, check=False).returncode == 0:
        return "an image that was there"
    if podman("pull", "--quiet", BASE, check=False).returncode == 0:
        return "the image of the registry"
    packages = "--include=python3,python3-venv,ca-certificates"
    subprocess.run(
        ["debootstrap", "--variant=minbase", packages, SUITE, str(folder)],
        check=True,
        capture_output=True,
    )
    (folder / "usr/bin/python").symlink_to("python3")
    with subprocess.Popen(["tar", "-C", str(folder), "-c", "."], stdout=subprocess.PIPE) as tar:
        podman("import", "-", f"localhost/{BASE}", stdin=tar.stdout)
    shutil.rmtree(folder)
    return "a stand-in of Debian's packages"


def build_image(tag: str) -> None:
    """Builds the image of the Jobs as `make images` does."""
    words = ["build", "--file", "k8s/images/Dockerfile", "--tag", tag]
    # The certificates of this machine, which may be behind a proxy, and no part of the image.
    words += ["--volume", f"{_CERTIFICATES.parent}:{_CERTIFICATES.parent}:ro"]
    words += ["--env", f"PIP_CERT={_CERTIFICATES}", "--network=host", "--isolation=chroot"]
    done = podman(*words, str(ROOT), check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


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
