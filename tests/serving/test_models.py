"""How versions come, are used, and go; states and texts are TensorFlow Serving's own."""

import io
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import text_format

from preprocessing.framing import write_record
from serving import codec
from serving.config import ServeConfig
from serving.embedded import models as models_module
from serving.embedded import warm_up as warm_up_module
from serving.embedded.models import ModelStore
from serving.embedded.server import EmbeddedServer
from serving.embedded.warm_up import warm_up
from serving.errors import BrokenModelError, ConfigFileError, NoModelError
from serving.protos import model_pb2, model_server_config_pb2, prediction_log_pb2
from serving.status import StatusError
from trainer.signature import PREDICTED_MASK

POLL_S = 0.02
Publish = Callable[[int], Path]
Start = Callable[..., ModelStore]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model's folder, empty at first."""
    folder = tmp_path / "m"
    folder.mkdir()
    return folder


@pytest.fixture
def publish(model_base_path: Path, base: Path) -> Publish:
    """Puts a version of the tiny model into the folder, whole."""

    def copy(number: int) -> Path:
        aside = base / f".{number}"
        shutil.copytree(model_base_path / "3", aside)
        return aside.rename(base / str(number))

    return copy


@pytest.fixture
def start(base: Path) -> Iterator[Start]:
    """Starts a store for the folder, with more of a ``ModelConfig`` as text."""
    stores: list[ModelStore] = []

    def run(more: str = "", **options: Any) -> ModelStore:
        store = ModelStore([config_of(base, more)], **{"poll_wait_s": POLL_S, **options})
        stores.append(store)
        return store

    yield run
    for store in stores:
        store.close()


def config_of(base: Path, more: str = "", *, name: str = "m") -> Any:
    text = f'name: "{name}" base_path: "{base}" model_platform: "tensorflow" {more}'
    return text_format.Parse(text, model_server_config_pb2.ModelConfig())


def spec(name: str = "m", *, version: int | None = None, label: str = "") -> Any:
    found = model_pb2.ModelSpec(name=name)
    if version is not None:
        found.version.value = version
    if label:
        found.version_label = label
    return found


def used(store: ModelStore, **which: Any) -> int:
    with store.use(spec(**which)) as model:
        return model.version


def states(store: ModelStore) -> dict[int, str]:
    response = store.status(spec())
    return {
        entry.version: type(entry).State.Name(entry.state)
        for entry in response.model_version_status
    }


def wait_for(store: ModelStore, expected: dict[int, str]) -> None:
    deadline = time.monotonic() + 20
    while states(store) != expected:
        assert time.monotonic() < deadline, states(store)
        time.sleep(POLL_S)


def test_new_version_replaces_the_old_one(start: Start, publish: Publish) -> None:
    publish(1)
    store = start()
    assert used(store) == 1
    publish(2)
    wait_for(store, {2: "AVAILABLE", 1: "END"})
    assert used(store) == 2
    with pytest.raises(StatusError, match=r"Servable not found for request: Specific\(m, 1\)"):
        used(store, version=1)


def test_version_is_unloaded_when_those_who_use_it_are_done(start: Start, publish: Publish) -> None:
    publish(1)
    store = start()
    with store.use(spec()) as model:
        publish(2)
        wait_for(store, {2: "AVAILABLE", 1: "UNLOADING"})
        assert used(store) == 2
        assert model.session.signatures
        time.sleep(3 * POLL_S)
        assert states(store)[1] == "UNLOADING"
    wait_for(store, {2: "AVAILABLE", 1: "END"})


def test_deleted_version_gives_way_to_the_one_before(
    start: Start, publish: Publish, base: Path
) -> None:
    publish(1)
    newer = publish(2)
    store = start()
    assert states(store) == {2: "AVAILABLE"}
    shutil.rmtree(newer)
    wait_for(store, {2: "END", 1: "AVAILABLE"})
    publish(2)
    wait_for(store, {2: "AVAILABLE", 1: "END"})


def test_folder_that_is_emptied_serves_nothing(start: Start, publish: Publish, base: Path) -> None:
    publish(1)
    store = start()
    shutil.rmtree(base / "1")
    wait_for(store, {1: "END"})
    with pytest.raises(StatusError, match=r"Servable not found for request: Latest\(m\)"):
        used(store)


def test_folder_that_is_gone_for_a_while_changes_nothing(
    start: Start, publish: Publish, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish(1)
    store = start()
    base.rename(base.with_name("unmounted"))
    deadline = time.monotonic() + 10
    while "cannot be read" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.05)
    assert used(store) == 1
    base.with_name("unmounted").rename(base)
    publish(2)
    wait_for(store, {1: "END", 2: "AVAILABLE"})


