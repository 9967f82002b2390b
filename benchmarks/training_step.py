"""A training step: ours beside the same network in Keras' fit and in PyTorch, in turn.

Each contender is a process of its own that computes when it is told to. PyTorch is no dependency of
this project: give --torch-python, an interpreter that has it, or it is left out.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
SIZES = {"small": (128, 16, 8), "large": (256, 64, 2)}
"""Height and width in pixels, filters, batch."""

CONTENDERS = {
    "ours": "ours: instance normalization",
    "ours_plain": "ours: no normalization",
    "ours_float32": "ours: instance normalization, float32",
    "ours_without_onednn": "ours: instance normalization, float32, TF_ENABLE_ONEDNN_OPTS=0",
    "keras_instance": "Keras fit: instance normalization (its GroupNormalization)",
    "keras_batch": "Keras fit: batch normalization",
    "torch_instance": "PyTorch: instance normalization",
    "torch_instance_compiled": "PyTorch, compiled: instance normalization",
    "torch_batch": "PyTorch: batch normalization",
    "torch_batch_compiled": "PyTorch, compiled: batch normalization",
    "torch_plain": "PyTorch: no normalization",
}
"""In bfloat16 but for those named float32; PyTorch in channels_last, with its fused Adam."""

Work = Callable[[int], None]
"""Trains for a number of steps."""


def ours(size: int, filters: int, batch: int, *, normalization: str, precision: str) -> Work:
    """The trainer's own steps, augmentation and all, on a batch that is always there."""
    from trainer.startup import import_tensorflow

    import_tensorflow()
    import tensorflow as tf

    from trainer.augmentation.draws import draw_augmentation
    from trainer.checkpoints import model_of
    from trainer.config import make_config
    from trainer.distribution import place
    from trainer.metrics import TOTALS
    from trainer.optimizer import Optimizer
    from trainer.steps import make_training_steps

    config = make_config(
        "reference",
        data=Path("none"),
        out=Path("none"),
        image_size=size,
        filters=filters,
        global_batch_size=batch,
        normalization=normalization,
        precision=precision,
        devices="cpu",
    )
    placement = place(config.devices)
    model = model_of(config)
    variables = [weight.value for weight in model.trainable_variables]
    steps = make_training_steps(
        config, placement, model, Optimizer(config, variables, [], steps_per_epoch=1)
    )
    image = tf.cast(tf.random.uniform([batch, size, size, 1], 0, 256, tf.int32), tf.uint8)
    fixed = {
        "image": image,
        "mask": tf.cast(image > 128, tf.uint8),
        "weight": tf.ones([batch]),
        "num_slices": tf.fill([batch], float(batch)),
        **draw_augmentation(config, num_slices=batch, seed=tf.constant([1, 2])),
    }
    batches = iter(tf.data.Dataset.from_tensors(fixed).repeat())
    totals = tf.zeros([len(TOTALS)], tf.float64)

    def work(num_steps: int) -> None:
        steps(batches, tf.constant(num_steps), totals)[0].numpy()

    return work


def keras_fit(size: int, filters: int, batch: int, *, normalization: str) -> Work:
    """The network as a functional model, trained by ``Model.fit``, without augmentation."""
    from trainer.startup import import_tensorflow

    import_tensorflow()
    import keras
    import tensorflow as tf
    from keras import layers

    policy = "mixed_bfloat16"

    def double_conv(x, num_filters):
        for _ in range(2):
            x = layers.Conv2D(num_filters, 3, padding="same", use_bias=False, dtype=policy)(x)
            if normalization == "batch":
                x = layers.BatchNormalization(dtype=policy)(x)
            else:
                x = layers.GroupNormalization(groups=-1, dtype=policy)(x)
            x = layers.ReLU(dtype=policy)(x)
        return x

    image = keras.Input((size, size, 1))
    x, skips = layers.Rescaling(1 / 255)(image), []
    for level in range(4):
        skips.append(double_conv(x, filters * 2**level))
        x = layers.MaxPooling2D(2, dtype=policy)(skips[-1])
    x = double_conv(x, filters * 16)
    for level in reversed(range(4)):
        x = layers.Conv2DTranspose(filters * 2**level, 2, strides=2, dtype=policy)(x)
        x = layers.Concatenate(dtype=policy)([skips[level], x])
        x = double_conv(x, filters * 2**level)
    model = keras.Model(image, layers.Conv2D(1, 1, dtype="float32")(x))
    model.compile(keras.optimizers.Adam(), keras.losses.BinaryCrossentropy(from_logits=True))
    images = tf.random.uniform([batch, size, size, 1], 0, 255)
    fixed = tf.data.Dataset.from_tensors((images, tf.cast(images > 128, tf.float32))).repeat()

    def work(num_steps: int) -> None:
        model.fit(fixed, steps_per_epoch=num_steps, verbose=0)

    return work


