"""Every build against the schemas of several versions of Kubernetes: no unknown kind or field."""

import kubernetes_validate
import pytest

from tests.k8s.manifests import BUILDS, manifests, name_of

VERSIONS = ["1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"]
"""From the first in which failure policies of Jobs are no trial any more."""
CUSTOM = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
}
"""Kinds of the Prometheus operator; `test_consistency` looks at what they name."""


def check(manifest: dict, version: str) -> None:
    if (manifest["apiVersion"], manifest["kind"]) in CUSTOM:
        return
    kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize(
    ("build", "version"),
    [
        # The oldest and the newest quickly; those between in `make test-k8s`.
        pytest.param(
            *(build, version),
            marks=[] if version in (VERSIONS[0], VERSIONS[-1]) else pytest.mark.cluster,
        )
        for build in BUILDS
        for version in VERSIONS
    ],
)
def test_build_is_as_the_schemas_say(build, version):
    for manifest in manifests(build):
        try:
            check(manifest, version)
        except kubernetes_validate.ValidationError as error:
            pytest.fail(f"{name_of(manifest)}: {error.message}")


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "Jobs"},
        {"apiVersion": "batch/v2"},
        {"spec": {"templates": {}}},
        {"spec": {"backoffLimit": "many", "template": {}}},
    ],
)
def test_mistakes_are_found(change):
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}}
    with pytest.raises(
        (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError)
    ):
        check(job | change, VERSIONS[0])
