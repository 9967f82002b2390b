"""Training, top to bottom in the order in which things happen."""

import logging
import time
from collections.abc import Iterable, Mapping

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from preprocessing.manifest import DatasetManifest
from preprocessing.spec import TRAIN_SPLIT, VALIDATION_SPLIT
from trainer.config import TrainerConfig
from trainer.distribution import distribute, mirrored_strategy
from trainer.evaluation import EvaluationConfig, evaluate
from trainer.failures import explained
from trainer.figures import draw_curves
from trainer.history import (
    Row,
    best_epoch,
    check_finite,
    read_history,
    should_stop,
    write_history,
)
from trainer.input_pipeline import SplitReader
from trainer.metrics import TOTALS, summarize
from trainer.run_folder import Checkpoints, claimed, model_of
from trainer.steps import Step, make_training_step, make_validation_step

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 0.5
"""Time between two looks at the totals during an epoch; each look waits for the devices."""


def run(config: TrainerConfig) -> None:
    """Trains until the loss stops falling, then evaluates the best epoch and draws it.

    A run that was stopped goes on after the last epoch that it finished.

    Args:
        config: all settings.

    Raises:
        ValueError: if the dataset, the folder or the devices do not fit the settings; this is known
            before training starts.
        FloatingPointError: if the loss becomes NaN or infinite.
    """
    manifest = DatasetManifest.load(config.data)
    strategy = mirrored_strategy(config.num_replicas)
    num_replicas = strategy.num_replicas_in_sync
    training = SplitReader(config, manifest, TRAIN_SPLIT, num_replicas=num_replicas)
    validation = SplitReader(config, manifest, VALIDATION_SPLIT, num_replicas=num_replicas)
    with claimed(config, manifest), explained(config.data, manifest):
        rows = _train(config, strategy, training, validation)
        draw_curves(rows, config.out / "curves.png")
        evaluate(EvaluationConfig(run=config.out, out=config.out, data=config.data))


def _train(
    config: TrainerConfig,
    strategy: tf.distribute.Strategy,
    training: SplitReader,
    validation: SplitReader,
) -> list[Row]:
    """Runs epochs until it is time to stop; gives the rows of all epochs."""
    with strategy.scope():
        model = model_of(config)
        optimizer = keras.optimizers.Adam(config.learning_rate)
        optimizer.build(model.trainable_variables)
        checkpoints = Checkpoints(config.out, model, optimizer)
    rows = read_history(config.out / "history.csv", num_epochs=checkpoints.restore())
    _log_start(config, model, training, validation, rows)

    train_step = make_training_step(strategy, model, optimizer)
    validation_step = make_validation_step(strategy, model)
    writer = tf.summary.create_file_writer(str(config.out / "tensorboard"))
    while not should_stop(rows, epochs=config.epochs, patience=config.patience):
        epoch = len(rows) + 1
        start_s = time.perf_counter()
        batches = distribute(strategy, training.training_batches(epoch))
        train = _run_epoch(train_step, batches, training, f"epoch {epoch}/{config.epochs}")
        train_s = time.perf_counter() - start_s
        batches = distribute(strategy, validation.evaluation_batches())
        measured = _run_epoch(validation_step, batches, validation, "validation")
        rows.append(
            {
                "epoch": epoch,
                **{f"train_{name}": value for name, value in train.items()},
                **{f"validation_{name}": value for name, value in measured.items()},
                "seconds": round(time.perf_counter() - start_s, 3),
                "slices_per_s": round(training.num_slices / train_s, 3),
            }
        )
        write_history(config.out / "history.csv", rows)
        checkpoints.save(epoch=epoch, is_best=best_epoch(rows) == epoch)
        _log_epoch(rows, writer, config)
    return rows


def _run_epoch(
    step: Step, batches: Iterable[Mapping[str, tf.Tensor]], split: SplitReader, title: str
) -> dict[str, float]:
    """Runs one pass over a split and gives its metrics."""
    totals = tf.zeros([len(TOTALS)], tf.float64)
    looked_at_step, looked_at_s = 0, time.perf_counter()
    # disable=None: a bar on a terminal, nothing in a log file.
    with tqdm(total=split.num_slices, desc=title, unit="slice", disable=None, leave=False) as bar:
        for index, batch in enumerate(batches, start=1):
            totals += step(batch)
            now_s = time.perf_counter()
            if index == split.steps or now_s - looked_at_s > SECONDS_BETWEEN_LOOKS:
                metrics = summarize(np.asarray(totals).tolist())
                check_finite(metrics["loss"], first_step=looked_at_step + 1, last_step=index)
                bar.set_postfix(loss=f"{metrics['loss']:.4f}", dice=f"{metrics['dice_pooled']:.4f}")
                bar.update(int(totals[TOTALS.index("num_slices")]) - bar.n)
                looked_at_step, looked_at_s = index, now_s
    return summarize(np.asarray(totals).tolist())


def _log_start(
    config: TrainerConfig,
    model: keras.Model,
    training: SplitReader,
    validation: SplitReader,
    rows: list[Row],
) -> None:
    logger.info(
        "global batch %d = %d replicas x %d slices%s; %d training slices, %d steps an epoch; "
        "%d validation slices; U-Net %dx%d, %d filters, depth %d, %s parameters, %s",
        config.global_batch_size,
        training.num_replicas,
        training.padded_batch_size // training.num_replicas,
        " (padded)" if training.padded_batch_size != config.global_batch_size else "",
        training.num_slices,
        training.steps,
        validation.num_slices,
        config.image_size,
        config.image_size,
        config.filters,
        config.depth,
        f"{model.count_params():,}",
        config.precision,
    )
    if rows:
        logger.info("going on after epoch %d of an earlier run in %s", len(rows), config.out)


def _log_epoch(rows: list[Row], writer: tf.summary.SummaryWriter, config: TrainerConfig) -> None:
    row = rows[-1]
    with writer.as_default(step=int(row["epoch"])):
        for name, value in row.items():
            if name.startswith(("train_", "validation_")):
                tf.summary.scalar(name.replace("_", "/", 1), value)
    writer.flush()
    logger.info(
        "epoch %d/%d: loss %.4f, Dice %.4f; validation loss %.4f, accuracy %.4f, Dice %.4f, "
        "IoU %.4f; %.1f slices/s; best epoch %d",
        row["epoch"],
        config.epochs,
        row["train_loss"],
        row["train_dice_pooled"],
        row["validation_loss"],
        row["validation_accuracy"],
        row["validation_dice_pooled"],
        row["validation_iou_pooled"],
        row["slices_per_s"],
        best_epoch(rows),
    )