def pytorch(size: int, filters: int, batch: int, *, normalization: str, compiled: bool) -> Work:
    """The network in PyTorch, without augmentation."""
    import torch
    from torch import nn

    def double_conv(channels, num_filters):
        made = []
        for inner in (channels, num_filters):
            plain = normalization == "none"
            made.append(nn.Conv2d(inner, num_filters, 3, padding=1, bias=plain))
            if normalization == "batch":
                made.append(nn.BatchNorm2d(num_filters))
            elif normalization == "instance":
                made.append(nn.InstanceNorm2d(num_filters, affine=True))
            made.append(nn.ReLU(inplace=True))
        return nn.Sequential(*made)

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            widths = [filters * 2**level for level in range(5)]
            self.down = nn.ModuleList(
                double_conv(channels, width)
                for channels, width in zip([1, *widths], widths, strict=False)
            )
            self.pool = nn.MaxPool2d(2)
            self.transpose = nn.ModuleList(
                nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in widths[3::-1]
            )
            self.up = nn.ModuleList(double_conv(2 * width, width) for width in widths[3::-1])
            self.logits = nn.Conv2d(filters, 1, 1)

        def forward(self, x):
            skips = []
            for block in self.down[:-1]:
                skips.append(block(x))
                x = self.pool(skips[-1])
            x = self.down[-1](x)
            for transpose, block in zip(self.transpose, self.up, strict=True):
                x = block(torch.cat([skips.pop(), transpose(x)], 1))
            return self.logits(x)

    model = UNet().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    forward = torch.compile(model) if compiled else model
    image = torch.rand(batch, 1, size, size).to(memory_format=torch.channels_last)
    mask = (image > 0.5).float()

    def work(num_steps: int) -> None:
        for _ in range(num_steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16):
                logits = forward(image)
            nn.functional.binary_cross_entropy_with_logits(logits.float(), mask).backward()
            optimizer.step()

    return work


def make_work(name: str, size: int, filters: int, batch: int) -> Work:
    """Sets a contender up."""
    kind, _, rest = name.partition("_")
    if kind == "ours":
        if rest == "without_onednn":
            os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
        return ours(
            *(size, filters, batch),
            normalization="none" if rest == "plain" else "instance",
            precision="float32" if rest in ("float32", "without_onednn") else "bfloat16",
        )
    if kind == "keras":
        return keras_fit(size, filters, batch, normalization=rest)
    normalization, _, compiled = rest.partition("_")
    normalization = "none" if normalization == "plain" else normalization
    return pytorch(*(size, filters, batch), normalization=normalization, compiled=bool(compiled))


def serve_rounds(name: str, size: int, filters: int, batch: int, num_steps: int) -> None:
    """Computes a round for each line that comes in, and says how long it took."""
    work = make_work(name, size, filters, batch)
    work(2)
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        work(num_steps)
        print(time.perf_counter() - start, flush=True)


def measure(sizes: list[str], names: list[str], flags: argparse.Namespace) -> None:
    """Runs all contenders in turn and prints a table for each size."""
    for size_name in sizes:
        size, filters, batch = SIZES[size_name]
        num_steps = flags.steps if size_name == "small" else max(flags.steps // 8, 1)
        running = {}
        for name in names:
            python = flags.torch_python if name.startswith("torch") else sys.executable
            worker = [__file__, "--worker", name, *map(str, (size, filters, batch, num_steps))]
            process = subprocess.Popen(
                [python, *worker],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
            line = process.stdout.readline()
            if line.strip() != "ready":
                sys.exit(f"{name} did not start")
            running[name] = process
        seconds = {name: [] for name in names}
        for _ in range(flags.rounds):
            for name, process in running.items():
                process.stdin.write("go\n")
                process.stdin.flush()
                seconds[name].append(float(process.stdout.readline()) / num_steps)
        for process in running.values():
            process.stdin.close()
            process.wait()
        print(
            f"\nU-Net {size}x{size}, {filters} filters, batch {batch}, {flags.rounds} rounds of "
            f"{num_steps} steps\n"
        )
        print("| contender | the first is faster by | slices/s | ms a step | from | to |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        for name in names:
            pairs = zip(seconds[name], seconds[names[0]], strict=True)
            ratio = statistics.median(other / first for other, first in pairs)
            middle = statistics.median(seconds[name])
            low, high = 1000 * min(seconds[name]), 1000 * max(seconds[name])
            print(
                f"| {CONTENDERS[name]} | {ratio:.2f} | {batch / middle:.1f} | {1000 * middle:.0f} "
                f"| {low:.0f} | {high:.0f} |",
                flush=True,
            )


def main() -> None:
    """Reads the flags and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch-python", help="interpreter that has PyTorch")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument(
        "--contenders",
        nargs="+",
        choices=CONTENDERS,
        default=list(CONTENDERS),
        help="the first is what the others are compared with",
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=16, help="in a round, at the small size")
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.worker:
        name, *numbers = flags.worker
        serve_rounds(name, *map(int, numbers))
        return
    names = flags.contenders
    if not flags.torch_python:
        print("PyTorch is left out: no --torch-python", file=sys.stderr)
        names = [name for name in names if not name.startswith("torch")]
    measure(flags.sizes, names, flags)


if __name__ == "__main__":
    main()
