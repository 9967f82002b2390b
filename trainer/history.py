"""``history.csv``: one row for each epoch, and what follows from the rows.

The best epoch and the decision to stop are computed from the rows alone, so a run that was stopped
and goes on decides as one that was not.
"""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from preprocessing.publish import write_text
from trainer.metrics import METRICS

Row = dict[str, float]

COLUMNS = (
    "epoch",
    *(f"train_{metric}" for metric in METRICS),
    *(f"validation_{metric}" for metric in METRICS),
    "seconds",
    "slices_per_s",
)


def write_history(path: Path, rows: Sequence[Row]) -> None:
    """Writes all rows, whole or not at all.

    Raises:
        OSError: if the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "epoch": int(row["epoch"])} for row in rows)
    write_text(path, text.getvalue())


def read_history(path: Path, *, num_epochs: int) -> list[Row]:
    """Reads the rows of the first ``num_epochs`` epochs.

    Raises:
        ValueError: if the file lacks one of them.
    """
    if not num_epochs:
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [{key: float(row[key]) for key in COLUMNS} for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read ({error!r}), but the checkpoint beside it is of epoch "
            f"{num_epochs}; restore the file or start in another folder"
        ) from error
    if len(rows) < num_epochs:
        raise ValueError(
            f"{path} has {len(rows)} epochs, but the checkpoint beside it is of epoch "
            f"{num_epochs}; restore the file or start in another folder"
        )
    return rows[:num_epochs]


def best_epoch(rows: Sequence[Row]) -> int:
    """Gives the number of the first epoch with the lowest validation loss; 0 without rows."""
    if not rows:
        return 0
    best = min(rows, key=lambda row: (row["validation_loss"], row["epoch"]))
    return int(best["epoch"])


def should_stop(rows: Sequence[Row], *, epochs: int, patience: int) -> bool:
    """Tells whether training is over.

    Args:
        rows: of the epochs so far.
        epochs: the most that may run.
        patience: how many epochs may pass without a lower validation loss.
    """
    return len(rows) >= epochs or len(rows) - best_epoch(rows) >= patience


def check_finite(loss: float, *, first_step: int, last_step: int) -> None:
    """Stops a run whose loss is no number any more.

    Raises:
        FloatingPointError: if the loss is NaN or infinite; the message names the steps.
    """
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the loss became {loss} between steps {first_step} and {last_step}; try a "
            "lower --learning-rate or --precision float32"
        )
