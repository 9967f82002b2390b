"""Podman, and the image of the Jobs on it; ``python -m tests.k8s.podman`` builds it.

With the standard library alone, so that it can be built before there is an environment.
"""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]
IMAGE = "lung-ct:0.1.0"

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


def ensure_base() -> str:
    """Pulls the base image; where no registry is reached, makes a stand-in of Debian's packages.

    Returns:
        Which of both it is.
    """
    if podman("image", "exists", BASE, check=False).returncode == 0:
        return "an image that was there"
    if podman("pull", "--quiet", BASE, check=False).returncode == 0:
        return "the image of the registry"
    packages = "--include=python3,python3-venv,ca-certificates"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["debootstrap", "--variant=minbase", packages, SUITE, folder],
            check=True,
            capture_output=True,
        )
        Path(folder).chmod(0o755)  # the root of the image, which every user passes
        Path(folder, "usr/bin/python").symlink_to("python3")
        with subprocess.Popen(["tar", "-C", folder, "-c", "."], stdout=subprocess.PIPE) as tar:
            podman("import", "-", f"localhost/{BASE}", stdin=tar.stdout)
    return "a stand-in of Debian's packages"


def build_image() -> None:
    """Builds the image of the Jobs as `make images` does."""
    words = ["build", "--file", "k8s/images/Dockerfile", "--tag", IMAGE]
    # The certificates of this machine, which may be behind a proxy, and no part of the image.
    words += ["--volume", f"{_CERTIFICATES.parent}:{_CERTIFICATES.parent}:ro"]
    words += ["--env", f"PIP_CERT={_CERTIFICATES}", "--network=host", "--isolation=chroot"]
    done = podman(*words, str(ROOT), check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


if __name__ == "__main__":
    ensure_base()
    build_image()
