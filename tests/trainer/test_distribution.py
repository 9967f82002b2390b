import logging

import pytest
import tensorflow as tf

from trainer import distribution
from trainer.distribution import mirrored_strategy


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(
        distribution.tf.config,
        "list_physical_devices",
        lambda kind: [f"{kind}:{index}" for index in range(count if kind == "GPU" else 1)],
    )


def test_without_gpu_it_says_that_it_trains_on_logical_cpu_devices(caplog):
    caplog.set_level(logging.INFO, logger="trainer.distribution")
    strategy = mirrored_strategy(None)
    assert strategy.num_replicas_in_sync == 2
    assert "no GPU found: training on 2 logical CPU devices" in caplog.text


def test_number_of_replicas_is_the_one_asked_for():
    assert mirrored_strategy(3).num_replicas_in_sync == 3
    assert mirrored_strategy(1).num_replicas_in_sync == 1


def test_every_gpu_is_used_unless_fewer_are_asked_for(monkeypatch):
    made = []
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", made.append)
    pretend_gpus(monkeypatch, 4)
    mirrored_strategy(None)
    mirrored_strategy(2)
    assert made == [["GPU:0", "GPU:1", "GPU:2", "GPU:3"], ["GPU:0", "GPU:1"]]


def test_more_gpus_than_there_are_is_an_error(monkeypatch):
    pretend_gpus(monkeypatch, 2)
    with pytest.raises(ValueError, match="--num-replicas is 3, but TensorFlow sees 2 GPUs"):
        mirrored_strategy(3)


def test_more_logical_devices_than_tensorflow_was_started_with_is_an_error():
    tf.config.list_logical_devices()  # starts TensorFlow
    with pytest.raises(ValueError, match="9 logical CPU devices are wanted, .* started with 3"):
        mirrored_strategy(9)
