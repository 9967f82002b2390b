"""What schemas do not see: names of nothing, labels that match nothing, numbers that differ."""

import re
from pathlib import Path

import pytest
from google.protobuf import text_format

from k8s.road import NAMESPACE, SERVING, STAGE_LABEL, STAGES
from serving.config import ServeConfig
from serving.container.command import TAG
from serving.embedded import metrics
from serving.protos import model_server_config_pb2
from tests.k8s.manifests import (
    BUILDS,
    K8S,
    ROOT,
    Manifest,
    arguments_of,
    by_kind,
    containers,
    manifests,
    name_of,
    named,
    workloads,
)
from trainer import distribution
from trainer.interruption import EXIT_RETRY
from trainer.signature import DEFAULT_MODEL_NAME

GRPC_PORT, REST_PORT = ServeConfig.port, 8501
OWN_IMAGES = {"lung-ct", "lung-ct-gpu"}
CHOICES = {
    "restartPolicy": {"Never", "Always", "OnFailure"},
    "protocol": {"TCP", "UDP"},
    "policyTypes": {"Ingress", "Egress"},
    "accessModes": {"ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany"},
    "action": {"FailJob", "Ignore", "Count"},
    "operator": {"In", "NotIn", "Exists", "Equal"},
    "completionMode": {"Indexed", "NonIndexed"},
    "podReplacementPolicy": {"Failed", "TerminatingOrFailed"},
    "imagePullPolicy": {"IfNotPresent", "Always", "Never"},
    "effect": {"NoSchedule", "NoExecute", "PreferNoSchedule"},
    "whenUnsatisfiable": {"ScheduleAnyway", "DoNotSchedule"},
    "medium": {"Memory", ""},
    "clusterIP": {"None"},
    "fsGroupChangePolicy": {"OnRootMismatch", "Always"},
    "appProtocol": {"grpc", "http"},
}
"""Fields with few values, which the schemas take as any text."""

UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}

every_build = pytest.mark.parametrize("build", BUILDS)


