"""The U-Net of the reference recipe.

Source: Ronneberger, Fischer, Brox: U-Net, MICCAI 2015, with padded convolutions, so that the mask
has the size of the image, and with transposed convolutions on the way up.
"""

import random

import keras
from keras import layers


def build_unet(
    *, image_size: int, filters: int, depth: int, precision: str = "float32", seed: int = 0
) -> keras.Model:
    """Builds the network. It knows nothing of data, devices or training.

    The 1x1 convolution at the end gives logits; their sigmoid is part of the loss, where it can be
    computed without overflow, and of the exported graph.

    Args:
        image_size: height and width in pixels, a multiple of ``2**depth``.
        filters: of the first level; each level below has twice as many.
        depth: number of levels above the bottleneck.
        precision: Keras dtype policy to compute in; the logits are float32 in any case.
        seed: of the initial weights.

    Returns:
        A model from [batch, image_size, image_size, 1] gray values, 0 to 255, to logits float32
        [batch, image_size, image_size, 1]. Scaling to [0, 1] is its first layer.

    Raises:
        ValueError: if ``image_size`` cannot be halved ``depth`` times.
    """
    if image_size % 2**depth:
        raise ValueError(f"image_size is {image_size}; expected a multiple of {2**depth}")
    seeds = random.Random(seed)

    def conv(x: keras.KerasTensor, num_filters: int, name: str) -> keras.KerasTensor:
        return layers.Conv2D(
            num_filters,
            3,
            padding="same",
            activation="relu",
            kernel_initializer=keras.initializers.HeNormal(seed=seeds.randrange(2**31)),
            dtype=precision,
            name=name,
        )(x)

    def double_conv(x: keras.KerasTensor, num_filters: int, name: str) -> keras.KerasTensor:
        return conv(conv(x, num_filters, f"{name}_conv1"), num_filters, f"{name}_conv2")

    image = keras.Input((image_size, image_size, 1), name="image")
    x = layers.Rescaling(1 / 255, dtype="float32", name="scale_to_unit")(image)
    skips = []
    for level in range(depth):
        x = double_conv(x, filters * 2**level, f"down{level}")
        skips.append(x)
        x = layers.MaxPooling2D(2, dtype=precision, name=f"down{level}_pool")(x)
    x = double_conv(x, filters * 2**depth, "bottleneck")
    for level in reversed(range(depth)):
        x = layers.Conv2DTranspose(
            filters * 2**level,
            2,
            strides=2,
            kernel_initializer=keras.initializers.HeNormal(seed=seeds.randrange(2**31)),
            dtype=precision,
            name=f"up{level}_transpose",
        )(x)
        x = layers.Concatenate(dtype=precision, name=f"up{level}_concat")([skips[level], x])
        x = double_conv(x, filters * 2**level, f"up{level}")
    logits = layers.Conv2D(
        1,
        1,
        kernel_initializer=keras.initializers.GlorotUniform(seed=seeds.randrange(2**31)),
        dtype=keras.DTypePolicy("float32"),
        name="logits",
    )(x)
    return keras.Model(image, logits, name="unet")
