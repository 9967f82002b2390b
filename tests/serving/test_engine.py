import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.engine import SavedModelSession, TensorParseError
from serving.status import StatusCode, StatusError

CASES = [(1, 1, 1), (1, 7, 5), (3, 64, 48)]


@pytest.fixture(scope="module")
def session(model_base_path: Path) -> SavedModelSession:
    return SavedModelSession(model_base_path / "3")


def proto(value: Any) -> bytes:
    import tensorflow as tf

    return bytes(tf.make_tensor_proto(value).SerializeToString())


def run(session: SavedModelSession, signature_name: str, value: Any) -> dict[str, Any]:
    signature = session.signatures[signature_name]
    (info,) = signature.inputs.values()
    keys = sorted(signature.outputs)
    arrays = session.run({info.name: proto(value)}, [signature.outputs[key].name for key in keys])
    return dict(zip(keys, arrays, strict=True))


@pytest.mark.parametrize("shape", CASES)
def test_engine_and_tensorflow_agree_to_the_last_bit(
    session: SavedModelSession, model_base_path: Path, shape: tuple[int, int, int]
) -> None:
    import tensorflow as tf

    image = np.random.default_rng(1).integers(0, 256, (*shape, 1), dtype=np.uint8)
    loaded = tf.saved_model.load(str(model_base_path / "3"))
    expected = loaded.signatures["serving_default"](image=tf.constant(image))
    actual = run(session, "serving_default", image)
    assert sorted(actual) == ["predicted_mask", "probability"]
    for key, array in actual.items():
        assert array.dtype == expected[key].numpy().dtype
        np.testing.assert_array_equal(array, expected[key].numpy())


def test_strings_go_in_and_come_out(session: SavedModelSession) -> None:
    import tensorflow as tf

    images = [np.full((4, 6, 1), value, np.uint8) for value in (20, 200)]
    files = [tf.io.encode_png(image).numpy() for image in images]
    masks = run(session, "encoded", files)["predicted_mask_bytes"]
    assert masks.shape == (2,)
    decoded = [tf.io.decode_png(mask).numpy() for mask in masks]
    assert [mask.min() for mask in decoded] == [255, 0]
    assert [mask.max() for mask in decoded] == [255, 0]


def test_empty_batch_gives_an_empty_batch(session: SavedModelSession) -> None:
    masks = run(session, "serving_default", np.zeros((0, 4, 4, 1), np.uint8))["predicted_mask"]
    assert masks.shape == (0, 4, 4, 1)


def test_many_threads_get_their_own_answers(session: SavedModelSession) -> None:
    def mask_mean(index: int) -> float:
        image = np.full((1, 16, 16, 1), 0 if index % 2 else 255, np.uint8)
        return float(run(session, "serving_default", image)["predicted_mask"].mean())

    with ThreadPoolExecutor(8) as pool:
        means = list(pool.map(mask_mean, range(64)))
    assert means == [float(index % 2) for index in range(64)]


def test_wrong_type_is_refused_in_tensorflows_words(session: SavedModelSession) -> None:
    with pytest.raises(StatusError) as caught:
        run(session, "serving_default", np.zeros((1, 2, 2, 1), np.float64))
    assert caught.value.code is StatusCode.INVALID_ARGUMENT
    assert "Expects arg[0] to be uint8 but double is provided" in caught.value.message


def test_bytes_that_are_no_tensor_are_refused_by_name(session: SavedModelSession) -> None:
    with pytest.raises(TensorParseError) as caught:
        session.run({"serving_default_image:0": b"\x08\x63"}, ["StatefulPartitionedCall:0"])
    assert caught.value.tensor_name == "serving_default_image:0"


def test_tensor_that_the_graph_does_not_have_is_told(session: SavedModelSession) -> None:
    with pytest.raises(StatusError, match="the graph has no tensor 'nothing:0'"):
        session.run({}, ["nothing:0"])


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StatusError, match="Could not find SavedModel"):
        SavedModelSession(tmp_path)


def test_model_without_its_variables_is_refused(model_base_path: Path, tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(
        (model_base_path / "3" / "saved_model.pb").read_bytes()
    )
    with pytest.raises(StatusError, match=r"variables.index is missing, but the graph has vari"):
        SavedModelSession(tmp_path)


@pytest.fixture
def endless_session(tmp_path: Path) -> SavedModelSession:
    import tensorflow as tf

    class Endless(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="x")])
        def count(self, x: Any) -> Any:
            return {"y": tf.while_loop(lambda y: y >= 0.0, lambda y: [tf.sin(y) + 2.0], [x])[0]}

    module = Endless()
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.count})
    return SavedModelSession(tmp_path)


def test_run_is_cancelled_when_its_time_is_over(endless_session: SavedModelSession) -> None:
    signature = endless_session.signatures["serving_default"]
    with pytest.raises(StatusError) as caught:
        endless_session.run(
            {signature.inputs["x"].name: proto(np.float32(1))},
            [signature.outputs["y"].name],
            timeout_ms=50,
        )
    assert caught.value.code is StatusCode.DEADLINE_EXCEEDED
    endless_session.close()


def test_closing_cancels_what_runs_and_nothing_runs_afterwards(
    endless_session: SavedModelSession,
) -> None:
    value = np.float32(1)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(run, endless_session, "serving_default", value) for _ in range(4)]
        while endless_session._num_runs < 4:
            time.sleep(0.01)
        endless_session.close()
        for call in calls:
            with pytest.raises(StatusError):
                call.result(timeout=10)
    with pytest.raises(StatusError, match="the model is closed"):
        run(endless_session, "serving_default", value)
    endless_session.close()
