"""Training steps of the trainer on batches that are there already, to be timed."""

import statistics
import time
from collections.abc import Callable, Mapping

from trainer.startup import import_tensorflow

import_tensorflow()

import tensorflow as tf  # noqa: E402

from trainer.augmentation.draws import draw_augmentation  # noqa: E402
from trainer.checkpoints import model_of  # noqa: E402
from trainer.config import TrainerConfig  # noqa: E402
from trainer.distribution import place  # noqa: E402
from trainer.metrics import TOTALS  # noqa: E402
from trainer.optimizer import Optimizer  # noqa: E402
from trainer.steps import make_training_steps  # noqa: E402


def make_round(config: TrainerConfig, *, num_steps: int) -> Callable[[], float]:
    """Gives a function that runs some steps, each with draws of its own.

    Args:
        config: all settings; its dataset is not read.
        num_steps: steps of a round.

    Returns:
        A function that gives milliseconds a step.
    """
    placement = place(config.devices)
    with placement.scope():
        model = model_of(config)
        variables = [weight.value for weight in model.trainable_variables]
        optimizer = Optimizer(config, variables, [], steps_per_epoch=num_steps)
    steps = make_training_steps(config, placement, model, optimizer)
    count, size = config.global_batch_size, config.image_size
    coarse = tf.random.stateless_uniform([count, 8, 8, 1], [0, 0], 0.0, 255.0)
    image = tf.cast(tf.image.resize(coarse, [size, size], method="bicubic") % 255, tf.uint8)
    batch = {
        "image": image,
        "mask": tf.cast(image > 128, tf.uint8),
        "weight": tf.ones([count]),
        "num_slices": tf.fill([count], float(count)),
    }
    seed = tf.constant([1, 2])
    drawn = draw_augmentation(config, num_slices=count * num_steps, seed=seed)
    draws = tf.data.Dataset.from_tensor_slices(drawn).batch(count, drop_remainder=True)
    batches = iter(draws.map(lambda draw: {**batch, **draw}).cache().repeat())

    def run() -> float:
        start = time.perf_counter()
        totals = tf.zeros([len(TOTALS)], tf.float64)
        steps(batches, tf.constant(num_steps), totals)[0].numpy()
        return 1000 * (time.perf_counter() - start) / num_steps

    run()  # makes the graph
    return run


def print_in_turn(
    rounds: Mapping[str, Callable[[], float]], *, num_rounds: int, title: str
) -> None:
    """Times contenders in turn, and prints medians, and ratios to the first of them.

    Args:
        rounds: what `make_round` gave, by the name of the contender.
        num_rounds: how often each is timed.
        title: of the table.
    """
    first = next(iter(rounds))
    times: dict[str, list[float]] = {name: [] for name in rounds}
    for _ in range(num_rounds):
        for name, run in rounds.items():
            times[name].append(run())
    print(f"\n| {title} | against {first} | ms a step |\n| --- | ---: | ---: |")
    for name, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(values, times[first], strict=True))
        print(f"| {name} | {ratio:.3f} | {statistics.median(values):.0f} |", flush=True)
