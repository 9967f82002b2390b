"""What augmentation adds to a training step: none, the reference's, the best recipe's.

All run in turn in one process, on the same network and the same slices, in the precision that is
chosen by itself; each step has draws of its own.
"""

import argparse
from pathlib import Path

import tensorflow as tf
from timed_steps import make_round, print_in_turn

from trainer.config import AUGMENTATION, TrainerConfig, make_config
from trainer.precision import resolve_precision

SIZES = {"small": (128, 16, 8), "best": (256, 16, 4), "large": (256, 64, 4)}
"""Height and width in pixels, filters, batch."""

OFF = {"flip": "none", "rotation_degrees": 0.0}
CONTENDERS = {"none": OFF, "reference": {}, "best": AUGMENTATION}


def config_of(size: int, filters: int, batch: int, settings: dict[str, object]) -> TrainerConfig:
    """Gives the network of the best recipe with other augmentation."""
    network = {"image_size": size, "filters": filters, "global_batch_size": batch}
    device = "GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0"
    precision = resolve_precision("auto", device)
    best = {"normalization": "instance", "loss": "bce_dice", "precision": precision}
    paths = {"data": Path("none"), "out": Path("none")}
    return make_config("reference", **paths, **network, **best, **settings)


def main() -> None:
    """Times all in turn and prints medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=24, help="a round; a quarter of it if large")
    flags = parser.parse_args()
    for name in flags.sizes:
        size, filters, batch = SIZES[name]
        num_steps = flags.steps if name != "large" else max(flags.steps // 4, 1)
        rounds = {
            name: make_round(config_of(size, filters, batch, settings), num_steps=num_steps)
            for name, settings in CONTENDERS.items()
        }
        print_in_turn(
            rounds,
            num_rounds=flags.rounds,
            title=f"{size}x{size}, {filters} filters, batch {batch}",
        )


if __name__ == "__main__":
    main()
