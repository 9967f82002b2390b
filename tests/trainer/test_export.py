import io
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import prediction_log_pb2

from preprocessing.manifest import DatasetManifest
from trainer import export as export_module
from trainer.evaluation.config import EvaluationConfig
from trainer.evaluation.job import evaluate
from trainer.export import ExportConfig, ServedModel, export
from trainer.export_agreement import Agreement, call
from trainer.input_pipeline import read_examples
from trainer.signature import SIGNATURES
from trainer.warm_up_requests import PATH


@pytest.fixture(scope="module")
def model_dir(trained_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("model") / "lung_unet"
    export(ExportConfig(run=trained_run, out=out))
    return out


@pytest.fixture(scope="module")
def signatures(model_dir):
    return tf.saved_model.load(str(model_dir / "1")).signatures


def slices(dataset) -> list[dict]:
    manifest = DatasetManifest.load(dataset)
    return list(read_examples(dataset, manifest, "validation").as_numpy_iterator())


def file_of(image: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0]).save(buffer, kind)
    return buffer.getvalue()


def test_signatures_are_those_of_the_contract(signatures):
    assert set(signatures) == {signature.name for signature in SIGNATURES}
    for signature in SIGNATURES:
        function = signatures[signature.name]
        inputs = function.structured_input_signature[1]
        for side, contract in (
            (inputs, signature.inputs),
            (function.structured_outputs, signature.outputs),
        ):
            assert set(side) == {tensor.key for tensor in contract}
            for tensor in contract:
                assert side[tensor.key].dtype.name == tensor.dtype
                assert side[tensor.key].shape.as_list() == list(tensor.shape)


def test_exported_masks_are_those_that_the_trainer_wrote(
    signatures, trained_run, dataset, tmp_path
):
    evaluate(
        EvaluationConfig(
            run=trained_run, out=tmp_path, write_masks=True, flips="none", postprocess=False
        )
    )
    for example in slices(dataset):
        path = tmp_path / "predicted_masks" / f"{example['slice_id'].decode()}.png"
        with Image.open(path) as file:
            expected = np.asarray(file) // 255
        answer = signatures["serving_default"](image=tf.constant(example["image"][np.newaxis]))
        assert np.array_equal(answer["predicted_mask"][0, :, :, 0], expected)
        for kind in ("BMP", "PNG"):
            files = tf.constant([file_of(example["image"], kind)])
            encoded = signatures["encoded"](image_bytes=files)["predicted_mask_bytes"]
            with Image.open(io.BytesIO(encoded.numpy()[0])) as mask:
                assert np.array_equal(np.asarray(mask) // 255, expected)


def test_batch_of_files_may_hold_several_sizes(signatures, dataset):
    image = slices(dataset)[2]["image"]
    files = [file_of(image, "PNG"), file_of(image[3:], "BMP")]
    answer = signatures["encoded"](image_bytes=tf.constant(files))["predicted_mask_bytes"].numpy()
    sizes = [Image.open(io.BytesIO(content)).size for content in answer]
    assert sizes == [(40, 40), (40, 37)]


@pytest.mark.parametrize("shape", [(512, 512), (30, 50), (50, 30), (37, 91), (1, 1), (1, 40)])
def test_slices_of_any_shape_are_answered_at_their_own_size_in_any_batch(model_dir, shape):
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, [3, *shape, 1]).astype(np.uint8)
    with tf.compat.v1.Session(graph=tf.Graph()) as session:  # as TensorFlow Serving loads it
        loader = tf.compat.v1.saved_model.loader
        loaded = loader.load(session, [tf.saved_model.SERVING], str(model_dir / "1"))
        signature = loaded.signature_def["serving_default"]
        together = call(session, signature, images)
        alone = call(session, signature, images[1:2])
    assert together["probability"].shape == (3, *shape, 1)
    assert together["predicted_mask"].dtype == np.uint8
    np.testing.assert_allclose(together["probability"][1:2], alone["probability"], atol=1e-5)


def test_shape_is_found_at_its_place_whatever_the_proportions_of_the_slice(signatures, dataset):
    image = slices(dataset)[2]["image"]
    square = signatures["serving_default"](image=tf.constant(image[np.newaxis]))
    expected = square["predicted_mask"].numpy()[0, 4:-4]
    assert expected.any()
    # What is cut off comes back as padding.
    wide = signatures["serving_default"](image=tf.constant(image[np.newaxis, 4:-4]))
    found = wide["predicted_mask"].numpy()[0]
    # The ends of the body are cut off too, so the model does not see the very same.
    assert np.count_nonzero(found != expected) <= 0.1 * np.count_nonzero(expected)
    np.testing.assert_allclose(
        np.argwhere(found).mean(axis=0), np.argwhere(expected).mean(axis=0), atol=0.3
    )


def test_next_export_is_the_next_version(trained_run, model_dir, tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "notes").mkdir()
    assert export(ExportConfig(run=trained_run, out=tmp_path)) == tmp_path / "8"
    assert {entry.name for entry in tmp_path.iterdir()} == {"7", "8", "notes"}


def test_number_that_tensorflow_serving_cannot_count_to_is_no_version(tmp_path):
    (tmp_path / "3").mkdir()
    (tmp_path / "99999999999999999999").mkdir()
    assert export_module._next_version(tmp_path) == 4


def test_recipe_travels_with_the_model(model_dir):
    config = json.loads((model_dir / "1" / "assets.extra" / "training_config.json").read_text())
    assert config["filters"] == 8


