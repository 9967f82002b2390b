"""The U-Net: image in, logits out.

Source: Ronneberger, Fischer, Brox: U-Net, MICCAI 2015, with padded convolutions, so that the mask
has the size of the image, and with transposed convolutions on the way up.
"""

import random

import keras
import tensorflow as tf
from keras import layers

from trainer.normalization import InstanceNormalization


class UNet(keras.Model):
    """The network. It knows nothing of data, devices or training.

    The 1x1 convolution at the end gives logits; their sigmoid is part of the loss, where it can be
    computed without overflow, and of the exported graph.
    """

    def __init__(
        self,
        *,
        image_size: int,
        filters: int,
        depth: int,
        normalization: str = "none",
        dtype_policy: str = "float32",
        seed: int = 0,
    ) -> None:
        """Makes all weights.

        Args:
            image_size: height and width in pixels, a multiple of ``2**depth``.
            filters: of the first level; each level below has twice as many.
            depth: number of levels above the bottleneck.
            normalization: ``none``, or ``instance`` after each convolution of 3x3.
            dtype_policy: of Keras, to compute in; the logits are float32 in any case.
            seed: of the initial weights.

        Raises:
            ValueError: if ``image_size`` cannot be halved ``depth`` times.
        """
        if image_size % 2**depth:
            raise ValueError(f"image_size is {image_size}; expected a multiple of {2**depth}")
        super().__init__(name="unet", dtype=dtype_policy)
        self.image_size = image_size
        seeds = random.Random(seed)

        def he_normal() -> keras.Initializer:
            return keras.initializers.HeNormal(seeds.randrange(2**31))

        def double_conv(channels: int, num_filters: int, name: str) -> list[layers.Layer]:
            block: list[layers.Layer] = []
            for index in (1, 2):
                conv = layers.Conv2D(
                    num_filters,
                    3,
                    padding="same",
                    # A normalization takes any offset away again.
                    use_bias=normalization == "none",
                    kernel_initializer=he_normal(),
                    dtype=dtype_policy,
                    name=f"{name}_conv{index}",
                )
                block.append(_built(conv, channels if index == 1 else num_filters))
                if normalization == "instance":
                    norm = InstanceNormalization(dtype=dtype_policy, name=f"{name}_norm{index}")
                    block.append(_built(norm, num_filters))
                block.append(layers.ReLU(dtype=dtype_policy, name=f"{name}_relu{index}"))
            return block

        widths = [filters * 2**level for level in range(depth + 1)]
        self.down = [
            double_conv(channels, width, f"down{level}")
            for level, (channels, width) in enumerate(zip([1, *widths], widths[:-1], strict=False))
        ]
        self.pool = layers.MaxPooling2D(2, dtype=dtype_policy, name="pool")
        self.bottleneck = double_conv(widths[depth - 1], widths[depth], "bottleneck")
        self.transpose, self.up = [], []
        for level in reversed(range(depth)):
            transpose = layers.Conv2DTranspose(
                widths[level],
                2,
                strides=2,
                kernel_initializer=he_normal(),
                dtype=dtype_policy,
                name=f"up{level}_transpose",
            )
            self.transpose.append(_built(transpose, widths[level + 1]))
            self.up.append(double_conv(2 * widths[level], widths[level], f"up{level}"))
        logits = layers.Conv2D(
            1,
            1,
            kernel_initializer=keras.initializers.GlorotUniform(seeds.randrange(2**31)),
            dtype="float32",
            name="logits",
        )
        self.logits = _built(logits, widths[0])
        self.build((None, image_size, image_size, 1))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Tells Keras that all weights are made."""

    def call(self, image: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Computes logits.

        Args:
            image: [batch, image_size, image_size, 1] gray values, float32, 0 to 255.
            training: takes the faster way through normalizations, for a batch of known size.

        Returns:
            float32, of the same shape. Scaling to [0, 1] is the first thing that happens.
        """
        x = tf.cast(image / 255, self.compute_dtype)
        skips = []
        for block in self.down:
            x = _run(block, x, training)
            skips.append(x)
            x = self.pool(x)
        x = _run(self.bottleneck, x, training)
        for transpose, block in zip(self.transpose, self.up, strict=True):
            x = tf.concat([skips.pop(), transpose(x)], axis=-1)
            x = _run(block, x, training)
        return self.logits(x)


def _built(layer: layers.Layer, channels: int) -> layers.Layer:
    layer.build((None, None, None, channels))
    return layer


def _run(block: list[layers.Layer], x: tf.Tensor, training: bool) -> tf.Tensor:
    for layer in block:
        is_normalization = isinstance(layer, InstanceNormalization)
        x = layer(x, training=training) if is_normalization else layer(x)
    return x
