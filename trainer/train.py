"""Training, top to bottom in the order in which things happen."""

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from preprocessing.manifest import DatasetManifest
from preprocessing.spec import TRAIN_SPLIT, VALIDATION_SPLIT
from trainer.checkpoints import Checkpoints, Progress, model_of
from trainer.config import (
    AUTO,
    CONFIG_FILENAME,
    REDUCTIONS,
    TrainerConfig,
    describe_recipe,
)
from trainer.distribution import Placement, place
from trainer.evaluation.config import EvaluationConfig
from trainer.evaluation.job import evaluate
from trainer.failures import explained
from trainer.figures import draw_curves
from trainer.history import (
    FILENAME as HISTORY_FILENAME,
)
from trainer.history import (
    Row,
    best_epoch,
    check_finite,
    should_stop,
    write_history,
)
from trainer.input_pipeline import SplitReader
from trainer.interruption import Interruption
from trainer.metrics import TOTALS, summarize
from trainer.model import UNet
from trainer.model_card import write_model_card
from trainer.optimizer import Optimizer
from trainer.precision import resolve_precision
from trainer.run_folder import claimed
from trainer.slice_store import remove_kept_slices
from trainer.steps import Steps, make_training_steps, make_validation_steps
from trainer.tensorboard import TensorBoard

logger = logging.getLogger(__name__)

SECONDS_IN_A_CALL = 0.5
"""Steps are run in calls of about this time: between two, the bar moves and signals are heard."""


def run(config: TrainerConfig, *, is_measured: bool = True) -> None:
    """Trains until the loss stops falling, then evaluates the best epoch and draws it.

    A run that was stopped goes on where its last checkpoint is. When several workers train
    together, each of them calls this; the chief writes.

    Args:
        config: all settings.
        is_measured: evaluate and draw the best epoch at the end, and write the model card.

    Raises:
        ValueError: if the dataset, the folder or the devices do not fit the settings; this is known
            before training starts. Or if a checkpoint cannot be written.
        FloatingPointError: if the loss becomes NaN or infinite.
        KeyboardInterrupt: if SIGTERM (``Terminated``) or Ctrl-C came, once the state is saved.
        WorkerLostError: if another worker is gone.
    """
    manifest = DatasetManifest.load(config.data)
    with explained(config.data, manifest):
        _run(config, manifest, is_measured=is_measured)


def _run(config: TrainerConfig, manifest: DatasetManifest, *, is_measured: bool) -> None:
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    placement = place(config.devices)
    config = _resolved(config, placement)
    training, validation = (
        SplitReader(
            config,
            manifest,
            split,
            num_replicas=placement.num_replicas,
            num_workers=placement.num_workers,
            worker_index=placement.worker_index,
        )
        for split in (TRAIN_SPLIT, VALIDATION_SPLIT)
    )
    with claimed(config, manifest) if placement.is_chief else contextlib.nullcontext():
        placement.sum_over_workers([0.0])  # no worker looks for a checkpoint before this
        rows = _Training(config, placement, training, validation).run()
        if placement.is_chief:
            draw_curves(rows, config.out / "curves.png")
            if is_measured:
                evaluate(EvaluationConfig(run=config.out, out=config.out, data=config.data))
                write_model_card(config.out)
            remove_kept_slices(config.out / "cache")
        placement.sum_over_workers([0.0])  # the others stay until the chief is done


def _resolved(config: TrainerConfig, placement: Placement) -> TrainerConfig:
    """Replaces what the settings leave to the machine, and checks the batch against it.

    Raises:
        ValueError: if some replica could never have a slice, or has no such precision.
    """
    if config.global_batch_size < placement.num_replicas:
        raise ValueError(
            f"--global-batch-size is {config.global_batch_size}, but there are "
            f"{placement.num_replicas} replicas; expected a slice for each at least, or fewer "
            "devices (--devices)"
        )
    asked = config.precision
    if asked == AUTO and (config.out / CONFIG_FILENAME).exists():
        asked = TrainerConfig.load(config.out).precision  # a run keeps to what it began with
    precision = resolve_precision(asked, placement.device_kind)
    return dataclasses.replace(config, precision=precision)


