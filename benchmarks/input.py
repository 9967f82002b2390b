"""The input of training: beside the recipe's original one, and beside the computing.

The original reads PNG files with Keras' image_dataset_from_directory and augments in Python, one
slice after the other. Ours keeps decoded slices (or not) and hands uint8 batches to the device,
which augments them. Where the device is this CPU, both take the same cores: so the figures are
given with augmentation and without.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from slices import folders

from trainer.startup import import_tensorflow

import_tensorflow()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from scipy import ndimage  # noqa: E402

from preprocessing import pipeline  # noqa: E402
from preprocessing.config import TfrecordsConfig  # noqa: E402
from preprocessing.images.reading import read_mask, read_slice  # noqa: E402
from preprocessing.manifest import DatasetManifest  # noqa: E402
from trainer.augmentation.augment import augment  # noqa: E402
from trainer.checkpoints import model_of  # noqa: E402
from trainer.config import TrainerConfig, make_config  # noqa: E402
from trainer.distribution import place  # noqa: E402
from trainer.input_pipeline import SplitReader  # noqa: E402
from trainer.metrics import TOTALS  # noqa: E402
from trainer.optimizer import Optimizer  # noqa: E402
from trainer.steps import make_training_steps  # noqa: E402

ROUNDS = 7
STEP_SIZES = ((128, 16, 8), (256, 64, 2))
"""Height and width in pixels, filters, batch."""


def original(png: Path, config: TrainerConfig, *, augmented: bool) -> Iterator[tf.Tensor]:
    """Gives an epoch of batches, as the recipe was first written."""
    rng = np.random.default_rng(0)
    settings = {
        "labels": None,
        "color_mode": "grayscale",
        "image_size": (config.image_size, config.image_size),
        "batch_size": config.global_batch_size,
        "shuffle": False,
        "verbose": False,
    }
    images, masks = (
        keras.utils.image_dataset_from_directory(png / kind, **settings)
        for kind in ("images", "masks")
    )
    for image, mask in zip(images, masks, strict=True):
        if not augmented:
            yield tf.stack([image / 255, mask / 255], axis=1)
            continue
        pairs = []
        for one, other in zip(image.numpy() / 255, mask.numpy() / 255, strict=True):
            if rng.random() < 0.5:
                one, other = one[:, ::-1], other[:, ::-1]
            angle = rng.uniform(-config.rotation_degrees, config.rotation_degrees)
            one = ndimage.rotate(one, angle, reshape=False, order=1)
            other = ndimage.rotate(other, angle, reshape=False, order=0)
            pairs.append((one, other))
        yield tf.constant(np.array(pairs, np.float32))


def ours(reader: SplitReader, config: TrainerConfig, epoch: int, *, augmented: bool) -> Iterator:
    """Gives an epoch of batches, as the trainer makes them."""

    @tf.function
    def changed(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        image, mask = augment(config, image=batch["image"], mask=batch["mask"], draws=batch)
        return tf.stack([image / 255, tf.cast(mask, tf.float32)], axis=1)

    for batch in reader.training_batches(epoch):
        yield changed(batch) if augmented else batch["image"]


def rate(batches: Iterator[tf.Tensor], num_slices: int) -> float:
    """Runs through an epoch; gives slices a second."""
    start = time.perf_counter()
    for batch in batches:
        batch.numpy()
    return num_slices / (time.perf_counter() - start)


def write_png(images: Path, masks: Path, names: list[str], out: Path) -> None:
    """Writes slices and masks as PNG files, as the original wants them."""
    for kind, read, source in (("images", read_slice, images), ("masks", read_mask, masks)):
        (out / kind).mkdir(parents=True)
        for name in names:
            pixels = read(next(source.glob(f"{name}.*")))
            Image.fromarray(pixels * (255 if kind == "masks" else 1)).save(
                out / kind / f"{name}.png"
            )


def compare_with_original(folder: Path, config: TrainerConfig, manifest: DatasetManifest) -> None:
    """Prints slices a second of both, and of ours in its three ways of keeping slices."""
    num_slices = manifest.splits["train"].num_examples
    png = folder / "png"
    for augmented in (False, True):
        ways: dict[str, Callable[[int], Iterator[tf.Tensor]]] = {
            "original": lambda _, a=augmented: original(png, config, augmented=a)
        }
        for cache in ("memory", "disk", "none"):
            kept = make_config("reference", **{**vars(config), "cache": cache})
            reader = SplitReader(kept, manifest, "train", num_replicas=1)
            ways[f"ours, slices kept in: {cache}"] = lambda epoch, r=reader, a=augmented: ours(
                r, config, epoch, augmented=a
            )
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for epoch in range(ROUNDS + 1):
            for name, make in ways.items():
                value = rate(make(epoch + 1), num_slices)
                if epoch:  # the first round decodes and traces
                    rates[name].append(value)
        print_rates(rates, f"{'augmented' if augmented else 'read'}, {config.image_size} px")


def print_rates(rates: dict[str, list[float]], title: str) -> None:
    """Prints medians, and the median of the ratios of each round."""
    print(f"\n| {title} | against the original | slices/s |\n| --- | ---: | ---: |")
    for name, values in rates.items():
        pairs = zip(values, rates["original"], strict=True)
        ratio = statistics.median(one / other for one, other in pairs)
        print(f"| {name} | {ratio:.1f} | {statistics.median(values):.0f} |", flush=True)


def compare_with_computing(config: TrainerConfig, manifest: DatasetManifest) -> None:
    """Prints what a step takes on a batch that is there already, and on batches that are read."""
    reader = SplitReader(config, manifest, "train", num_replicas=1)
    placement = place("cpu")
    model = model_of(config)
    variables = [weight.value for weight in model.trainable_variables]
    steps = make_training_steps(
        config, placement, model, Optimizer(config, variables, [], steps_per_epoch=reader.steps)
    )
    num_steps = min(reader.steps - 1, 22 if config.image_size == 128 else 4)

    def run(batches: tf.data.Dataset) -> float:
        iterator = iter(batches)
        start = time.perf_counter()
        totals = tf.zeros([len(TOTALS)], tf.float64)
        steps(iterator, tf.constant(num_steps), totals)[0].numpy()
        return 1000 * (time.perf_counter() - start) / num_steps

    fixed = tf.data.Dataset.from_tensors(next(iter(reader.training_batches(1)))).repeat()
    run(fixed)
    computing, together = [], []
    for epoch in range(1, ROUNDS + 1):
        computing.append(run(fixed))
        together.append(run(reader.training_batches(epoch)))
    alone = []
    for epoch in range(1, ROUNDS + 1):
        start = time.perf_counter()
        for _ in reader.training_batches(epoch):
            pass
        alone.append(1000 * (time.perf_counter() - start) / reader.steps)
    ratio = statistics.median(b / a for a, b in zip(computing, together, strict=True))
    print(
        f"| {config.image_size}x{config.image_size}, {config.filters} filters, batch "
        f"{config.global_batch_size} | {ratio:.3f} | {statistics.median(together):.0f} | "
        f"{statistics.median(computing):.0f} | {statistics.median(alone):.2f} |",
        flush=True,
    )


def main() -> None:
    """Measures on real slices and prints Markdown."""
    images, masks = folders(__doc__)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = folder / "dataset"
        pipeline.run(TfrecordsConfig(images=images, masks=masks, out=data))
        manifest = DatasetManifest.load(data)
        names = sorted(
            path.stem
            for path in images.iterdir()
            if path.stem.rpartition("_z")[0] in manifest.splits["train"].patients
        )
        write_png(images, masks, names, folder / "png")
        paths = {"data": data, "out": folder / "run"}
        for size in (128, 512):
            config = make_config("reference", **paths, image_size=size)
            compare_with_original(folder, config, manifest)
        print("\n| step | with reading / without | ms with | ms without | ms of reading alone |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for size, filters, batch in STEP_SIZES:
            config = make_config(
                "best",
                **paths,
                image_size=size,
                filters=filters,
                depth=4,
                global_batch_size=batch,
                coarse_share=0.0,
                phantom_share=0.0,
                ema_decay=0.0,
                precision="bfloat16",
            )
            compare_with_computing(config, manifest)


if __name__ == "__main__":
    main()
