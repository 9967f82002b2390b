import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from trainer.evaluation.config import EvaluationConfig
from trainer.evaluation.models import load_measured_model

OUT = Path("out")
DATA = Path("data")


def load(model: Path):
    return load_measured_model(EvaluationConfig(model=model, data=DATA, out=OUT))


def test_highest_version_of_a_model_is_measured(saved_model, tmp_path):
    for version in ("2", "10", "notes"):
        shutil.copytree(saved_model / "7", tmp_path / version)
    (tmp_path / "99").mkdir()  # an export that was stopped
    assert load(tmp_path).path == tmp_path / "10"
    assert load(tmp_path / "2").path == tmp_path / "2"


def test_saved_model_gives_probabilities_and_no_loss(saved_model):
    model = load(saved_model)
    image = np.array([[[[80], [190]], [[20], [119]]]], np.uint8)
    probability, loss = model.predict(tf.constant(image), tf.constant(image))
    assert probability.numpy()[0, :, :, 0].tolist() == [[1, 0], [0, 1]]
    assert np.isnan(loss).tolist() == [True]
    assert (model.flag, model.config) == ("model", None)


def test_folder_without_a_saved_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"--model .* holds no saved_model.pb, nor a numbered"):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"--model .*/gone does not exist, so there is no saved_"):
        load(tmp_path / "gone")


def test_damaged_saved_model_is_named(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"the SavedModel .* cannot be loaded \(.*\); copy it"):
        load(tmp_path)


def test_saved_model_of_somebody_else_is_refused(tmp_path):
    module = tf.Module()
    module.f = tf.function(lambda x: {"y": x}, input_signature=[tf.TensorSpec([], tf.float32)])
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.f})
    with pytest.raises(
        ValueError, match="has no signature serving_default that gives probability; expected"
    ):
        load(tmp_path)


def test_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no training run"):
        load_measured_model(EvaluationConfig(run=tmp_path, out=OUT))