def quantity(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(m|k|M|G|Ki|Mi|Gi|)", str(text))
    assert found, f"{text!r} is no quantity"
    return float(found[1]) * UNITS[found[2]]


def is_chosen(selector: Manifest, labels: Manifest) -> bool:
    """Tells whether a selector by labels takes a pod; an empty one takes all."""
    wanted = selector.get("matchLabels", selector)
    assert "matchExpressions" not in selector, "not known to this test"
    return wanted.items() <= labels.items()


def pod_labels(objects: list[Manifest]) -> list[Manifest]:
    return [template["metadata"]["labels"] for _, template in workloads(objects)]


def walk(value, path=()):
    """Gives all values of a manifest with the keys that lead to them."""
    yield path, value
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, each in items:
        yield from walk(each, (*path, key))


# --- All objects. ---------------------------------------------------------------------------------


@every_build
def test_each_object_has_a_stage_and_the_namespace(build):
    for each in manifests(build):
        assert each["metadata"]["labels"][STAGE_LABEL] in STAGES, name_of(each)
        if each["kind"] != "Namespace":
            assert each["metadata"]["namespace"] == NAMESPACE, name_of(each)


@every_build
def test_each_stage_has_its_objects(build):
    objects = manifests(build)
    jobs = {each["metadata"]["name"]: each for each in by_kind(objects, "Job")}
    assert list(jobs) == sorted(set(STAGES) - {"setup", "serve"})
    for name, job in jobs.items():
        assert job["metadata"]["labels"][STAGE_LABEL] == name
    assert named(objects, "Deployment", SERVING)["metadata"]["labels"][STAGE_LABEL] == "serve"


@every_build
def test_no_two_objects_have_one_name(build):
    names = [name_of(each) for each in manifests(build)]
    assert sorted(set(names)) == sorted(names)


@every_build
def test_fields_with_few_values_have_one_of_them(build):
    for each in manifests(build):
        for path, value in walk(each):
            if path and path[-1] in CHOICES:
                values = value if isinstance(value, list) else [value]
                assert set(values) <= CHOICES[path[-1]], (name_of(each), path, value)


@every_build
def test_quantities_are_such_and_requests_are_not_above_limits(build):
    for each, template in workloads(manifests(build)):
        for container in containers(template["spec"]):
            resources = container["resources"]
            where = name_of(each), container["name"]
            assert {"cpu", "memory"} <= resources["requests"].keys(), where
            assert "memory" in resources["limits"], where
            for name, limit in resources["limits"].items():
                assert quantity(limit) >= quantity(resources["requests"].get(name, 0)), where
    for claim in by_kind(manifests(build), "PersistentVolumeClaim"):
        assert quantity(claim["spec"]["resources"]["requests"]["storage"]) > 0


@every_build
def test_sizes_of_scratch_volumes_are_quantities(build):
    for _, template in workloads(manifests(build)):
        for volume in template["spec"]["volumes"]:
            size = volume.get("emptyDir", {}).get("sizeLimit")
            assert size is None or quantity(size) > 0


# --- References. ----------------------------------------------------------------------------------


@every_build
def test_what_a_pod_names_exists(build):
    objects = manifests(build)
    for each, template in workloads(objects):
        spec = template["spec"]
        for volume in spec["volumes"]:
            if claim := volume.get("persistentVolumeClaim"):
                named(objects, "PersistentVolumeClaim", claim["claimName"])
            if config := volume.get("configMap"):
                named(objects, "ConfigMap", config["name"])
        for container in containers(spec):
            for source in container.get("envFrom", []):
                named(objects, "ConfigMap", source["configMapRef"]["name"])
        if account := spec.get("serviceAccountName"):
            named(objects, "ServiceAccount", account)
        mounted = {m["name"] for c in containers(spec) for m in c["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}, name_of(each)


@every_build
def test_selectors_choose_a_pod(build):
    objects = manifests(build)
    for each in by_kind(objects, "Service"):
        assert any(is_chosen(each["spec"]["selector"], labels) for labels in pod_labels(objects))
    for each in by_kind(objects, "PodDisruptionBudget"):
        assert any(is_chosen(each["spec"]["selector"], labels) for labels in pod_labels(objects))
    for each in by_kind(objects, "Deployment"):
        assert is_chosen(each["spec"]["selector"], each["spec"]["template"]["metadata"]["labels"])
    for each in by_kind(objects, "NetworkPolicy"):
        inside = [each["spec"]["podSelector"]]
        for rule in each["spec"].get("ingress", []) + each["spec"].get("egress", []):
            peers = rule.get("from", []) + rule.get("to", [])
            inside += [p["podSelector"] for p in peers if "podSelector" in p and len(p) == 1]
        for selector in inside:
            assert any(is_chosen(selector, labels) for labels in pod_labels(objects)), each


@every_build
def test_ports_of_services_are_ports_of_their_pods(build):
    objects = manifests(build)
    for service in by_kind(objects, "Service"):
        for _, template in workloads(objects):
            if not is_chosen(service["spec"]["selector"], template["metadata"]["labels"]):
                continue
            open_ports = {
                port["name"]: port["containerPort"]
                for container in containers(template["spec"])
                for port in container.get("ports", [])
            }
            for port in service["spec"]["ports"]:
                assert open_ports[port["targetPort"]] == port["port"], name_of(service)


@every_build
def test_autoscaler_names_the_deployment(build):
    objects = manifests(build)
    (scaler,) = by_kind(objects, "HorizontalPodAutoscaler")
    target = scaler["spec"]["scaleTargetRef"]
    assert "replicas" not in named(objects, target["kind"], target["name"])["spec"]
    assert 1 <= scaler["spec"]["minReplicas"] <= scaler["spec"]["maxReplicas"]


@every_build
def test_all_settings_are_used_and_none_is_missing(build):
    objects = manifests(build)
    used = set()
    for _, template in workloads(objects):
        for container in containers(template["spec"]):
            used |= set(re.findall(r"\$\((\w+)\)", " ".join(container.get("args", []))))
            assert "$(" not in " ".join(arguments_of(container, objects)), container["name"]
    (settings,) = [
        each
        for each in by_kind(objects, "ConfigMap")
        if each["metadata"]["name"].startswith("settings-")
    ]
    assert set(settings["data"]) == used | {distribution.WORKER_WAIT}  # which is read as it is


# --- Jobs. ----------------------------------------------------------------------------------------


@every_build
def test_jobs_end_for_good_where_another_try_would_end_the_same_way(build):
    for job in by_kind(manifests(build), "Job"):
        spec, pod = job["spec"], job["spec"]["template"]["spec"]
        assert pod["restartPolicy"] == "Never"  # or the failure policy would not be asked
        assert spec["podReplacementPolicy"] == "Failed"
        assert spec["ttlSecondsAfterFinished"] > 3600
        ignored, *told_to_stop, final = spec["podFailurePolicy"]["rules"]
        assert ignored["action"] == "Ignore"
        assert ignored["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
        assert final["action"] == "FailJob"
        for rule in told_to_stop:
            assert rule["action"] == "Ignore"
            assert rule["onExitCodes"]["values"] == [EXIT_RETRY]
        assert bool(told_to_stop) == (job["metadata"]["name"] == "train")
        codes = final["onExitCodes"]
        assert codes["operator"] == "In"
        assert codes["values"] == [1, 2]
        assert EXIT_RETRY not in codes["values"]
        names = [container["name"] for container in containers(pod)]
        assert codes.get("containerName", names[0]) in names
        assert "containerName" in codes or len(names) > 1


@every_build
def test_outputs_lie_below_mounts_that_can_be_written_to(build):
    """A mount point cannot be renamed, and a read-only one cannot be written to."""
    objects = manifests(build)
    for job in by_kind(objects, "Job"):
        for container in containers(job["spec"]["template"]["spec"]):
            mounts = {m["mountPath"]: m.get("readOnly", False) for m in container["volumeMounts"]}
            for word in arguments_of(container, objects):
                flag, _, path = word.partition("=")
                if not path.startswith("/"):
                    continue
                above = [str(parent) for parent in Path(path).parents if str(parent) in mounts]
                assert above, (name_of(job), word)
                assert flag != "--out" or not mounts[above[0]], (name_of(job), word)


@pytest.mark.parametrize("build", [name for name in BUILDS if name.startswith("multi-node")])
def test_workers_find_each_other(build):
    objects = manifests(build)
    job = named(objects, "Job", "train")
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] > 1
    service = named(objects, "Service", pod["subdomain"])
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"]
    assert is_chosen(service["spec"]["selector"], job["spec"]["template"]["metadata"]["labels"])
    (container,) = pod["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    (port,) = service["spec"]["ports"]
    assert environment == {
        "NUM_WORKERS": str(spec["completions"]),
        "WORKER_ADDRESS": f"train-{{index}}.{pod['subdomain']}:{port['port']}",
    }
    num_gpus = int(container["resources"]["limits"]["nvidia.com/gpu"])
    settings = dict(word.partition("=")[::2] for word in arguments_of(container, objects))
    assert int(settings["--global-batch-size"]) % (num_gpus * spec["completions"]) == 0


@pytest.mark.parametrize("build", ["gpu", "multi-node"])
def test_training_on_gpus_asks_for_them(build):
    objects = manifests(build)
    (container,) = named(objects, "Job", "train")["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith("lung-ct-gpu:")
    assert "--devices=gpu" in arguments_of(container, objects)
    assert "nvidia.com/gpu" in container["resources"]["limits"]


# --- Safety. --------------------------------------------------------------------------------------


@every_build
def test_pods_are_restricted(build):
    """Pod Security Standards, level "restricted", and a root file system that is read only."""
    for each, template in workloads(manifests(build)):
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False, name_of(each)
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 10000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert not any("hostPath" in volume for volume in spec["volumes"])
        for container in containers(spec):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, (name_of(each), container["name"])
            assert not any("hostPort" in port for port in container.get("ports", []))


@every_build
def test_traffic_that_nobody_named_is_denied(build):
    (deny,) = [
        each
        for each in by_kind(manifests(build), "NetworkPolicy")
        if not each["spec"]["podSelector"] and not each["spec"].keys() & {"ingress", "egress"}
    ]
    assert deny["spec"]["policyTypes"] == ["Ingress", "Egress"]


@every_build
def test_images_have_a_version(build):
    version = re.search(r'version="([^"]+)"', (ROOT / "setup.py").read_text())[1]
    for each, template in workloads(manifests(build)):
        for container in containers(template["spec"]):
            name, _, tag = container["image"].partition(":")
            assert tag not in ("", "latest"), name_of(each)
            if name in OWN_IMAGES:
                assert tag == version
            elif name == "tensorflow/serving":
                assert tag == TAG
    assert f":$(or $(TAG),{version})" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-gpu.lock"])
def test_image_has_the_versions_that_are_tested(name):
    def versions(path: Path) -> set[str]:
        return set(re.findall(r"^[a-z0-9][\w.-]*==[\w.+-]+", path.read_text(), flags=re.MULTILINE))

    in_image = versions(K8S / "images" / name)
    assert any(line.startswith("tensorflow==") for line in in_image)
    assert in_image <= versions(ROOT / name)


# --- Serving. -------------------------------------------------------------------------------------


@every_build
def test_serving_is_where_clients_look_for_it(build):
    objects = manifests(build)
    (container,) = named(objects, "Deployment", SERVING)["spec"]["template"]["spec"]["containers"]
    flags = dict(word.partition("=")[::2] for word in container["args"])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": GRPC_PORT, "rest": REST_PORT}
    assert flags["--port"] == str(GRPC_PORT)
    assert flags["--rest_api_port"] == str(REST_PORT)
    assert flags.get("--model_name", DEFAULT_MODEL_NAME) == DEFAULT_MODEL_NAME
    assert container["readinessProbe"]["httpGet"] == {
        "path": f"/v1/models/{DEFAULT_MODEL_NAME}/metadata",
        "port": "rest",
    }
    assert container["startupProbe"]["tcpSocket"] == {"port": "grpc"}
    assert container["livenessProbe"]["tcpSocket"] == {"port": "grpc"}
    (smoke,) = named(objects, "Job", "smoke")["spec"]["template"]["spec"]["containers"]
    host, _, port = dict(w.partition("=")[::2] for w in smoke["args"])["--target"].partition(":")
    service = named(objects, "Service", host)
    assert service["spec"]["clusterIP"] == "None"  # all addresses, which the client calls in turn
    assert int(port) == GRPC_PORT


@every_build
def test_serving_only_reads_models_and_finds_what_was_exported(build):
    objects = manifests(build)
    spec = named(objects, "Deployment", SERVING)["spec"]["template"]["spec"]
    mounts = {m["name"]: m for m in spec["containers"][0]["volumeMounts"]}
    assert all(mounts[name].get("readOnly") for name in mounts if name != "tmp")
    if build.endswith("+gcs"):
        return
    (exporter,) = named(objects, "Job", "export")["spec"]["template"]["spec"]["containers"]
    out = dict(w.partition("=")[::2] for w in exporter["args"])["--out"]
    base_path = dict(w.partition("=")[::2] for w in spec["containers"][0]["args"]).get(
        "--model_base_path", out
    )
    assert base_path == out
    claims = {
        volume["name"]: volume.get("persistentVolumeClaim", {}).get("claimName")
        for volume in spec["volumes"]
    }
    assert claims["models"] == "models"
    assert mounts["models"]["mountPath"] == str(Path(out).parent)


@every_build
def test_serving_is_drained_before_it_is_ended(build):
    spec = named(manifests(build), "Deployment", SERVING)["spec"]["template"]["spec"]
    pause_s = int(spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert spec["shareProcessNamespace"] is True  # or SIGTERM would not be seen
    assert pause_s >= 30  # the longest call of the client
    assert spec["terminationGracePeriodSeconds"] > pause_s


def test_metrics_are_switched_on_where_they_are_looked_for():
    own, container = (
        K8S / "base" / "monitoring.config",
        ROOT / "serving/container/monitoring.config",
    )
    assert own.read_bytes() == container.read_bytes()
    objects = manifests("multi-node+monitoring")
    (monitor,) = by_kind(objects, "ServiceMonitor")
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["path"] == metrics.DEFAULT_PATH
    service = named(objects, "Service", SERVING)
    assert is_chosen(monitor["spec"]["selector"], service["metadata"]["labels"])
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]


def test_alerts_ask_for_metrics_that_there_are():
    counted = metrics.Metrics()
    with counted.request("Predict", "GRPC", "lung_unet"):
        pass
    page = counted.page()
    (rules,) = by_kind(manifests("multi-node+monitoring"), "PrometheusRule")
    asked = set()
    for rule in rules["spec"]["groups"][0]["rules"]:
        assert {"summary", "description"} <= rule["annotations"].keys()
        asked |= set(re.findall(r":tensorflow[\w:]+", rule["expr"]))
    assert asked == {
        ":tensorflow:serving:request_count",
        ":tensorflow:serving:request_latency_bucket",
    }
    for name in asked:
        assert f"\n{name}{{" in page


def test_canary_has_both_labels_for_versions_that_it_serves():
    text = (K8S / "components" / "canary" / "models.config").read_text()
    (model,) = text_format.Parse(
        text, model_server_config_pb2.ModelServerConfig()
    ).model_config_list.config
    assert model.name == DEFAULT_MODEL_NAME
    assert set(model.version_labels) == {"stable", "canary"}
    assert set(model.version_labels.values()) == set(model.model_version_policy.specific.versions)
