"""Rules of others: hadolint for the Dockerfiles, checkov for the manifests."""

import json
import subprocess
import sys

import pytest

from tests.k8s.manifests import BUILDS, ROOT, rendered

CHECKOV = "checkov==3.3.30"
"""In an environment of its own: it pins packages that the project has in other versions."""

REVIEWED = {
    "CKV_K8S_11": "limits of CPU throttle a pod on an idle node; requests share it fairly",
    "CKV_K8S_15": "each image has a version, and one that was built here cannot be pulled",
    "CKV_K8S_43": "digests are those of the user's registry; `images:` of an overlay sets them",
}
"""Checks that are not followed, and why."""


@pytest.mark.parametrize("path", ["k8s/images/Dockerfile", "serving/container/Dockerfile"])
def test_dockerfile_is_clean(path):
    command = [f"{sys.prefix}/bin/hadolint", "--failure-threshold", "style", path]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


@pytest.mark.cluster
def test_manifests_follow_the_policies(tmp_path):
    for build in BUILDS:
        (tmp_path / f"{build}.yaml").write_text(rendered(build), encoding="utf-8")
    command = [sys.executable, "-m", "uv", "tool", "run", "--from", CHECKOV, "checkov"]
    command += ["--directory", str(tmp_path), "--framework", "kubernetes", "--output", "json"]
    command += ["--skip-check", ",".join(REVIEWED), "--quiet", "--compact"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(ended.stdout)
    failed = {(each["check_id"], each["resource"]) for each in report["results"]["failed_checks"]}
    assert not failed
    assert report["summary"]["passed"] > 100 * len(BUILDS)
    assert report["summary"]["parsing_errors"] == 0
    print(f"checkov: {report['summary']['passed']} passed, {len(failed)} failed")  # noqa: T201
