import json
import logging

import pytest
import tensorflow as tf

from trainer import distribution
from trainer.distribution import place, read_cluster

ADDRESSES = ["a:1", "b:1", "c:1"]


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(
        distribution.tf.config,
        "list_physical_devices",
        lambda kind: [f"{kind}:{index}" for index in range(count if kind == "GPU" else 1)],
    )


def test_without_gpu_it_trains_on_the_cpu_and_says_so(caplog):
    caplog.set_level(logging.INFO, logger="trainer.distribution")
    placement = place("auto")
    assert placement.num_replicas == 1
    assert placement.is_chief
    assert placement.device_kind == "CPU"
    assert "no GPU found: the full size is slow on a CPU" in caplog.text
    assert "training on CPU:0" in caplog.text


def test_number_of_logical_cpu_devices_is_the_one_asked_for():
    assert place("cpu:3").num_replicas == 3
    assert place("cpu").num_replicas == 1


def test_gpus_are_all_or_those_named(monkeypatch):
    made = []
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", made.append)
    monkeypatch.setattr(tf.distribute, "OneDeviceStrategy", made.append)
    pretend_gpus(monkeypatch, 4)
    for devices in ("auto", "gpu", "gpu:2,0", "gpu:3"):
        place(devices)
    every = ["GPU:0", "GPU:1", "GPU:2", "GPU:3"]
    assert made == [every, every, ["GPU:2", "GPU:0"], "GPU:3"]


def test_gpu_that_is_not_there_is_an_error(monkeypatch):
    pretend_gpus(monkeypatch, 2)
    with pytest.raises(ValueError, match="--devices is gpu:0,2, but TensorFlow sees 2 GPUs, numb"):
        place("gpu:0,2")


def test_gpu_on_a_machine_without_one_is_an_error():
    with pytest.raises(ValueError, match="--devices is gpu, but TensorFlow sees no GPU; .*GPU=1"):
        place("gpu")


def test_more_logical_devices_than_tensorflow_was_started_with_is_an_error():
    tf.config.list_logical_devices()  # starts TensorFlow
    with pytest.raises(ValueError, match="9 logical CPU devices are wanted, .* started with 3"):
        place("cpu:9")


def test_logical_devices_on_several_workers_are_refused(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config("worker", 0, worker=ADDRESSES))
    with pytest.raises(
        ValueError, match="2 logical CPU devices on each of 3 workers; expected one"
    ):
        place("cpu:2")


def tf_config(kind: str, index: int, **cluster: list[str]) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


def job(**variables: str) -> dict[str, str]:
    return {
        "JOB_COMPLETION_INDEX": "2",
        "NUM_WORKERS": "3",
        "WORKER_ADDRESS": "train-{index}.train:2222",
        **variables,
    }


def test_cluster_is_read_from_tf_config():
    config = tf_config("worker", 1, worker=ADDRESSES)
    assert read_cluster({"TF_CONFIG": config}) == (ADDRESSES, 1)
    chief = {"chief": ADDRESSES[:1], "worker": ADDRESSES[1:]}
    assert read_cluster({"TF_CONFIG": tf_config("chief", 0, **chief)}) == (ADDRESSES, 0)
    assert read_cluster({"TF_CONFIG": tf_config("worker", 1, **chief)}) == (ADDRESSES, 2)


def test_cluster_is_read_from_the_variables_of_an_indexed_job():
    addresses = [f"train-{index}.train:2222" for index in range(3)]
    assert read_cluster(job()) == (addresses, 2)


def test_one_worker_alone_is_no_cluster():
    assert read_cluster({}) is None
    assert read_cluster({"JOB_COMPLETION_INDEX": "0"}) is None
    assert read_cluster(job(NUM_WORKERS="1", JOB_COMPLETION_INDEX="0")) is None
    assert read_cluster({"TF_CONFIG": tf_config("worker", 0, worker=["a:1"])}) is None


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"TF_CONFIG": "{"}, "TF_CONFIG is '{', which does not describe a cluster"),
        ({"TF_CONFIG": "{}"}, "does not describe a cluster .KeyError.'cluster'"),
        (
            {"TF_CONFIG": tf_config("ps", 0, worker=ADDRESSES, ps=["p:1"])},
            "says that this is ps 0, but its cluster has 3 worker, 1 ps; expected one of its chief",
        ),
        (
            {"TF_CONFIG": tf_config("worker", 3, worker=ADDRESSES)},
            "says that this is worker 3, but its cluster has 3 worker; expected one of",
        ),
        (
            {"NUM_WORKERS": "2"},
            "has NUM_WORKERS, but not JOB_COMPLETION_INDEX, WORKER_ADDRESS; an Indexed Job",
        ),
        (
            job(JOB_COMPLETION_INDEX="3"),
            "NUM_WORKERS is '3' and JOB_COMPLETION_INDEX '3'; expected",
        ),
        (job(NUM_WORKERS="two"), "NUM_WORKERS is 'two' and JOB_COMPLETION_INDEX '2'; expected"),
        (
            job(WORKER_ADDRESS="train:2222"),
            "WORKER_ADDRESS is 'train:2222'; expected host and port",
        ),
    ],
)
def test_environment_that_describes_no_cluster_is_an_error(environment, message):
    with pytest.raises(ValueError, match=message):
        read_cluster(environment)


def test_wait_for_other_workers_is_seconds():
    assert distribution._wait_s({}) == 900
    assert distribution._wait_s({"WORKER_WAIT_S": "2.5"}) == 2.5
    for text in ("", "long", "-1", "inf", "nan"):
        with pytest.raises(ValueError, match=f"WORKER_WAIT_S is '{text}'; expected seconds, such"):
            distribution._wait_s({"WORKER_WAIT_S": text})
