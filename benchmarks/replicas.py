"""Two logical CPU devices beside one: the time of a training step, and where the difference goes.

Both run in turn in one process, on the same two cores. A step on two devices differs from one on
one device in three ways: each device computes half of the batch, which uses the cores less well;
gradients are summed; weights are updated twice. So two more contenders are timed, on one device
each: half of the batch, and the whole batch in two parts, one after the other.
"""

from pathlib import Path

from timed_steps import make_round, print_in_turn

from trainer.config import TrainerConfig, make_config
from trainer.distribution import place

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


def main() -> None:
    """Times all in turn and prints medians and ratios."""
    place("cpu:2")  # before TensorFlow starts, with as many devices as are needed
    for precision in ("float32", "bfloat16"):
        rounds = {
            name: make_round(config_of(precision, **settings), num_steps=STEPS_A_ROUND)
            for name, settings in CONTENDERS.items()
        }
        print_in_turn(rounds, num_rounds=NUM_ROUNDS, title=precision)


if __name__ == "__main__":
    main()
