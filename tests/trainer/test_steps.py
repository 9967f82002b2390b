"""One replica against several, on a batch that divides evenly, unevenly, and leaves one empty."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from preprocessing.manifest import DatasetManifest
from trainer.distribution import distribute, mirrored_strategy
from trainer.input_pipeline import SplitReader
from trainer.metrics import TOTALS
from trainer.run_folder import model_of
from trainer.steps import make_training_step, make_validation_step


def train_an_epoch(config, *, num_replicas: int) -> tuple[np.ndarray, np.ndarray]:
    """Gives the weights after an epoch and the totals of a validation pass."""
    strategy = mirrored_strategy(num_replicas)
    manifest = DatasetManifest.load(config.data)
    with strategy.scope():
        model = model_of(config)
        # Adam would turn the smallest difference of a tiny gradient into a whole step.
        optimizer = keras.optimizers.SGD(0.05)
        optimizer.build(model.trainable_variables)
    step = make_training_step(strategy, model, optimizer)
    training = SplitReader(config, manifest, "train", num_replicas=num_replicas)
    for batch in distribute(strategy, training.training_batches(1)):
        step(batch)
    validation = SplitReader(config, manifest, "validation", num_replicas=num_replicas)
    measure = make_validation_step(strategy, model)
    batches = distribute(strategy, validation.evaluation_batches())
    totals = sum(measure(batch).numpy() for batch in batches)
    return np.concatenate([w.numpy().ravel() for w in model.trainable_variables]), totals


@pytest.mark.parametrize("num_replicas", [2, 3])
@pytest.mark.parametrize("global_batch_size", [1, 4, 6])
def test_weights_do_not_depend_on_the_number_of_replicas(config, num_replicas, global_batch_size):
    config = replace(config, global_batch_size=global_batch_size)
    alone, totals_alone = train_an_epoch(config, num_replicas=1)
    together, totals_together = train_an_epoch(config, num_replicas=num_replicas)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(totals_together, totals_alone, rtol=1e-4)


def test_padding_is_not_counted(config):
    _, totals = train_an_epoch(config, num_replicas=2)
    assert totals[TOTALS.index("num_slices")] == 5
    assert totals[TOTALS.index("num_pixels")] == 5 * 32 * 32


def test_training_changes_the_weights(config):
    weights, _ = train_an_epoch(config, num_replicas=2)
    start = np.concatenate([w.numpy().ravel() for w in model_of(config).trainable_variables])
    assert np.abs(weights - start).max() > 1e-3
