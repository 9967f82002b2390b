"""``history.csv``: one row for each epoch, and what follows from the rows.

An epoch is measured at the size that it trained at, so losses can be compared among epochs of the
same ``image_size`` only: the best epoch is one of the largest size so far.

The best epoch and the decision to stop are computed from the rows alone, so a run that was stopped
and goes on decides as one that was not. How long an epoch took is not among them: a run that was
stopped leaves the same file as one that was not.
"""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from preprocessing.publish import write_text
from trainer.metrics import METRICS

FILENAME = "history.csv"

Row = dict[str, float]

COLUMNS = (
    "epoch",
    "image_size",
    *(f"train_{metric}" for metric in METRICS),
    *(f"validation_{metric}" for metric in METRICS),
)


def write_history(path: Path, rows: Sequence[Row]) -> None:
    """Writes all rows, whole or not at all.

    Raises:
        OSError: if the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    whole = ("epoch", "image_size")
    writer.writerows({**row, **{name: int(row[name]) for name in whole}} for row in rows)
    write_text(path, text.getvalue())


def best_epoch(rows: Sequence[Row]) -> int:
    """Gives the first epoch of the largest size with the lowest validation loss; 0 without rows."""
    if not rows:
        return 0
    best = min(rows, key=lambda row: (-row["image_size"], row["validation_loss"], row["epoch"]))
    return int(best["epoch"])


def should_stop(rows: Sequence[Row], *, epochs: int, patience: int) -> bool:
    """Tells whether training is over.

    Args:
        rows: of the epochs so far.
        epochs: the most that may run.
        patience: how many epochs may pass without a lower validation loss; counted anew from
            where the size grows.
    """
    return len(rows) >= epochs or len(rows) - best_epoch(rows) >= patience


def check_finite(loss: float, *, epoch: int, step: int, what: str) -> None:
    """Stops a run whose loss is no number any more.

    Args:
        loss: sum or mean, which is no number if one of its parts is none.
        epoch: in which it was computed, counted from 1.
        step: of that epoch, counted from 1.
        what: ``training`` or ``validation``.

    Raises:
        FloatingPointError: if the loss is NaN or infinite; the message names the step.
    """
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the {what} loss became {loss} in step {step} of epoch {epoch}; try a lower "
            "--learning-rate, --clip-norm 1 or --precision float32, in another folder"
        )