class _Training:
    """The state of a training under way."""

    def __init__(
        self,
        config: TrainerConfig,
        placement: Placement,
        training: SplitReader,
        validation: SplitReader,
    ) -> None:
        """Builds model, optimizer and steps, and restores the last checkpoint."""
        self.config = config
        self.placement = placement
        self.training = training
        self.validation = validation
        with placement.scope():
            trained = model_of(config)
            measured = model_of(config) if config.ema_decay else trained
            optimizer = Optimizer(
                config,
                [weight.value for weight in trained.trainable_variables],
                [weight.value for weight in measured.trainable_variables]
                if config.ema_decay
                else [],
                steps_per_epoch=training.steps,
            )
            self.checkpoints = Checkpoints(
                config, trained=trained, measured=measured, optimizer=optimizer
            )
            self.progress = self.checkpoints.restore()
        self.measured = measured
        self.optimizer = optimizer
        self.training_steps = {
            reduction: make_training_steps(
                config, placement, trained, optimizer, reduction=reduction
            )
            for reduction in REDUCTIONS
        }
        self.validation_steps = {
            reduction: make_validation_steps(config, placement, measured, reduction=reduction)
            for reduction in REDUCTIONS
        }
        self.last_save_s = time.monotonic()
        self.pace = _Pace()
        self._check_agreement()

    def run(self) -> list[Row]:
        """Runs epochs until it is time to stop; gives the rows of all epochs."""
        config, progress = self.config, self.progress
        if self.placement.is_chief:
            _log_start(config, self.placement, self.training, self.validation, self.measured)
            if progress.rows or progress.step:
                logger.info(
                    "going on in epoch %d after step %d of %d",
                    *(progress.epoch, progress.step, self.training.steps),
                )
            write_history(config.out / HISTORY_FILENAME, progress.rows)
            self.board = TensorBoard(config.out, self.validation)
        with Interruption() as interruption:
            while not should_stop(progress.rows, epochs=config.epochs, patience=config.patience):
                self._run_epoch(interruption)
            if interruption.is_requested:
                raise interruption.exception()  # all is saved already
        return progress.rows

    def _run_epoch(self, interruption: Interruption) -> None:
        """Runs what is left of an epoch, measures the model, and saves."""
        progress = self.progress
        start_s, first_step = time.perf_counter(), progress.step
        self._train_epoch(interruption)
        train_s = time.perf_counter() - start_s
        measured = self._validate(interruption)
        epoch_s = time.perf_counter() - start_s
        train = summarize(progress.totals)
        progress.rows.append(
            {
                "epoch": progress.epoch,
                "image_size": self.config.image_size // self.config.reduction(progress.epoch),
                **{f"train_{name}": value for name, value in train.items()},
                **{f"validation_{name}": value for name, value in measured.items()},
            }
        )
        progress.epoch, progress.step = progress.epoch + 1, 0
        progress.totals = Progress().totals
        if self.placement.is_chief:
            self._save()
            write_history(self.config.out / HISTORY_FILENAME, progress.rows)
            share = 1 - first_step / self.training.steps
            slices_per_s = share * self.training.num_slices / train_s
            self._report(slices_per_s, epoch_s)

    def _report(self, slices_per_s: float, epoch_s: float) -> None:
        rows = self.progress.rows
        step = tf.constant(int(np.asarray(self.optimizer.step)))
        speed = {
            "speed/slices_per_s": slices_per_s,
            "train/learning_rate": float(self.optimizer.learning_rate(step)),
        }
        self.board.write(rows[-1], speed=speed)
        if best_epoch(rows) == rows[-1]["epoch"]:
            self.board.write_panels(self.measured, epoch=best_epoch(rows))
        _log_epoch(rows, self.config, slices_per_s, epoch_s)

    def _train_epoch(self, interruption: Interruption) -> None:
        """Runs what is left of an epoch.

        Raises:
            FloatingPointError: if the loss is no number any more.
            KeyboardInterrupt: if a signal came; the state is saved then.
        """
        progress, split = self.progress, self.training
        batches = iter(split.training_batches(progress.epoch, first_step=progress.step))
        steps = self.training_steps[self.config.reduction(progress.epoch)]
        with self._bar(split, f"epoch {progress.epoch}/{self.config.epochs}") as bar:
            while progress.step < split.steps:
                num_steps = self._agree(split.steps - progress.step, interruption)
                totals = self._call(steps, batches, num_steps, progress, "training")
                progress.totals = totals
                progress.step += num_steps
                _show(bar, totals)
                if self._is_save_due():
                    self._save()

    def _validate(self, interruption: Interruption) -> dict[str, float]:
        """Measures the model on the validation split, at the size of the epoch."""
        split = self.validation
        steps = self.validation_steps[self.config.reduction(self.progress.epoch)]
        batches = iter(split.evaluation_batches())
        measuring = Progress(epoch=self.progress.epoch)
        with self._bar(split, "validation") as bar:
            while measuring.step < split.steps:
                num_steps = self._agree(split.steps - measuring.step, interruption)
                measuring.totals = self._call(steps, batches, num_steps, measuring, "validation")
                measuring.step += num_steps
                _show(bar, measuring.totals)
        return summarize(measuring.totals)

    def _call(
        self,
        steps: Steps,
        batches: Iterator[dict[str, tf.Tensor]],
        num_steps: int,
        progress: Progress,
        what: str,
    ) -> list[float]:
        """Runs some steps in one graph; gives the totals after them."""
        start_s = time.perf_counter()
        totals, bad_step = steps(
            batches, tf.constant(num_steps), tf.constant(progress.totals, tf.float64)
        )
        values: list[float] = np.asarray(totals).tolist()
        self.pace.note(num_steps, time.perf_counter() - start_s)
        check_finite(
            values[TOTALS.index("loss_sum")],
            epoch=progress.epoch,
            step=progress.step + int(bad_step),
            what=what,
        )
        return values

    def _agree(self, num_left: int, interruption: Interruption) -> int:
        """Agrees with the other workers on the number of steps until they agree again.

        Raises:
            KeyboardInterrupt: if one of them is to stop; the chief has saved the state then.
        """
        asked = min(num_left, self.pace.num_steps)
        if self.config.checkpoint_steps:
            to_save = -self.progress.step % self.config.checkpoint_steps
            asked = min(asked, to_save or self.config.checkpoint_steps)
        is_stopped, num_steps = self.placement.sum_over_workers(
            [float(interruption.is_requested), asked if self.placement.is_chief else 0.0]
        )
        if is_stopped:
            if self.placement.is_chief:
                self._save()
                logger.info(
                    "stopped in epoch %d after step %d of %d; the state is saved, and the same "
                    "command goes on from there",
                    *(self.progress.epoch, self.progress.step, self.training.steps),
                )
            raise interruption.exception()
        return int(num_steps)

    def _is_save_due(self) -> bool:
        config, step = self.config, self.progress.step
        if not self.placement.is_chief or step == self.training.steps:
            return False  # after an epoch it is saved in any case
        is_late = time.monotonic() - self.last_save_s >= 60 * config.checkpoint_minutes
        return is_late or bool(config.checkpoint_steps and step % config.checkpoint_steps == 0)

    def _save(self) -> None:
        self.checkpoints.save(self.progress)
        self.last_save_s = time.monotonic()

    def _check_agreement(self) -> None:
        """Looks whether all workers restored the same checkpoint.

        Raises:
            ValueError: if not: they do not see the same folder.
        """
        own = 1e6 * self.progress.epoch + self.progress.step
        (total,) = self.placement.sum_over_workers([own])
        if total != own * self.placement.num_workers:
            raise ValueError(
                f"worker {self.placement.worker_index} found a checkpoint of epoch "
                f"{self.progress.epoch}, step {self.progress.step} in {self.config.out}, others "
                "found another; expected one folder that all workers share"
            )

    def _bar(self, split: SplitReader, title: str) -> tqdm:
        # disable=None: a bar on a terminal, nothing in a log file.
        return tqdm(
            total=split.num_slices,
            desc=title,
            unit="slice",
            disable=None if self.placement.is_chief else True,
            leave=False,
        )