def test_number_that_is_no_version_is_left_out(start: Start, publish: Publish, base: Path) -> None:
    publish(1)
    shutil.copytree(base / "1", base / str(2**63))
    assert states(start()) == {1: "AVAILABLE"}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("", [3]),
        ("latest { num_versions: 2 }", [3, 2]),
        ("latest { }", [3]),
        ("all { }", [3, 2, 1]),
        ("specific { versions: 1 versions: 3 versions: 9 }", [3, 1]),
    ],
)
def test_policy_says_which_versions_are_loaded(
    start: Start, publish: Publish, policy: str, expected: list[int]
) -> None:
    for number in (1, 2, 3):
        publish(number)
    store = start(f"model_version_policy {{ {policy} }}" if policy else "")
    assert list(states(store)) == expected
    assert used(store) == 3
    assert used(store, version=expected[-1]) == expected[-1]


def test_half_written_version_is_not_served(
    start: Start, publish: Publish, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models_module, "RETRY_INTERVAL_S", 0.05)
    whole = publish(1)
    store = start()
    (base / "2").mkdir()
    wait_for(store, {2: "LOADING", 1: "AVAILABLE"})
    shutil.copy(whole / "saved_model.pb", base / "2")
    time.sleep(0.2)
    assert states(store) == {2: "LOADING", 1: "AVAILABLE"}
    assert used(store) == 1
    shutil.copytree(whole / "variables", base / "2" / "variables")
    wait_for(store, {2: "AVAILABLE", 1: "END"})


def test_broken_version_is_given_up_after_some_trials(
    start: Start, publish: Publish, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models_module, "RETRY_INTERVAL_S", 0.01)
    publish(1)
    store = start()
    (base / "2").mkdir()
    wait_for(store, {2: "END", 1: "AVAILABLE"})
    status = store.status(spec(version=2)).model_version_status[0].status
    assert status.error_code == 5
    assert "Could not find SavedModel .pb or .pbtxt at supplied export directory" in (
        status.error_message
    )
    assert used(store) == 1


def test_broken_version_at_the_start_is_told(start: Start, base: Path) -> None:
    (base / "1").mkdir()
    with pytest.raises(BrokenModelError, match="1 cannot be loaded: Could not find SavedModel"):
        start()


def test_policy_that_asks_for_no_version_that_is_there_is_told(
    start: Start, publish: Publish
) -> None:
    publish(4)
    with pytest.raises(NoModelError, match="holds the versions 4; the policy asks for none"):
        start("model_version_policy { specific { versions: 7 } }")


LABELED = 'model_version_policy { all { } } version_labels { key: "stable" value: 1 }'


def test_label_names_a_version(start: Start, publish: Publish) -> None:
    publish(1)
    publish(2)
    store = start(LABELED, labels_may_wait=True)
    assert used(store, label="stable") == 1
    assert used(store) == 2
    with pytest.raises(StatusError, match="Unrecognized servable version label: canary"):
        used(store, label="canary")
    with pytest.raises(StatusError, match="Unrecognized servable version label: stable"):
        used(store, name="other", label="stable")


def test_label_at_the_start_needs_leave(start: Start, publish: Publish) -> None:
    publish(1)
    with pytest.raises(StatusError, match="Request to assign label to version 1 of model m, whic"):
        start(LABELED)


def test_other_configuration_moves_labels_and_models(
    start: Start, publish: Publish, base: Path
) -> None:
    publish(1)
    publish(2)
    store = start("model_version_policy { all { } }")
    store.reload([config_of(base, LABELED)])
    assert used(store, label="stable") == 1
    moved = LABELED.replace("value: 1", "value: 2")
    both = [config_of(base, moved), config_of(base, name="twin")]
    store.reload(both)
    assert used(store, label="stable") == 2
    assert used(store, name="twin") == 2
    with pytest.raises(StatusError, match="Request to assign label to version 7"):
        store.reload([config_of(base, LABELED.replace("value: 1", "value: 7"))])
    assert used(store, name="twin") == 2, "the configuration before stays in effect"
    store.reload([config_of(base, name="twin")])
    with pytest.raises(StatusError, match=r"Servable not found for request: Latest\(m\)"):
        used(store)
    with pytest.raises(StatusError, match="Could not find any versions of model m"):
        store.status(spec())


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ([config_of(Path("m"))], "Expected model m to have an absolute path or URI; got base_path"),
        ([config_of(Path("/m")), config_of(Path("/n"))], "model names are 'm', 'm'; expected each"),
        (
            [model_server_config_pb2.ModelConfig(name="m", base_path="/m")],
            "Illegal setting neither",
        ),
    ],
)
def test_configuration_that_cannot_be_followed_is_told(configs: list[Any], message: str) -> None:
    with pytest.raises(StatusError, match=message.replace("(", r"\(")):
        ModelStore(configs)


def request_of(pixels: list[list[int]]) -> Any:
    return codec.array_request(
        np.array([pixels], np.uint8),
        model_name="m",
        model_version=None,
        output_key=PREDICTED_MASK.key,
    )


def write_warm_up(folder: Path, requests: list[Any]) -> None:
    import tensorflow as tf

    (folder / "assets.extra").mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / warm_up_module.FILE)) as writer:
        for request in requests:
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(request)
            writer.write(log.SerializeToString())


