"""Accuracy, Dice, IoU, precision, sensitivity and specificity, as sums of counts.

Counts add up across batches and replicas, ratios do not, so every metric is kept as a row of totals
until the very end. The choice for slices without lung: docs/decisions/0003-empty-masks.md.
"""

import math
from collections.abc import Sequence

import tensorflow as tf

TOTALS = (
    "loss_sum",
    "num_slices",
    "num_pixels",
    "num_correct",
    "intersection",
    "mask_area",
    "predicted_area",
    "dice_sum",
    "iou_sum",
)
"""Names of the entries of a row of totals."""


def slice_totals(
    *, mask: tf.Tensor, probability: tf.Tensor, loss: tf.Tensor, threshold: float
) -> tf.Tensor:
    """Counts, for each slice, all that the metrics are made of.

    Args:
        mask: [batch, height, width, 1] in {0, 1}; 1 is lung.
        probability: same shape, float32 in [0, 1].
        loss: [batch], loss of each slice.
        threshold: a pixel whose probability is at or above it is lung.

    Returns:
        [batch, len(TOTALS)] float64; areas are in pixels.

    Raises:
        ValueError: if the shapes of mask and probability differ.

    Source: Dice, Ecology 26(3), 1945; Jaccard, New Phytologist 11(2), 1912.
    """
    mask.shape.assert_is_compatible_with(probability.shape)
    lung = tf.cast(mask, tf.bool)
    predicted = probability >= threshold
    intersection = _count(lung & predicted)
    mask_area = _count(lung)
    predicted_area = _count(predicted)
    union = mask_area + predicted_area - intersection
    return tf.stack(
        [
            tf.cast(loss, tf.float64),
            tf.ones_like(union),
            _count(tf.ones_like(lung)),
            _count(tf.equal(lung, predicted)),
            intersection,
            mask_area,
            predicted_area,
            _ratio_or_one(2 * intersection, mask_area + predicted_area),
            _ratio_or_one(intersection, union),
        ],
        axis=1,
    )


def summarize(totals: Sequence[float]) -> dict[str, float]:
    """Makes metrics out of a row of totals.

    Args:
        totals: sums over any number of slices, in the order of ``TOTALS``.

    Returns:
        ``loss`` and ``accuracy``; ``dice_pooled`` and ``iou_pooled``, one ratio over all pixels;
        ``dice_per_slice_mean`` and ``iou_per_slice_mean``; and over all pixels ``precision`` (the
        share of predicted lung that is lung), ``sensitivity`` (of lung that is predicted) and
        ``specificity`` (of background that is predicted background). NaN where there was no slice.

        A share of no pixels at all, 0/0, is 1 where the two masks agree wholly, and 0 otherwise, as
        Dice is: a model that marks nothing has precision 0 where there is lung, and 1 where there
        is none. So ``dice_pooled`` is the harmonic mean of precision and sensitivity always.
    """
    total = dict(zip(TOTALS, (float(value) for value in totals), strict=True))
    num_slices = total["num_slices"]
    if not num_slices:
        return dict.fromkeys(METRICS, math.nan)
    areas = total["mask_area"] + total["predicted_area"]
    union = areas - total["intersection"]
    background = total["num_pixels"] - total["mask_area"]
    true_background = total["num_pixels"] - union
    where_undefined = 1.0 if total["num_correct"] == total["num_pixels"] else 0.0

    def share(part: float, whole: float) -> float:
        return part / whole if whole else where_undefined

    return {
        "loss": total["loss_sum"] / num_slices,
        "accuracy": total["num_correct"] / total["num_pixels"],
        "dice_pooled": share(2 * total["intersection"], areas),
        "iou_pooled": share(total["intersection"], union),
        "dice_per_slice_mean": total["dice_sum"] / num_slices,
        "iou_per_slice_mean": total["iou_sum"] / num_slices,
        "precision": share(total["intersection"], total["predicted_area"]),
        "sensitivity": share(total["intersection"], total["mask_area"]),
        "specificity": share(true_background, background),
    }


METRICS = (
    "loss",
    "accuracy",
    "dice_pooled",
    "iou_pooled",
    "dice_per_slice_mean",
    "iou_per_slice_mean",
    "precision",
    "sensitivity",
    "specificity",
)
"""Keys of what ``summarize`` gives."""


def _count(pixels: tf.Tensor) -> tf.Tensor:
    """Counts true pixels: bool [batch, height, width, 1] -> float64 [batch], exact."""
    return tf.cast(tf.reduce_sum(tf.cast(pixels, tf.int32), axis=[1, 2, 3]), tf.float64)


def _ratio_or_one(numerator: tf.Tensor, denominator: tf.Tensor) -> tf.Tensor:
    """Divides; where there is no lung in either mask, they agree wholly: 1."""
    return tf.where(denominator > 0, numerator / tf.maximum(denominator, 1.0), 1.0)
