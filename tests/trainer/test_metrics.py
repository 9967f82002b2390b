import math

import numpy as np
import pytest
import tensorflow as tf

from trainer.losses import binary_cross_entropy
from trainer.metrics import METRICS, TOTALS, slice_totals, summarize

MASK = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
PREDICTED = [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
EMPTY = np.zeros([4, 4])
FULL = np.ones([4, 4])


def totals_of(*pairs: tuple[object, object], threshold: float = 0.5) -> np.ndarray:
    masks = np.array([pair[0] for pair in pairs], np.uint8)[..., np.newaxis]
    probabilities = np.array([pair[1] for pair in pairs], np.float32)[..., np.newaxis]
    return slice_totals(
        mask=tf.constant(masks),
        probability=tf.constant(probabilities),
        loss=tf.ones([len(pairs)]),
        threshold=threshold,
    ).numpy()


def test_totals_of_a_slice_counted_by_hand():
    row = dict(zip(TOTALS, totals_of((MASK, PREDICTED))[0], strict=True))
    assert row["intersection"] == 2
    assert row["mask_area"] == 4
    assert row["predicted_area"] == 5
    assert row["num_correct"] == 16 - 2 - 3
    assert row["dice_sum"] == pytest.approx(2 * 2 / (4 + 5))
    assert row["iou_sum"] == pytest.approx(2 / 7)


def test_slice_without_lung_counts_one_when_none_is_predicted():
    row = summarize(totals_of((EMPTY, EMPTY))[0].tolist())
    assert row["dice_per_slice_mean"] == row["iou_per_slice_mean"] == 1
    assert row["dice_pooled"] == row["iou_pooled"] == row["accuracy"] == 1


def test_slice_without_lung_counts_zero_when_some_is_predicted():
    assert totals_of((EMPTY, PREDICTED))[0][TOTALS.index("dice_sum")] == 0


def test_full_mask_agrees_with_itself():
    assert totals_of((FULL, FULL))[0][TOTALS.index("iou_sum")] == 1


def test_pixel_at_the_threshold_is_lung():
    row = totals_of((FULL, np.full([4, 4], 0.25)), threshold=0.25)[0]
    assert row[TOTALS.index("predicted_area")] == 16


def test_shares_of_lung_and_background_counted_by_hand():
    metrics = summarize(totals_of((MASK, PREDICTED))[0].tolist())
    assert metrics["precision"] == pytest.approx(2 / 5)
    assert metrics["sensitivity"] == pytest.approx(2 / 4)
    assert metrics["specificity"] == pytest.approx(9 / 12)


def test_shares_are_pooled_over_all_slices():
    metrics = summarize(totals_of((MASK, PREDICTED), (EMPTY, PREDICTED)).sum(axis=0).tolist())
    assert metrics["precision"] == pytest.approx(2 / 10)
    assert metrics["sensitivity"] == pytest.approx(2 / 4)
    assert metrics["specificity"] == pytest.approx((9 + 11) / (12 + 16))


@pytest.mark.parametrize(
    ("mask", "predicted", "precision", "sensitivity", "specificity"),
    [
        (EMPTY, EMPTY, 1, 1, 1),  # 0/0 twice, and the masks agree wholly
        (FULL, FULL, 1, 1, 1),
        (EMPTY, PREDICTED, 0, 0, 11 / 16),  # sensitivity is 0/0, and the masks do not agree
        (MASK, EMPTY, 0, 0, 1),  # precision is 0/0
        (FULL, PREDICTED, 1, 5 / 16, 0),  # specificity is 0/0
    ],
)
def test_share_of_nothing_is_one_only_where_the_masks_agree(
    mask, predicted, precision, sensitivity, specificity
):
    metrics = summarize(totals_of((mask, predicted))[0].tolist())
    found = [metrics[name] for name in ("precision", "sensitivity", "specificity")]
    assert found == pytest.approx([precision, sensitivity, specificity])


@pytest.mark.parametrize(
    "pair", [(MASK, PREDICTED), (EMPTY, PREDICTED), (MASK, EMPTY), (EMPTY, EMPTY), (FULL, FULL)]
)
def test_dice_is_the_harmonic_mean_of_precision_and_sensitivity(pair):
    metrics = summarize(totals_of(pair)[0].tolist())
    precision, sensitivity = metrics["precision"], metrics["sensitivity"]
    both = precision + sensitivity
    mean = 2 * precision * sensitivity / both if both else 0
    assert metrics["dice_pooled"] == pytest.approx(mean)


def test_pooled_and_per_slice_dice_differ_on_slices_of_unequal_area():
    row = totals_of((MASK, MASK), (EMPTY, PREDICTED)).sum(axis=0).tolist()
    metrics = summarize(row)
    assert metrics["dice_per_slice_mean"] == pytest.approx((1 + 0) / 2)
    assert metrics["dice_pooled"] == pytest.approx(2 * 4 / (4 + 4 + 0 + 5))
    assert metrics["loss"] == 1


def test_summary_of_no_slice_is_nan():
    metrics = summarize([0.0] * len(TOTALS))
    assert set(metrics) == set(METRICS)
    assert all(math.isnan(value) for value in metrics.values())


def test_unequal_shapes_are_refused():
    with pytest.raises(ValueError, match="are incompatible"):
        slice_totals(
            mask=tf.zeros([1, 4, 4, 1]),
            probability=tf.zeros([1, 2, 2, 1]),
            loss=tf.zeros([1]),
            threshold=0.5,
        )


def test_cross_entropy_of_undecided_logits_is_log_two():
    mask = tf.constant(np.array([MASK, EMPTY], np.uint8)[..., np.newaxis])
    loss = binary_cross_entropy(mask=mask, logits=tf.zeros([2, 4, 4, 1]))
    np.testing.assert_allclose(loss, [math.log(2)] * 2, rtol=1e-6)


def test_cross_entropy_averages_each_slice_apart():
    logits = tf.constant([[[[0.0]]], [[[100.0]]]])
    mask = tf.constant([[[[1]]], [[[0]]]], tf.uint8)
    loss = binary_cross_entropy(mask=mask, logits=logits)
    np.testing.assert_allclose(loss, [math.log(2), 100.0], rtol=1e-6)


def test_cross_entropy_refuses_unequal_shapes():
    with pytest.raises(ValueError, match="are incompatible"):
        binary_cross_entropy(mask=tf.zeros([1, 4, 4, 1]), logits=tf.zeros([1, 2, 4, 1]))