class _Pace:
    """How many steps fit into a call."""

    def __init__(self) -> None:
        self.num_steps = 1

    def note(self, num_steps: int, seconds: float) -> None:
        """Learns from a call; the first one is slow, as it makes the graph."""
        self.num_steps = max(1, min(1000, math.floor(SECONDS_IN_A_CALL * num_steps / seconds)))


def _show(bar: tqdm, totals: list[float]) -> None:
    metrics = summarize(totals)
    bar.set_postfix(
        loss=f"{metrics['loss']:.4f}", dice=f"{metrics['dice_pooled']:.4f}", refresh=False
    )
    bar.update(int(totals[TOTALS.index("num_slices")]) - bar.n)


def _log_start(
    config: TrainerConfig,
    placement: Placement,
    training: SplitReader,
    validation: SplitReader,
    model: UNet,
) -> None:
    parts = placement.num_replicas * config.accumulation_steps
    logger.info(
        "global batch %d = %d workers x %d replicas x %d slices%s%s; %d training slices, %d steps "
        "an epoch; %d validation slices; U-Net %dx%d, %d filters, depth %d, %s parameters, %s; "
        "recipe: %s; slices kept in: %s",
        config.global_batch_size,
        placement.num_workers,
        placement.num_local_replicas,
        training.padded_batch_size // placement.num_replicas,
        f" in {config.accumulation_steps} parts" if config.accumulation_steps > 1 else "",
        " (padded)" if config.global_batch_size % parts else "",
        training.num_slices,
        training.steps,
        validation.num_slices,
        config.image_size,
        config.image_size,
        config.filters,
        config.depth,
        f"{model.count_params():,}",
        config.precision,
        describe_recipe(config),
        training.store.kept_in,
    )


def _epochs_left(config: TrainerConfig, num_done: int) -> float:
    """Gives how many epochs are left, in epochs like the last one; coarse ones count less."""

    def cost(epoch: int) -> float:
        # Small slices are not as cheap as their pixels: 7 times in a quarter of the size.
        return config.reduction(epoch) ** -1.4

    return sum(cost(epoch) for epoch in range(num_done + 1, config.epochs + 1)) / cost(num_done)


def _log_epoch(rows: list[Row], config: TrainerConfig, slices_per_s: float, epoch_s: float) -> None:
    row = rows[-1]
    size = int(row["image_size"])
    logger.info(
        "epoch %d/%d%s: loss %.4f, Dice %.4f; validation loss %.4f, accuracy %.4f, Dice %.4f, "
        "IoU %.4f; %.1f slices/s, %s to go at most; best epoch %d",
        row["epoch"],
        config.epochs,
        f" at {size}x{size}" if size < config.image_size else "",
        row["train_loss"],
        row["train_dice_pooled"],
        row["validation_loss"],
        row["validation_accuracy"],
        row["validation_dice_pooled"],
        row["validation_iou_pooled"],
        slices_per_s,
        tqdm.format_interval(_epochs_left(config, len(rows)) * epoch_s),
        best_epoch(rows),
    )
