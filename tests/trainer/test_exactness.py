"""The same result on one replica, on several, and on two processes; in one part and in several."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from preprocessing.manifest import DatasetManifest
from tests.trainer.runs import Workers, history_of, latest_arrays
from trainer import train
from trainer.checkpoints import model_of
from trainer.config import TrainerConfig
from trainer.distribution import place
from trainer.export import ExportConfig, export
from trainer.history import COLUMNS
from trainer.input_pipeline import SplitReader, read_examples
from trainer.metrics import TOTALS
from trainer.resizing import resize_image, restore_probability
from trainer.run_folder import load_best_model
from trainer.steps import make_validation_steps
from trainer.train import run

# Of the 10 slices, a batch of 6 leaves 4, one of 5 none, one of 4 leaves 2: over 2 replicas 6
# divides evenly and 5 does not; over 3 the last batch of 2 leaves one of them empty.
BATCHES = {6: 5, 5: 5, 4: 4}
"""Epochs by size of the global batch, so that there are 10 steps at least."""

PAIRWISE = [
    *((2, 6, "none"), (3, 6, "instance"), (2, 5, "instance")),
    *((3, 5, "none"), (2, 4, "none"), (3, 4, "instance")),
]
"""Replicas, global batch and normalization: each value of each with each of the others."""

RATES = {"none": 1e-3, "instance": 4e-5}
"""Adam divides a gradient by its own size, so the rounding of a tiny one becomes part of a step;
with a normalization behind it, a convolution has many such. The moments of the gradient, which are
compared too, do not depend on the rate so."""


def trained(config: TrainerConfig) -> tuple[dict[str, np.ndarray], list[list[float]]]:
    """Gives the weights after all epochs, and the rows of the history."""
    run(config)
    return latest_arrays(config.out), history_of(config.out)


@pytest.fixture(scope="module")
def alone(dataset, tmp_path_factory):
    """Gives what one replica comes to, and keeps it."""
    found: dict[tuple, tuple] = {}

    def train_alone(config: TrainerConfig):
        key = tuple(value for name, value in vars(config).items() if name != "out")
        if key not in found:
            out = tmp_path_factory.mktemp("alone") / "run"
            found[key] = trained(replace(config, out=out, devices="cpu"))
        return found[key]

    return train_alone


def assert_same(result, expected, *, with_counts: bool = True, share: float = 1e-3):
    (weights, rows), (weights_alone, rows_alone) = result, expected
    assert weights.keys() == weights_alone.keys()
    for name, value in weights_alone.items():
        np.testing.assert_allclose(weights[name], value, atol=1e-5, err_msg=name)
        if "first_moment" in name:  # of the gradient: free of what Adam makes of its rounding
            difference = np.abs(weights[name] - value).max()
            assert difference <= share * np.abs(value).max(), name
    found, expected_rows = np.array(rows), np.array(rows_alone)
    losses = [COLUMNS.index("train_loss"), COLUMNS.index("validation_loss")]
    np.testing.assert_allclose(found[:, losses], expected_rows[:, losses], rtol=1e-4)
    if with_counts:
        # A pixel whose probability is the threshold may fall to either side: two of 5,120. Counts
        # of the same weights are compared exactly, in a test of its own.
        np.testing.assert_allclose(found, expected_rows, rtol=1e-4, atol=4e-4)


@pytest.mark.parametrize(("num_replicas", "global_batch_size", "normalization"), PAIRWISE)
def test_counts_of_the_same_weights_are_equal_on_any_number_of_replicas(
    config, num_replicas, global_batch_size, normalization
):
    config = replace(config, global_batch_size=global_batch_size, normalization=normalization)
    totals = [measure(config, count) for count in (1, num_replicas)]
    counts = [name for name in TOTALS if name not in ("loss_sum", "dice_sum", "iou_sum")]
    for name, alone, together in zip(TOTALS, *totals, strict=True):
        assert together == alone if name in counts else together == pytest.approx(alone, rel=1e-6)
    assert totals[1][TOTALS.index("num_slices")] == 5  # padding is not counted
    assert totals[1][TOTALS.index("num_pixels")] == 5 * 32 * 32


def measure(config: TrainerConfig, num_replicas: int) -> list[float]:
    """Gives the totals of the validation split, with the initial weights."""
    placement = place(f"cpu:{num_replicas}")
    with placement.scope():
        model = model_of(config)
    manifest = DatasetManifest.load(config.data)
    reader = SplitReader(config, manifest, "validation", num_replicas=num_replicas)
    steps = make_validation_steps(config, placement, model)
    batches = iter(reader.evaluation_batches())
    start = tf.zeros([len(TOTALS)], tf.float64)
    return steps(batches, tf.constant(reader.steps), start)[0].numpy().tolist()


@pytest.mark.parametrize(("num_replicas", "global_batch_size", "normalization"), PAIRWISE)
def test_result_does_not_depend_on_the_number_of_replicas(
    config, alone, num_replicas, global_batch_size, normalization, no_pictures
):
    config = replace(
        config,
        global_batch_size=global_batch_size,
        epochs=BATCHES[global_batch_size],
        learning_rate=RATES[normalization],
        normalization=normalization,
    )
    result = trained(replace(config, devices=f"cpu:{num_replicas}"))
    # Where every channel is stretched, many pixels lie at the threshold.
    assert_same(result, alone(config), with_counts=normalization == "none")


@pytest.mark.parametrize("settings", [{"clip_norm": 0.1}, {"ema_decay": 0.9}, {"loss": "bce_dice"}])
def test_clipping_averages_and_losses_are_those_of_the_global_batch(
    config, alone, settings, no_pictures
):
    config = replace(config, epochs=4, learning_rate=1e-3, noise=5.0, magnify=0.2, **settings)
    assert_same(trained(replace(config, devices="cpu:3")), alone(config))


@pytest.mark.parametrize("parts", [2, 3])
def test_result_does_not_depend_on_the_number_of_parts(config, alone, parts, no_pictures):
    config = replace(config, epochs=4, learning_rate=RATES["instance"], normalization="instance")
    for devices in ("cpu", "cpu:2"):
        out = config.out / devices
        split = replace(config, accumulation_steps=parts, devices=devices, out=out)
        assert_same(trained(split), alone(config))


def test_compiled_gradient_is_the_same_on_several_replicas(config, alone, no_pictures):
    # XLA sums in another order and contracts products: its rounding is larger than TensorFlow's.
    config = replace(config, epochs=4, learning_rate=RATES["instance"], normalization="instance")
    assert_same(trained(replace(config, devices="cpu:2", xla=True)), alone(config), share=5e-3)


def test_number_of_steps_in_a_call_changes_nothing(config, alone, monkeypatch, no_pictures):
    config = replace(config, epochs=4, learning_rate=1e-3)
    monkeypatch.setattr(train, "SECONDS_IN_A_CALL", 0.0)  # one step in each call
    weights, rows = trained(config)
    assert rows == alone(config)[1]
    for name, value in alone(config)[0].items():
        assert np.array_equal(weights[name], value), name


@pytest.mark.slow
@pytest.mark.parametrize(("global_batch_size", "share"), [(6, 3), (5, 3), (3, 2)])
def test_result_does_not_depend_on_the_number_of_processes(
    config, alone, global_batch_size, share, no_pictures
):
    # Over two workers 6 divides evenly, 5 does not, and the last batch of 3 leaves one empty.
    config = replace(
        config,
        epochs=5,
        learning_rate=RATES["instance"],
        normalization="instance",
        global_batch_size=global_batch_size,
    )
    with Workers(replace(config, devices="cpu")) as workers:
        ended = workers.end()
    assert [code for code, _ in ended] == [0, 0], ended
    line = f"global batch {global_batch_size} = 2 workers x 1 replicas x {share} slices"
    assert line in ended[0][1]
    result = latest_arrays(config.out), history_of(config.out)
    assert_same(result, alone(config), with_counts=False)
    assert (config.out / "MODEL_CARD.md").exists()  # the chief went on to the end


def test_replicas_stay_equal_and_the_saved_model_normalizes_as_they_do(
    config, dataset, tmp_path, monkeypatch
):
    models = []

    def build(config: TrainerConfig):
        models.append(model_of(config))
        return models[-1]

    monkeypatch.setattr(train, "model_of", build)
    config = replace(config, normalization="instance", devices="cpu:3", epochs=3)
    run(config)
    for weight in models[0].weights:
        first, *others = (each.numpy() for each in weight.value.values)
        assert len(others) == 2
        for other in others:
            assert np.array_equal(first, other), weight.path

    version = export(ExportConfig(run=config.out, out=tmp_path / "model"))
    served = tf.saved_model.load(str(version)).signatures["serving_default"]
    best = load_best_model(config.out)[1]
    for example in read_examples(dataset, DatasetManifest.load(dataset), "validation"):
        image = resize_image(example["image"][tf.newaxis], config.image_size)
        logits = best(tf.cast(image, tf.float32), training=True)  # as a replica computes it
        probability = restore_probability(tf.sigmoid(logits), height=32, width=32)
        np.testing.assert_allclose(served(image=image)["probability"], probability, atol=1e-4)
