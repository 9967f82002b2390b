"""Two logical CPU devices beside one: the time of a training step, and where the difference goes.

Both run in turn in one process, on the same two cores. A step on two devices differs from one on
one device in three ways: each device computes half of the batch, which uses the cores less well;
gradients are summed; weights are updated twice. So two more contenders are timed, on one device
each: half of the batch, and the whole batch in two parts, one after the other.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from trainer.startup import import_tensorflow

import_tensorflow()

import tensorflow as tf  # noqa: E402

from trainer.augmentation import draw_augmentation  # noqa: E402
from trainer.checkpoints import model_of  # noqa: E402
from trainer.config import TrainerConfig, make_config  # noqa: E402
from trainer.distribution import place  # noqa: E402
from trainer.metrics import TOTALS  # noqa: E402
from trainer.optimizer import Optimizer  # noqa: E402
from trainer.steps import make_training_steps  # noqa: E402

NUM_ROUNDS, STEPS_A_ROUND = 9, 6
CONTENDERS = {
    "one device": {"devices": "cpu"},
    "two devices": {"devices": "cpu:2"},
    "one device, the batch in two parts": {"devices": "cpu", "accumulation_steps": 2},
    "one device, half of the batch": {"devices": "cpu", "global_batch_size": 4},
}


def config_of(precision: str, **settings: object) -> TrainerConfig:
    """Gives the small U-Net at 128x128."""
    return make_config(
        "reference",
        data=Path("none"),
        out=Path("none"),
        image_size=128,
        filters=16,
        precision=precision,
        **settings,
    )


def make_round(config: TrainerConfig) -> Callable[[], float]:
    """Gives a function that runs some steps and tells milliseconds a step."""
    placement = place(config.devices)
    with placement.scope():
        model = model_of(config)
        variables = [weight.value for weight in model.trainable_variables]
        optimizer = Optimizer(config, variables, [], steps_per_epoch=1)
    steps = make_training_steps(config, placement, model, optimizer)
    count, size = config.global_batch_size, config.image_size
    image = tf.cast(tf.random.uniform([count, size, size, 1], 0, 256, tf.int32), tf.uint8)
    batch = {
        "image": image,
        "mask": tf.cast(image > 128, tf.uint8),
        "weight": tf.ones([count]),
        "num_slices": tf.fill([count], float(count)),
        **draw_augmentation(config, num_slices=count, seed=tf.constant([1, 2])),
    }
    batches = iter(tf.data.Dataset.from_tensors(batch).repeat())

    def run() -> float:
        start = time.perf_counter()
        totals = tf.zeros([len(TOTALS)], tf.float64)
        steps(batches, tf.constant(STEPS_A_ROUND), totals)[0].numpy()
        return 1000 * (time.perf_counter() - start) / STEPS_A_ROUND

    run()  # makes the graph
    return run


def main() -> None:
    """Times all in turn and prints medians and ratios."""
    place("cpu:2")  # before TensorFlow starts, with as many devices as are needed
    for precision in ("float32", "bfloat16"):
        rounds = {
            name: make_round(config_of(precision, **settings))
            for name, settings in CONTENDERS.items()
        }
        times: dict[str, list[float]] = {name: [] for name in rounds}
        for _ in range(NUM_ROUNDS):
            for name, run in rounds.items():
                times[name].append(run())
        print(f"\n| {precision} | against one device | ms a step |\n| --- | ---: | ---: |")
        for name, values in times.items():
            pairs = zip(values, times["one device"], strict=True)
            ratio = statistics.median(mine / one for mine, one in pairs)
            print(f"| {name} | {ratio:.2f} | {statistics.median(values):.0f} |", flush=True)


if __name__ == "__main__":
    main()