def test_hash_of_the_data_travels_with_the_model(model_dir, dataset):
    told = json.loads((model_dir / "1" / "assets.extra" / "provenance.json").read_text())
    assert told["data_sha256"] == DatasetManifest.load(dataset).data_sha256()


def test_model_brings_requests_to_warm_up_with(model_dir):
    records = tf.data.TFRecordDataset(str(model_dir / "1" / PATH))
    requests = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        for record in records
    ]
    asked = {(each.model_spec.signature_name, tuple(each.output_filter)) for each in requests}
    for signature in SIGNATURES:
        assert (signature.name, ()) in asked
        if len(signature.outputs) > 1:
            # As clients ask: a session has to prepare itself for each set of outputs.
            assert {(signature.name, (output.key,)) for output in signature.outputs} <= asked
    batches = [
        each.inputs[key].tensor_shape.dim[0].size for each in requests for key in each.inputs
    ]
    assert sorted(set(batches)) == [1, 2, 4]


def test_model_may_bring_no_requests(trained_run, tmp_path):
    export(ExportConfig(run=trained_run, out=tmp_path, warm_up_batches=[]))
    assert not (tmp_path / "1" / PATH).exists()


def test_batch_of_nothing_is_refused(trained_run, tmp_path):
    with pytest.raises(ValueError, match="--warm-up-batches is 1 0; expected numbers from 1 to"):
        ExportConfig(run=trained_run, out=tmp_path, warm_up_batches=[1, 0])


def test_model_that_answers_differently_is_not_published(trained_run, tmp_path, monkeypatch):
    real = ServedModel.save

    def save_other_weights(served, folder):
        kernel = served._model.get_layer("logits").kernel
        before = kernel.numpy()
        kernel.assign(before + 0.1)
        real(served, folder)
        kernel.assign(before)

    monkeypatch.setattr(ServedModel, "save", save_other_weights)
    with pytest.raises(ValueError, match="probabilities differ from the trained model's by up to"):
        export(ExportConfig(run=trained_run, out=tmp_path / "model"))
    assert list((tmp_path / "model").iterdir()) == []


def test_model_that_a_session_cannot_run_is_not_published(trained_run, tmp_path, monkeypatch):
    def save_with_wrapped_variables(served, folder):
        module = tf.Module()
        module.layers = list(served._model._flatten_layers(include_self=False))
        segment = tf.function(served.segment, [export_module._tensor_spec(export_module.IMAGE)])
        encoded = tf.function(
            served.segment_encoded, [export_module._tensor_spec(export_module.IMAGE_BYTES)]
        )
        signatures = {"serving_default": segment, "encoded": encoded}
        tf.saved_model.save(module, str(folder), signatures=signatures)

    monkeypatch.setattr(ServedModel, "save", save_with_wrapped_variables)
    with pytest.raises(tf.errors.FailedPreconditionError, match="Could not find variable"):
        export(ExportConfig(run=trained_run, out=tmp_path / "model"))
    assert list((tmp_path / "model").iterdir()) == []


def test_signature_with_another_mask_is_not_published(trained_run, tmp_path, monkeypatch):
    monkeypatch.setattr(
        export_module, "_encode_mask", lambda pair: tf.io.encode_png(tf.ones([40, 40, 1], tf.uint8))
    )
    with pytest.raises(ValueError, match="are not the thresholded probability: not published"):
        export(ExportConfig(run=trained_run, out=tmp_path / "model"))
    assert list((tmp_path / "model").iterdir()) == []


def test_bfloat16_is_exported_with_its_dice_beside_that_of_float32(trained_run, tmp_path, caplog):
    caplog.set_level("INFO")
    export(ExportConfig(run=trained_run, out=tmp_path))
    reduced = export(ExportConfig(run=trained_run, out=tmp_path, precision="bfloat16"))
    told = json.loads((reduced / export_module.PROVENANCE).read_text())
    assert told["precision"] == "bfloat16"
    assert told["validation_slices_with_lung"] == 4
    assert told["dice"] == pytest.approx(told["dice_in_float32"], abs=0.002)
    assert f"its Dice is {told['dice']:.4f}, in float32" in caplog.text
    image = tf.constant(np.tile(np.arange(40, dtype=np.uint8), [1, 40, 1])[..., np.newaxis])
    answers = [
        tf.saved_model.load(str(tmp_path / version)).signatures["serving_default"](image=image)
        for version in ("1", "2")
    ]
    exact, rounded = (answer["probability"].numpy() for answer in answers)
    assert 0 < np.abs(exact - rounded).max() < 0.05


def test_bfloat16_that_loses_dice_is_not_published(trained_run, tmp_path, monkeypatch):
    real = export_module._copied

    def copied_badly(*given):
        model = real(*given)
        model.get_layer("logits").bias.assign_add([-4.0])
        return model

    monkeypatch.setattr(export_module, "_copied", copied_badly)
    with pytest.raises(ValueError, match="expected to lose at most 0.002: not published; export"):
        export(ExportConfig(run=trained_run, out=tmp_path / "model", precision="bfloat16"))
    assert list((tmp_path / "model").iterdir()) == []


def test_bfloat16_without_a_slice_to_compare_is_refused():
    with pytest.raises(ValueError, match="a Dice of nan on 0 validation slices with lung"):
        Agreement().check(reduced=True)


def test_other_precisions_are_refused(trained_run, tmp_path):
    with pytest.raises(ValueError, match="--precision is 'float16'; expected one of float32, bf"):
        ExportConfig(run=trained_run, out=tmp_path, precision="float16")
