import numpy as np
import pytest
import tensorflow as tf

from trainer.losses import (
    LUNG_SMOOTHING,
    MISSED_LUNG_WEIGHT,
    NO_LUNG_SMOOTHING,
    binary_cross_entropy,
    dice_loss,
    loss_of_slices,
    missed_lung,
)

MASK = tf.constant([1, 1, 0, 0], tf.uint8, [1, 2, 2, 1])


def logits(*values: float) -> tf.Tensor:
    return tf.constant(values, tf.float32, [1, 2, 2, 1])


def test_cross_entropy_of_an_undecided_model_is_log_2():
    loss = binary_cross_entropy(mask=MASK, logits=logits(0, 0, 0, 0))
    np.testing.assert_allclose(loss, [np.log(2)], rtol=1e-6)


def test_dice_loss_is_one_minus_soft_dice_with_a_share_of_the_slice_as_smoothing():
    # Probability 1/2 everywhere: both 1, areas 2 + 2, and 4 pixels.
    smoothing = 4 * LUNG_SMOOTHING
    expected = 1 - (2 + smoothing) / (4 + smoothing)
    found = dice_loss(mask=MASK, logits=logits(0, 0, 0, 0))
    np.testing.assert_allclose(found, [expected], rtol=1e-6)


def test_dice_loss_of_the_right_mask_is_nothing_and_of_the_wrong_one_nearly_one():
    right, wrong = logits(99, 99, -99, -99), logits(-99, -99, 99, 99)
    np.testing.assert_allclose(dice_loss(mask=MASK, logits=right), [0], atol=1e-6)
    np.testing.assert_allclose(dice_loss(mask=MASK, logits=wrong), [1], atol=1e-3)


def test_dice_loss_of_two_empty_masks_is_nothing():
    empty = tf.zeros_like(MASK)
    np.testing.assert_allclose(dice_loss(mask=empty, logits=logits(*[-99] * 4)), [0], atol=1e-6)


def test_false_lung_of_the_size_of_a_small_lung_is_half_lost_at_any_size_of_the_model():
    for size in (100, 200):
        num_false = round(NO_LUNG_SMOOTHING * size**2)
        false = np.full(size**2, -99, np.float32)
        false[:num_false] = 99
        shape = [1, size, size, 1]
        loss = dice_loss(mask=tf.zeros(shape, tf.uint8), logits=tf.constant(false, shape=shape))
        np.testing.assert_allclose(loss, [0.5], rtol=1e-5)


def test_each_slice_has_a_dice_loss_of_its_own():
    masks = tf.concat([MASK, tf.zeros_like(MASK)], axis=0)
    both = tf.concat([logits(99, 99, -99, -99), logits(99, 99, 99, 99)], axis=0)
    smoothing = 4 * NO_LUNG_SMOOTHING
    expected = [0, 4 / (4 + smoothing)]
    np.testing.assert_allclose(dice_loss(mask=masks, logits=both), expected, atol=1e-6)


def test_missed_lung_is_cross_entropy_over_the_lung():
    values = logits(0, 0, 9, -9)
    np.testing.assert_allclose(missed_lung(mask=MASK, logits=values), [np.log(2)], rtol=1e-6)
    empty = tf.zeros_like(MASK)
    np.testing.assert_allclose(missed_lung(mask=empty, logits=values), [0])


def test_small_lung_that_is_not_seen_has_a_gradient():
    mask = np.zeros([1, 100, 100, 1], np.uint8)
    mask[0, :3, :3] = 1
    values = tf.Variable(tf.fill([1, 100, 100, 1], -9.0))
    slopes = []
    for name in ("bce", "bce_dice"):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(loss_of_slices(name, mask=tf.constant(mask), logits=values))
        slopes.append(-float(tape.gradient(loss, values)[0, 0, 0, 0]))
    assert slopes[1] > 50 * slopes[0] > 0


def test_loss_of_a_run_is_the_one_that_is_named():
    values = logits(1, -2, 3, 0.5)
    bce = binary_cross_entropy(mask=MASK, logits=values)
    both = bce + dice_loss(mask=MASK, logits=values)
    both += MISSED_LUNG_WEIGHT * missed_lung(mask=MASK, logits=values)
    assert np.array_equal(loss_of_slices("bce", mask=MASK, logits=values), bce)
    assert np.array_equal(loss_of_slices("bce_dice", mask=MASK, logits=values), both)


@pytest.mark.parametrize("loss", [binary_cross_entropy, dice_loss, missed_lung])
def test_shapes_that_differ_are_refused(loss):
    with pytest.raises(ValueError, match="incompatible"):
        loss(mask=MASK, logits=tf.zeros([1, 2, 3, 1]))
