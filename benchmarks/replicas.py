"""One logical CPU device beside two: milliseconds of a training step, in turn, in one process."""

import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import keras
import tensorflow as tf

from trainer.augmentation import IDENTITY
from trainer.config import TrainerConfig
from trainer.distribution import distribute, mirrored_strategy
from trainer.run_folder import model_of
from trainer.steps import make_training_step

NUM_ROUNDS, STEPS_A_ROUND = 8, 5
CONFIG = TrainerConfig(data=Path("none"), out=Path("none"), image_size=128, filters=16)


def batches() -> Iterator[Mapping[str, tf.Tensor]]:
    """Gives the same batch of random slices, over and over."""
    count, size = CONFIG.global_batch_size, CONFIG.image_size
    pixels = tf.random.stateless_uniform([count, size, size, 1], [1, 2], 0, 256, tf.int32)
    batch = {
        "image": tf.cast(pixels, tf.uint8),
        "mask": tf.cast(pixels > 128, tf.uint8),
        "weight": tf.ones([count]),
        "transform": tf.tile(tf.constant([IDENTITY]), [count, 1]),
    }
    while True:
        yield batch


def main() -> None:
    """Times steps of both in turn and prints medians and the ratio."""
    runs = {}
    for num_replicas in (2, 1):
        strategy = mirrored_strategy(num_replicas)
        with strategy.scope():
            model = model_of(CONFIG)
            optimizer = keras.optimizers.Adam()
            optimizer.build(model.trainable_variables)
        step = make_training_step(strategy, model, optimizer)
        runs[num_replicas] = (step, distribute(strategy, batches()))
        step(next(runs[num_replicas][1]))  # traces the graph
    milliseconds = defaultdict(list)
    for _ in range(NUM_ROUNDS):
        for num_replicas, (step, shares) in runs.items():
            for _ in range(STEPS_A_ROUND):
                start = time.perf_counter()
                step(next(shares)).numpy()
                milliseconds[num_replicas].append(1000 * (time.perf_counter() - start))
    one, two = (statistics.median(milliseconds[count]) for count in (1, 2))
    print(f"two devices / one device: {two / one:.2f} ({two:.0f} ms / {one:.0f} ms a step)")


if __name__ == "__main__":
    main()
