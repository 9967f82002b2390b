"""What augmentation adds to a training step: none, the reference's, the best recipe's.

All run in turn in one process, on the same network and the same slices, in the precision that is
chosen by itself; each step has draws of its own.
"""

from pathlib import Path

from timed_steps import make_round, print_in_turn

from trainer.config import AUGMENTATION, TrainerConfig, make_config

NUM_ROUNDS, STEPS_A_ROUND = 7, 24
SIZES = ((128, 16, 8), (256, 16, 8), (256, 64, 4))
"""Height and width in pixels, filters, batch."""

OFF = {"flip": "none", "rotation_degrees": 0.0}
CONTENDERS = {"none": OFF, "reference": {}, "best": AUGMENTATION}


def config_of(size: int, filters: int, batch: int, settings: dict[str, object]) -> TrainerConfig:
    """Gives the network of the best recipe with other augmentation."""
    network = {"image_size": size, "filters": filters, "global_batch_size": batch}
    best = {"normalization": "instance", "loss": "bce_dice", "precision": "bfloat16"}
    paths = {"data": Path("none"), "out": Path("none")}
    return make_config("reference", **paths, **network, **best, **settings)


def main() -> None:
    """Times all in turn and prints medians and ratios."""
    for size, filters, batch in SIZES:
        # Steps of the large network are long: fewer of them.
        num_steps = STEPS_A_ROUND if filters < 64 else STEPS_A_ROUND // 4
        rounds = {
            name: make_round(config_of(size, filters, batch, settings), num_steps=num_steps)
            for name, settings in CONTENDERS.items()
        }
        print_in_turn(
            rounds, num_rounds=NUM_ROUNDS, title=f"{size}x{size}, {filters} filters, batch {batch}"
        )


if __name__ == "__main__":
    main()
