import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.model import UNet
from trainer.normalization import InstanceNormalization


def layers_of(model: UNet) -> dict[str, keras.Layer]:
    return {layer.name: layer for layer in model._flatten_layers(include_self=False)}


def test_layers_are_those_of_the_reference_recipe():
    model = UNet(image_size=16, filters=4, depth=1)
    assert list(layers_of(model)) == [
        *("down0_conv1", "down0_relu1", "down0_conv2", "down0_relu2", "pool"),
        *("bottleneck_conv1", "bottleneck_relu1", "bottleneck_conv2", "bottleneck_relu2"),
        *("up0_transpose", "up0_conv1", "up0_relu1", "up0_conv2", "up0_relu2", "logits"),
    ]


def test_normalization_stands_after_each_convolution_of_3x3_and_takes_the_place_of_its_bias():
    model = UNet(image_size=16, filters=4, depth=1, normalization="instance")
    names = list(layers_of(model))
    for name in ("down0", "bottleneck", "up0"):
        for index in (1, 2):
            conv = names.index(f"{name}_conv{index}")
            assert names[conv + 1] == f"{name}_norm{index}"
            assert not layers_of(model)[f"{name}_conv{index}"].use_bias


def test_reference_size_has_31_million_weights():
    assert UNet(image_size=512, filters=64, depth=4).count_params() == 31_030_593


def test_scaling_to_the_unit_range_is_inside_of_the_model():
    model = UNet(image_size=8, filters=2, depth=1)
    seen = []
    first = model.down[0][0]
    first.call = lambda x: seen.append(x) or keras.layers.Conv2D.call(first, x)
    model(tf.constant([0.0, 51.0, 255.0, 0.0] * 16, shape=[1, 8, 8, 1]))
    np.testing.assert_allclose(seen[0][0, 0, :3, 0], [0, 0.2, 1], rtol=1e-6)


def test_skips_lead_to_the_level_that_they_come_from():
    # With all other weights 0, the logit is what the first level made of the image.
    model = UNet(image_size=8, filters=1, depth=1)
    for weight in model.weights:
        weight.assign(tf.zeros(weight.shape))
    for block, channel in ((model.down[0], 0), (model.up[0], 0)):
        for conv in block[::2]:
            kernel = np.zeros(conv.kernel.shape, np.float32)
            kernel[1, 1, channel, 0] = 1
            conv.kernel.assign(kernel)
    model.logits.kernel.assign([[[[1.0]]]])
    image = np.random.default_rng(0).uniform(0, 255, [1, 8, 8, 1]).astype(np.float32)
    np.testing.assert_allclose(model(image), image / 255, rtol=1e-5)


@pytest.mark.parametrize("normalization", ["none", "instance"])
def test_logits_have_the_size_of_the_image(normalization):
    model = UNet(image_size=24, filters=2, depth=3, normalization=normalization)
    assert model(np.zeros([2, 24, 24, 1], np.float32)).shape == (2, 24, 24, 1)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
@pytest.mark.parametrize("normalization", ["none", "instance"])
def test_mixed_precision_computes_in_it_and_gives_float32(name, normalization):
    model = UNet(
        image_size=8, filters=2, depth=1, normalization=normalization, dtype_policy=f"mixed_{name}"
    )
    assert layers_of(model)["bottleneck_conv1"].compute_dtype == name
    assert {weight.dtype for weight in model.weights} == {"float32"}
    for training in (False, True):
        assert model(np.ones([2, 8, 8, 1], np.float32), training=training).dtype == tf.float32


def test_seed_decides_the_initial_weights():
    def weights(seed: int) -> np.ndarray:
        model = UNet(image_size=8, filters=2, depth=1, seed=seed)
        return np.concatenate([weight.numpy().ravel() for weight in model.weights])

    assert np.array_equal(weights(1), weights(1))
    assert not np.array_equal(weights(1), weights(2))


def test_layers_start_with_different_weights():
    layers = layers_of(UNet(image_size=8, filters=4, depth=1))
    first, second = (layers[f"up0_conv{n}"].kernel.numpy() for n in (1, 2))
    assert not np.array_equal(first[:, :, :4], second)


def test_size_that_cannot_be_halved_is_refused():
    with pytest.raises(ValueError, match="image_size is 20; expected a multiple of 8"):
        UNet(image_size=20, filters=2, depth=3)


@pytest.mark.parametrize("training", [False, True])
def test_instance_normalization_takes_mean_and_deviation_of_each_channel_of_each_slice(training):
    rng = np.random.default_rng(1)
    x = rng.normal([[[[3.0, -50.0]]], [[[100.0, 0.0]]]], [[[[2.0, 9.0]]]], [2, 6, 5, 2])
    layer = InstanceNormalization()
    layer.build(x.shape)
    layer.scale.assign([1.0, 2.0])
    layer.offset.assign([0.0, 7.0])
    y = layer(x.astype(np.float32), training=training).numpy()
    np.testing.assert_allclose(y.mean(axis=(1, 2)), [[0, 7], [0, 7]], atol=1e-4)
    np.testing.assert_allclose(y.std(axis=(1, 2)), [[1, 2], [1, 2]], atol=1e-3)


def test_channel_without_contrast_is_not_divided_by_zero():
    layer = InstanceNormalization()
    layer.build([1, 4, 4, 1])
    for training in (False, True):
        assert np.array_equal(
            layer(np.full([1, 4, 4, 1], 9.0), training=training), np.zeros([1, 4, 4, 1])
        )
