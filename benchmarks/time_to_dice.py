"""Minutes until validation Dice reaches 0.90: the best recipe beside the reference, on real slices.

Both train the same U-Net with 16 filters at 128x128 on the same slices, one after the other, to
their ends; the validation patient is one that neither was trained on. Start-up counts. For each,
the time of the first epoch at or above 0.90 is given, and what the whole run comes to.
"""

import csv
import json
import tempfile
import time
from pathlib import Path

from slices import folders

from trainer.startup import import_tensorflow

import_tensorflow()

from preprocessing import pipeline  # noqa: E402
from preprocessing.config import TfrecordsConfig  # noqa: E402
from trainer import train  # noqa: E402
from trainer.config import make_config  # noqa: E402

WANTED = 0.90


def main() -> None:
    """Trains both and prints Markdown."""
    images, masks = folders(__doc__)
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "dataset"
        pipeline.run(TfrecordsConfig(images=images, masks=masks, out=data))
        print(
            "| recipe | seconds to Dice 0.90 | in epoch | seconds in all | epochs | best epoch | "
            "Dice | IoU | accuracy | Dice, mean of slices |"
        )
        print("| --- " + "| ---: " * 9 + "|")
        for recipe in ("reference", "best"):
            out = Path(temporary) / recipe
            config = make_config(recipe, data=data, out=out, image_size=128, filters=16)
            print(row_of(recipe, train_and_time(config)), flush=True)


def train_and_time(config) -> dict:
    """Trains; gives the times and the figures of the run."""
    start, ends = time.perf_counter(), []
    log = train._log_epoch

    def note(*arguments) -> None:
        ends.append(time.perf_counter() - start)
        log(*arguments)

    train._log_epoch = note
    try:
        train.run(config)
    finally:
        train._log_epoch = log
    with (config.out / "history.csv").open() as file:
        dices = [float(row["validation_dice_pooled"]) for row in csv.DictReader(file)]
    reached = next((epoch for epoch, dice in enumerate(dices) if dice >= WANTED), None)
    overall = json.loads((config.out / "evaluation.json").read_text())["overall"]
    best = next((config.out / "checkpoints" / "best").iterdir()).name
    return {
        "reached_s": f"{ends[reached]:.0f}" if reached is not None else "never",
        "reached_epoch": reached + 1 if reached is not None else "",
        "all_s": f"{ends[-1]:.0f}",
        "epochs": len(dices),
        "best": int(best.removeprefix("epoch-")),
        **overall,
    }


def row_of(recipe: str, found: dict) -> str:
    """Gives a line of the table."""
    return (
        f"| {recipe} | {found['reached_s']} | {found['reached_epoch']} | {found['all_s']} | "
        f"{found['epochs']} | {found['best']} | {found['dice_pooled']:.4f} | "
        f"{found['iou_pooled']:.4f} | {found['accuracy']:.4f} | "
        f"{found['dice_per_slice_mean']:.4f} |"
    )


if __name__ == "__main__":
    main()
