import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.augmentation.draws_of import config_of, only
from trainer.augmentation.augment import augment
from trainer.augmentation.config import AugmentationConfig
from trainer.augmentation.draws import draw_augmentation
from trainer.config import AUGMENTATION

SIZE = 64
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, [12, SIZE, SIZE, 1], np.uint8)
MASKS = np.zeros([12, SIZE, SIZE, 1], np.uint8)
MASKS[:10, 20:44, 10:54] = 1
HARSH = AugmentationConfig(**{**AUGMENTATION, "invert": 0.5})


def of_slices(draws, which):
    return {name: value[which] for name, value in draws.items()}


def test_neutral_draws_change_nothing():
    image, mask = augment(HARSH, image=IMAGES, mask=MASKS, draws=only(12))
    np.testing.assert_allclose(image, IMAGES, atol=1e-3)
    assert np.array_equal(mask, MASKS)


def test_all_kinds_together_give_gray_values_and_binary_masks():
    draws = draw_augmentation(HARSH, num_slices=12, seed=tf.constant([5, 0]))
    image, mask = augment(HARSH, image=IMAGES, mask=MASKS, draws=draws)
    assert image.dtype == tf.float32
    assert image.shape == mask.shape == IMAGES.shape
    assert np.isfinite(image).all()
    assert 0 <= np.min(image) <= np.max(image) <= 255
    assert set(np.unique(mask)) == {0, 1}
    assert not np.any(mask[10:])  # no lung comes from nowhere


def test_slice_does_not_depend_on_those_beside_it():
    draws = draw_augmentation(HARSH, num_slices=12, seed=tf.constant([6, 0]))
    image, mask = augment(HARSH, image=IMAGES, mask=MASKS, draws=draws)
    for part in (slice(0, 5), slice(5, 6), slice(6, 12)):
        image_of_part, mask_of_part = augment(
            HARSH, image=IMAGES[part], mask=MASKS[part], draws=of_slices(draws, part)
        )
        np.testing.assert_allclose(image_of_part, image[part], atol=2e-3)
        assert np.array_equal(mask_of_part, mask[part])


def test_same_inside_of_a_graph():
    draws = draw_augmentation(HARSH, num_slices=12, seed=tf.constant([7, 0]))
    in_graph = tf.function(lambda draws: augment(HARSH, image=IMAGES, mask=MASKS, draws=draws))
    image, mask = augment(HARSH, image=IMAGES, mask=MASKS, draws=draws)
    graph_image, graph_mask = in_graph(draws)
    np.testing.assert_allclose(graph_image, image, atol=2e-3)
    assert np.array_equal(graph_mask, mask)


@pytest.mark.parametrize("name", sorted(AUGMENTATION))
def test_each_kind_alone_changes_slices(name):
    config = config_of(**{name: AUGMENTATION[name]})
    images, masks = np.tile(IMAGES, [4, 1, 1, 1]), np.tile(MASKS, [4, 1, 1, 1])
    draws = draw_augmentation(config, num_slices=48, seed=tf.constant([8, 0]))
    image, _ = augment(config, image=images, mask=masks, draws=draws)
    assert np.abs(image - images).max() > 1
