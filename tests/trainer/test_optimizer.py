from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.config import TrainerConfig
from trainer.distribution import place
from trainer.optimizer import FIRST_LOSS_SCALE, STEPS_TO_DOUBLE, Optimizer


def make(*, num_averages: int = 0, steps_per_epoch: int = 10, **settings: object):
    """Gives an optimizer of two variables, them, and the averages."""
    config = TrainerConfig(data=Path("d"), out=Path("o"), **settings)
    variables = [tf.Variable([1.0, -2.0]), tf.Variable([[3.0]])]
    averages = [tf.Variable(each) for each in variables[:num_averages]]
    optimizer = Optimizer(config, variables, averages, steps_per_epoch=steps_per_epoch)
    return optimizer, variables, averages


def apply(optimizer: Optimizer, *gradients) -> None:
    strategy = place("cpu").strategy
    tensors = [tf.constant(each, tf.float32) for each in gradients]
    strategy.run(optimizer.apply, args=(tensors,))


def rates(steps: list[int], **settings: object) -> list[float]:
    optimizer, _, _ = make(**settings)
    return [float(optimizer.learning_rate(tf.constant(step))) for step in steps]


def test_adam_is_that_of_keras():
    optimizer, variables, _ = make(learning_rate=0.01)
    theirs = [keras.Variable(each.numpy()) for each in variables]
    adam = keras.optimizers.Adam(0.01)
    rng = np.random.default_rng(0)
    for _ in range(10):
        gradients = [rng.normal(size=[2]).astype("f4"), rng.normal(size=[1, 1]).astype("f4")]
        apply(optimizer, *gradients)
        adam.apply([tf.constant(each) for each in gradients], theirs)
    for mine, other in zip(variables, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-6)
    assert int(optimizer.step) == 10


def test_gradient_is_scaled_down_to_the_largest_norm():
    # Norm 5, of which 1 is left: the moments hold a tenth and a thousandth of that.
    optimizer, _, _ = make(clip_norm=1.0)
    apply(optimizer, [3.0, 0.0], [[4.0]])
    np.testing.assert_allclose(optimizer.first_moments[0], [0.06, 0.0], rtol=1e-5)
    np.testing.assert_allclose(optimizer.first_moments[1], [[0.08]], rtol=1e-5)


def test_smaller_gradient_is_left_as_it_is():
    optimizer, _, _ = make(clip_norm=10.0)
    apply(optimizer, [3.0, 0.0], [[4.0]])
    np.testing.assert_allclose(optimizer.first_moments[0], [0.3, 0.0], rtol=1e-5)


def test_constant_rate_stays():
    assert rates([0, 5, 499], learning_rate=0.5) == [0.5] * 3


def test_rate_rises_in_the_warm_up_from_a_step_that_counts():
    settings = {"learning_rate": 1.0, "warmup_epochs": 1.0, "steps_per_epoch": 4}
    assert rates([0, 1, 2, 3, 4, 9], **settings) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_cosine_falls_from_the_highest_rate_to_nothing_at_the_end():
    settings = {"learning_rate": 1.0, "schedule": "cosine", "epochs": 8, "steps_per_epoch": 1}
    found = rates([0, 2, 4, 6, 8], **settings)
    np.testing.assert_allclose(found, [1, 0.853553, 0.5, 0.146447, 0], atol=1e-6)


def test_cosine_begins_after_the_warm_up():
    found = rates(
        [0, 1, 2, 5, 8],
        learning_rate=1.0,
        schedule="cosine",
        warmup_epochs=2.0,
        epochs=8,
        steps_per_epoch=1,
    )
    np.testing.assert_allclose(found, [0.5, 1, 1, 0.5, 0], atol=1e-6)


def test_cosine_by_size_counts_coarse_epochs_by_their_size():
    found = rates(
        [0, 1, 2, 4, 5, 6],
        learning_rate=1.0,
        schedule="cosine_by_size",
        warmup_epochs=1.0,
        epochs=6,
        coarse_share=0.7,  # 4 epochs: two at a quarter of the size, two at half of it
        image_size=128,
        steps_per_epoch=1,
    )
    # After the warm-up epochs of 1/4, 1/2, 1/2, 1 and 1 are left: 3.25 in all.
    left = np.array([3.25, 3.25, 3, 2, 1, 0]) / 3.25
    np.testing.assert_allclose(found, 0.5 - 0.5 * np.cos(np.pi * left), atol=1e-6)


def test_average_follows_the_weights_faster_at_first():
    optimizer, variables, averages = make(num_averages=2, ema_decay=0.9)
    start = variables[0].numpy()
    apply(optimizer, [1.0, 1.0], [[1.0]])
    after_one = variables[0].numpy()
    # The decay of the first step is 1/11.
    np.testing.assert_allclose(averages[0], start / 11 + after_one * 10 / 11, rtol=1e-6)


def test_average_has_the_decay_that_was_asked_for_later():
    optimizer, variables, averages = make(num_averages=2, ema_decay=0.5)
    optimizer.step.assign(100)
    before = averages[0].numpy()
    apply(optimizer, [1.0, 1.0], [[1.0]])
    np.testing.assert_allclose(averages[0], 0.5 * before + 0.5 * variables[0].numpy(), rtol=1e-6)


def test_gradient_that_is_not_finite_is_left_out_and_halves_the_scale():
    optimizer, variables, _ = make(precision="float16")
    before = variables[0].numpy()
    apply(optimizer, [np.inf, 1.0], [[1.0]])
    assert np.array_equal(variables[0], before)
    assert int(optimizer.step) == 0
    assert float(optimizer.loss_scale) == FIRST_LOSS_SCALE / 2


def test_scale_of_the_loss_is_taken_out_of_the_gradient():
    scaled, variables, _ = make(precision="float16")
    apply(scaled, [3 * FIRST_LOSS_SCALE, 0.0], [[4 * FIRST_LOSS_SCALE]])
    np.testing.assert_allclose(scaled.first_moments[0], [0.3, 0.0], rtol=1e-5)
    assert int(scaled.good_steps) == 1


def test_scale_doubles_after_many_good_steps():
    optimizer, _, _ = make(precision="float16")
    optimizer.good_steps.assign(STEPS_TO_DOUBLE - 1)
    apply(optimizer, [1.0, 1.0], [[1.0]])
    assert float(optimizer.loss_scale) == 2 * FIRST_LOSS_SCALE
    assert int(optimizer.good_steps) == 0


def test_state_has_all_that_changes():
    optimizer, variables, _ = make(precision="float16")
    assert len(optimizer.state) == 3 + 2 * len(variables)
    assert "optimizer/loss_scale" not in make()[0].state
    with pytest.raises(KeyError):
        make()[0].state["optimizer/good_steps"]
