import keras
import numpy as np
import pytest

from trainer.model import build_unet


def test_layers_are_those_of_the_reference_recipe():
    model = build_unet(image_size=16, filters=4, depth=1)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == [
        "InputLayer",
        "Rescaling",
        "Conv2D",
        "Conv2D",
        "MaxPooling2D",
        "Conv2D",
        "Conv2D",
        "Conv2DTranspose",
        "Concatenate",
        "Conv2D",
        "Conv2D",
        "Conv2D",
    ]


def test_reference_size_has_31_million_weights():
    keras.backend.clear_session()
    assert build_unet(image_size=512, filters=64, depth=4).count_params() == 31_030_593


def test_scaling_to_the_unit_range_is_inside_of_the_model():
    scale = build_unet(image_size=8, filters=2, depth=1).get_layer("scale_to_unit")
    np.testing.assert_allclose(scale(np.array([0.0, 51.0, 255.0])), [0, 0.2, 1], rtol=1e-6)


def test_logits_have_the_size_of_the_image():
    model = build_unet(image_size=24, filters=2, depth=3)
    assert model(np.zeros([2, 24, 24, 1], np.float32)).shape == (2, 24, 24, 1)


def test_mixed_precision_computes_in_bfloat16_and_gives_float32():
    model = build_unet(image_size=8, filters=2, depth=1, precision="mixed_bfloat16")
    assert model.get_layer("bottleneck_conv1").compute_dtype == "bfloat16"
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert model.output.dtype == "float32"


def test_seed_decides_the_initial_weights():
    def weights(seed: int) -> np.ndarray:
        model = build_unet(image_size=8, filters=2, depth=1, seed=seed)
        return np.concatenate([weight.numpy().ravel() for weight in model.weights])

    assert np.array_equal(weights(1), weights(1))
    assert not np.array_equal(weights(1), weights(2))


def test_layers_start_with_different_weights():
    model = build_unet(image_size=8, filters=4, depth=1)
    first, second = (model.get_layer(f"up0_conv{n}").kernel.numpy() for n in (1, 2))
    assert not np.array_equal(first[:, :, :4], second)


def test_size_that_cannot_be_halved_is_refused():
    with pytest.raises(ValueError, match="image_size is 20; expected a multiple of 8"):
        build_unet(image_size=20, filters=2, depth=3)