def test_warm_up_is_played_before_a_version_is_available(
    start: Start, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_warm_up(publish(1), [request_of([[1]]), request_of([[1, 2]])])
    played = []
    real = warm_up_module.answers.run
    monkeypatch.setattr(
        warm_up_module.answers,
        "run",
        lambda model, request: played.append(real(model, request)),
    )
    start(warm_up=warm_up)
    assert [next(iter(outputs.values())).shape for outputs in played] == [
        (1, 1, 1, 1),
        (1, 1, 2, 1),
    ]


def framed(record: bytes) -> bytes:
    file = io.BytesIO()
    write_record(file, record)
    return file.getvalue()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "tf_serving_warmup_requests is damaged or truncated"),
        (lambda data: data[:7], "tf_serving_warmup_requests is damaged or truncated"),
        (lambda data: b"\xff" * 12 + data[12:], "requests is damaged or truncated"),
        (lambda data: data.replace(b"image", b"igame"), "requests is damaged or truncated"),
        (lambda data: framed(b"\xff"), "Failed to parse warmup record: 0"),
        (
            lambda data: framed(prediction_log_pb2.PredictionLog().SerializeToString()),
            "Unsupported log_type",
        ),
        (
            lambda data: framed(data[12:-4].replace(b"image", b"igame")),
            "input tensor alias not found in signatu",
        ),
    ],
)
def test_warm_up_that_fails_keeps_a_version_back(
    start: Start, publish: Publish, damage: Callable[[bytes], bytes], message: str
) -> None:
    folder = publish(1)
    write_warm_up(folder, [request_of([[1]])])
    path = folder / warm_up_module.FILE
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BrokenModelError, match=message):
        start(warm_up=warm_up)


def test_version_that_cannot_be_read_is_told(start: Start, publish: Publish) -> None:
    publish(1)

    def fail(model: object) -> None:
        raise PermissionError(13, "Permission denied", "warmup")

    with pytest.raises(BrokenModelError, match="Permission denied: 'warmup'; export the model"):
        start(warm_up=fail)


def test_requests_do_not_fail_while_versions_are_replaced(base: Path, publish: Publish) -> None:
    publish(1)
    config = ServeConfig(
        model_base_path=base, model_name="m", port=0, file_system_poll_wait_seconds=POLL_S
    )
    answered: list[int] = []
    is_over = threading.Event()

    def ask(target: str) -> None:
        with grpc.insecure_channel(target) as channel:
            call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
            while not is_over.is_set():
                response = call(request_of([[1, 200]]).SerializeToString())
                answered.append(codec.read_answer(response).model_version)

    with EmbeddedServer(config) as server, ThreadPoolExecutor(3) as pool:
        askers = [pool.submit(ask, server.target) for _ in range(3)]
        for number in range(2, 8):
            publish(number)
            wait_for(server.models, {number: "AVAILABLE"} | dict.fromkeys(range(1, number), "END"))
        is_over.set()
        for asker in askers:
            asker.result()
    assert {1, 7} <= set(answered)


CONFIG = """
model_config_list {
  config { name: "a" base_path: "BASE" model_platform: "tensorflow"
           version_labels { key: "stable" value: 1 } }
  config { name: "b" base_path: "BASE" model_platform: "tensorflow" }
}
"""


def test_configuration_file_names_models_and_labels(
    base: Path, publish: Publish, tmp_path: Path
) -> None:
    publish(1)
    path = tmp_path / "models.config"
    path.write_text(CONFIG.replace("BASE", str(base)))
    config = ServeConfig(
        model_config_file=path, port=0, allow_version_labels_for_unavailable_models=True
    )
    with EmbeddedServer(config) as server:
        assert sorted(model.name for model in server.models.served()) == ["a", "b"]
        assert used(server.models, name="a", label="stable") == 1
    with pytest.raises(ConfigFileError, match="--allow_version_labels_for_unavailable_models lets"):
        EmbeddedServer(ServeConfig(model_config_file=path, port=0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "models.config cannot be read: No such file or directory"),
        ("model_config_list {", "models.config is no ModelServerConfig as text, at line and colu"),
        ("modelconfig: 1", 'no field named "modelconfig"'),
        ("", "models.config names no model; expected model_config_list { config { name:"),
    ],
)
def test_bad_configuration_file_is_told(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "models.config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigFileError, match=message):
        EmbeddedServer(ServeConfig(model_config_file=path, port=0))


def test_client_may_not_have_other_models_served_where_that_is_not_allowed(
    server: EmbeddedServer,
) -> None:
    from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

    with grpc.insecure_channel(server.target) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest(), timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_client_may_have_other_models_served_where_that_is_allowed(
    base: Path, publish: Publish
) -> None:
    from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

    publish(1)
    config = ServeConfig(model_base_path=base, port=0, allow_reload_config=True)
    request = model_management_pb2.ReloadConfigRequest()
    with EmbeddedServer(config) as server, grpc.insecure_channel(server.target) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        with pytest.raises(grpc.RpcError, match="Only ModelConfigList is currently supported"):
            stub.HandleReloadConfigRequest(request)
        request.config.model_config_list.config.append(config_of(base, name="other"))
        assert stub.HandleReloadConfigRequest(request).status.error_code == 0
        assert used(server.models, name="other") == 1
