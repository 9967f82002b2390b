import csv
import json
import logging
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from preprocessing.manifest import DatasetManifest, ManifestError
from tests.trainer.runs import latest_arrays
from trainer import losses, train
from trainer import precision as precision_module
from trainer.checkpoints import model_of
from trainer.config import TrainerConfig
from trainer.distribution import place
from trainer.export import ExportConfig, export
from trainer.input_pipeline import SplitReader
from trainer.interruption import WorkerLostError
from trainer.metrics import METRICS, TOTALS
from trainer.optimizer import Optimizer
from trainer.resizing import resize_image, resize_mask
from trainer.run_folder import claimed, load_best_model
from trainer.steps import make_training_steps, make_validation_steps
from trainer.train import run


def history_of(run_dir) -> list[dict[str, str]]:
    with (run_dir / "history.csv").open() as file:
        return list(csv.DictReader(file))


def test_run_leaves_all_that_a_user_looks_for(trained_run):
    names = {entry.name for entry in trained_run.iterdir()}
    assert names == {
        "MODEL_CARD.md",
        "checkpoints",
        "config.json",
        "dataset.json",
        "curves.png",
        "evaluation.json",
        "history.csv",
        "predictions.png",
        "tensorboard",
    }
    for picture in ("curves.png", "predictions.png"):
        with Image.open(trained_run / picture) as image:
            assert image.width > 800
    assert list((trained_run / "tensorboard").glob("events.out.tfevents.*"))


def test_training_finds_the_lungs_of_a_patient_it_has_not_seen(trained_run):
    overall = json.loads((trained_run / "evaluation.json").read_text())["overall"]
    assert overall["dice_pooled"] > 0.8
    assert overall["accuracy"] > 0.95


def test_start_line_gives_the_arithmetic(config, caplog, no_pictures):
    caplog.set_level(logging.INFO, logger="trainer.train")
    run(replace(config, epochs=1, global_batch_size=5, devices="cpu:2", accumulation_steps=2))
    assert (
        "global batch 5 = 1 workers x 2 replicas x 4 slices in 2 parts (padded); 10 training "
        "slices, 2 steps an epoch; 5 validation slices; U-Net 32x32, 4 filters, depth 2, 7,397 "
        "parameters, float32; recipe: reference, but --epochs 1 --learning-rate 0.005; slices kept "
        "in: memory"
    ) in caplog.text


def test_epoch_is_told_with_loss_dice_speed_and_time_left(config, caplog, no_pictures):
    caplog.set_level(logging.INFO, logger="trainer.train")
    run(config)
    assert re.search(
        r"epoch 1/2: loss \d\.\d{4}, Dice \d\.\d{4}; validation loss \d\.\d{4}, accuracy "
        r"\d\.\d{4}, Dice \d\.\d{4}, IoU \d\.\d{4}; \d+\.\d slices/s, \d\d:\d\d to go at most",
        caplog.text,
    )


def test_tensorboard_has_the_figures_and_pictures(config):
    run(replace(config, ema_decay=0.5))
    accumulator = EventAccumulator(str(config.out / "tensorboard")).Reload()
    names = set(accumulator.Tags()["tensors"])
    assert {"train/loss", "validation/dice_pooled", "train/learning_rate"} <= names
    assert "speed/slices_per_s" in names
    (panel,) = [name for name in names if "reference" in name]
    images = tf.make_ndarray(accumulator.Tensors(panel)[-1].tensor_proto)
    width, height, *pictures = images.tolist()
    assert (int(width), int(height)) == (96, 32)  # slice, reference and probability
    assert len(pictures) == 4


def test_finished_run_is_not_trained_again(config, monkeypatch, no_pictures):
    run(replace(config, epochs=1))
    monkeypatch.setattr(train._Training, "_run_epoch", lambda *_: pytest.fail("trained again"))
    run(replace(config, epochs=1))


def test_early_stopping_ends_the_run_and_keeps_the_best_epoch(config, monkeypatch, no_pictures):
    losses = iter([0.4, 0.9, 0.8])

    def pretend(training, interruption):
        return {name: 0.5 for name in METRICS} | {"loss": next(losses)}

    monkeypatch.setattr(train._Training, "_validate", pretend)
    run(replace(config, epochs=50, patience=2))
    assert [row["validation_loss"] for row in history_of(config.out)] == ["0.4", "0.9", "0.8"]
    best = config.out / "checkpoints" / "best"
    assert [entry.name for entry in best.iterdir()] == ["epoch-0001"]


def test_best_weights_are_those_of_the_best_epoch(config, monkeypatch, no_pictures):
    losses = iter([0.5, 0.4, 0.9])
    weights = []

    def pretend(training, interruption):
        weights.append([each.numpy() for each in training.measured.weights])
        return {name: 0.5 for name in METRICS} | {"loss": next(losses)}

    monkeypatch.setattr(train._Training, "_validate", pretend)
    run(replace(config, epochs=3, ema_decay=0.5))
    for value, expected in zip(load_best_model(config.out)[1].weights, weights[1], strict=True):
        assert np.array_equal(value, expected)
    assert not np.array_equal(weights[1][0], weights[2][0])


def test_what_is_measured_is_the_average_and_what_is_trained_goes_on(config, no_pictures):
    config = replace(config, epochs=3, ema_decay=0.5)
    run(config)
    arrays = latest_arrays(config.out)
    name = "down0_conv1/kernel"
    assert not np.array_equal(arrays[f"weights.npz/{name}"], arrays[f"training.npz/{name}"])
    plain = replace(config, ema_decay=0.0, out=config.out.with_name("plain"))
    run(plain)
    trained = latest_arrays(plain.out)[f"weights.npz/{name}"]
    assert np.array_equal(arrays[f"training.npz/{name}"], trained)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_trains_and_is_exported(config, precision, tmp_path):
    config = replace(config, precision=precision, normalization="instance", epochs=3)
    run(config)
    losses = [float(row["train_loss"]) for row in history_of(config.out)]
    assert losses[-1] < losses[0]
    export(ExportConfig(run=config.out, out=tmp_path / "model"))


def test_precision_that_auto_stands_for_is_kept_with_the_run(config, monkeypatch, no_pictures):
    config = replace(config, precision="auto", epochs=1)
    monkeypatch.setattr(precision_module, "_cpu_flags", lambda: {"avx512_bf16"})
    run(config)
    assert TrainerConfig.load(config.out).precision == "bfloat16"
    monkeypatch.setattr(precision_module, "_cpu_flags", lambda: set())  # on another machine
    run(replace(config, epochs=2))
    assert TrainerConfig.load(config.out).precision == "bfloat16"
    assert len(history_of(config.out)) == 2


def test_loss_that_is_no_number_stops_the_run_and_names_the_step(config, no_pictures):
    with pytest.raises(
        FloatingPointError,
        match=r"the training loss became nan in step \d of epoch \d; try a lower",
    ):
        run(replace(config, learning_rate=1e30, epochs=3))


def test_step_whose_loss_is_no_number_is_the_one_that_is_named(config, monkeypatch, no_pictures):
    real = losses.binary_cross_entropy

    def spoiled(*, mask, logits):
        # The training slices hold 3 + 7 lungs; one of the batches has this number of lung pixels.
        total = tf.reduce_sum(tf.cast(mask, tf.int32))
        loss = real(mask=mask, logits=logits)
        return tf.where(total == areas[1], float("nan"), 1.0) * loss

    config = replace(config, flip="none", rotation_degrees=0.0)
    reader = SplitReader(config, DatasetManifest.load(config.data), "train", num_replicas=1)
    batches = list(reader.training_batches(1).as_numpy_iterator())
    areas = [int(batch["mask"].sum()) for batch in batches]
    assert len(set(areas)) == 3
    monkeypatch.setattr(losses, "binary_cross_entropy", spoiled)
    with pytest.raises(FloatingPointError, match="became nan in step 2 of epoch 1; try"):
        run(config)


def test_batch_smaller_than_the_replicas_is_refused(config):
    with pytest.raises(
        ValueError, match="--global-batch-size is 2, but there are 3 replicas; expected a slice"
    ):
        run(replace(config, global_batch_size=2, devices="cpu:3"))
    assert not config.out.exists()


def test_folder_of_another_run_is_refused(config):
    run(replace(config, epochs=1))
    with pytest.raises(ValueError, match=r"holds another run \(--filters 4 there, 8 here\)"):
        run(replace(config, epochs=1, filters=8))


def test_folder_with_something_else_is_refused(config):
    config.out.mkdir()
    (config.out / "holiday.txt").write_text("photos")
    with pytest.raises(ValueError, match="is not empty and holds no training run"):
        run(config)
    assert [entry.name for entry in config.out.iterdir()] == ["holiday.txt"]


def test_folder_without_a_dataset_is_refused_before_anything_is_written(config, tmp_path):
    with pytest.raises(ValueError, match="holds no dataset.json, so it is not a whole dataset"):
        run(replace(config, data=tmp_path))
    assert not config.out.exists()


def test_run_with_another_dataset_is_refused(config, other_dataset):
    run(replace(config, epochs=1))
    with pytest.raises(ValueError, match="holds another run .another dataset than the one in"):
        run(replace(config, epochs=1, data=other_dataset))


def test_run_goes_on_where_the_dataset_was_moved_to(config, tmp_path):
    shutil.copytree(config.data, tmp_path / "first")
    run(replace(config, epochs=1, data=tmp_path / "first"))
    (tmp_path / "first").rename(tmp_path / "second")
    run(replace(config, epochs=1, data=tmp_path / "second"))
    evaluation = json.loads((config.out / "evaluation.json").read_text())
    assert evaluation["data"] == str(tmp_path / "second")
    assert TrainerConfig.load(config.out).data == tmp_path / "second"


def test_second_training_in_the_same_folder_is_refused(config):
    manifest = DatasetManifest.load(config.data)
    with claimed(config, manifest):
        with pytest.raises(ValueError, match="another process trains in --out"):
            run(config)
    with claimed(config, manifest):  # free again
        pass


def test_folder_may_have_any_name(config, tmp_path, no_pictures):
    run(replace(config, out=tmp_path / "run[1]*", epochs=1))
    load_best_model(tmp_path / "run[1]*")


def test_folder_below_a_file_is_refused(config, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="cannot be a folder: Not a directory; choose another"):
        run(replace(config, out=tmp_path / "file" / "run"))


def test_shard_with_a_flipped_byte_is_named(config, tmp_path):
    shutil.copytree(config.data, tmp_path / "copy")
    shard = tmp_path / "copy" / "train-00001-of-00003.tfrecord"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ManifestError, match=f"^{shard} is damaged: its SHA-256 is not the one in"):
        run(replace(config, data=tmp_path / "copy"))
    assert not config.out.exists()  # known before training starts


def test_exhausted_memory_is_told_with_what_to_lower(config, monkeypatch):
    def exhausted(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\nmore")

    monkeypatch.setattr(train._Training, "_run_epoch", exhausted)
    with pytest.raises(ValueError, match=r"lower --global-batch-size, .*OOM when allocating\)$"):
        run(config)


def test_run_without_a_finished_epoch_has_no_model(config):
    config.out.mkdir()
    (config.out / "config.json").write_text(config.to_json())
    with pytest.raises(ValueError, match="holds no checkpoint yet: train it for an epoch"):
        load_best_model(config.out)


def test_saved_config_is_the_one_of_the_run(trained_run):
    assert TrainerConfig.load(trained_run).epochs == 25


@pytest.mark.parametrize("resume", ["auto", "always"])
def test_finished_run_goes_on_with_more_epochs(config, resume, no_pictures):
    run(replace(config, epochs=1))
    run(replace(config, epochs=2, resume=resume))
    assert [row["epoch"] for row in history_of(config.out)] == ["1", "2"]
    assert TrainerConfig.load(config.out).epochs == 2


@pytest.mark.parametrize("schedule", ["cosine", "cosine_by_size"])
def test_cosine_schedule_cannot_go_on_with_other_epochs(config, no_pictures, schedule):
    run(replace(config, epochs=1, schedule=schedule))
    with pytest.raises(ValueError, match="--epochs 1 there, 2 here, on which the learning rates"):
        run(replace(config, epochs=2, schedule=schedule))


def test_run_that_is_to_begin_does_not_go_on(config, no_pictures):
    run(replace(config, epochs=1))
    with pytest.raises(ValueError, match="--resume is never, but --out .* holds a training run"):
        run(replace(config, epochs=2, resume="never"))


def test_run_that_is_to_go_on_does_not_begin(config):
    with pytest.raises(ValueError, match="--resume is always, but --out .* holds no checkpoint"):
        run(replace(config, resume="always"))


def test_what_a_killed_process_left_half_written_is_removed(config, no_pictures):
    run(replace(config, epochs=1))
    (config.out / ".history.0f.partial.csv").write_text("x")
    (config.out / "checkpoints" / "latest" / ".epoch-0001-step-000002.0f.partial").mkdir()
    run(replace(config, epochs=2))
    assert not list(config.out.rglob("*.partial*"))


def test_slices_kept_on_disk_are_removed_at_the_end(config, no_pictures):
    run(replace(config, epochs=1, cache="disk"))
    assert not (config.out / "cache").exists()


def test_workers_that_found_different_checkpoints_are_told(config, monkeypatch):
    monkeypatch.setattr(train.Placement, "sum_over_workers", lambda self, numbers: [7.0])
    with pytest.raises(
        ValueError, match="worker 0 found a checkpoint of epoch 1, step 0 in .*one fo"
    ):
        run(config)


@pytest.mark.parametrize(
    "error",
    [tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError],
)
def test_lost_worker_is_told(config, monkeypatch, error):
    def lose(*_):
        raise error(None, None, "connection reset")

    monkeypatch.setattr(train._Training, "_run_epoch", lose)
    with pytest.raises(WorkerLostError, match="start all workers again, and they go on from the"):
        run(config)


def first_step(config: TrainerConfig, batch: dict[str, tf.Tensor], *, reduction: int) -> list:
    """Gives the weights after one step on a batch."""
    placement = place("cpu")
    model = model_of(config)
    variables = [weight.value for weight in model.trainable_variables]
    optimizer = Optimizer(config, variables, [], steps_per_epoch=1)
    steps = make_training_steps(config, placement, model, optimizer, reduction=reduction)
    batches = iter(tf.data.Dataset.from_tensors(batch))
    steps(batches, tf.constant(1), tf.zeros([len(TOTALS)], tf.float64))
    return model.get_weights()


@pytest.mark.parametrize("reduction", [2, 4])
def test_coarse_step_is_a_step_on_smaller_slices(config, reduction):
    config = replace(config, flip="none", rotation_degrees=0.0, normalization="instance")
    manifest = DatasetManifest.load(config.data)
    batch = next(iter(SplitReader(config, manifest, "train", num_replicas=1).training_batches(1)))
    size = config.image_size // reduction
    reduced = {
        **batch,
        "image": resize_image(batch["image"], size),
        "mask": resize_mask(batch["mask"], size),
    }
    coarse = first_step(config, batch, reduction=reduction)
    small = first_step(replace(config, image_size=size), reduced, reduction=1)
    full = first_step(config, batch, reduction=1)
    for one, other in zip(coarse, small, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert any(not np.allclose(one, other) for one, other in zip(coarse, full, strict=True))


def test_coarse_epochs_are_the_first_ones(config, monkeypatch, no_pictures):
    seen = []
    real = train._Training._call

    def note(self, steps, batches, num_steps, progress, what):
        known = self.training_steps if what == "training" else self.validation_steps
        seen.append((progress.epoch, next(key for key, each in known.items() if each is steps)))
        return real(self, steps, batches, num_steps, progress, what)

    monkeypatch.setattr(train._Training, "_call", note)
    config = replace(config, epochs=4, coarse_share=0.9)
    run(config)
    # Training and validation alike.
    assert set(seen) == {(1, 4), (2, 2), (3, 2), (4, 1)}
    sizes = [int(row["image_size"]) for row in history_of(config.out)]
    assert sizes == [config.image_size // reduction for reduction in (4, 2, 2, 1)]


def test_coarse_validation_is_that_of_smaller_slices(config):
    placement = place("cpu")
    model = model_of(config)
    split = SplitReader(config, DatasetManifest.load(config.data), "validation", num_replicas=1)
    batch = next(iter(split.evaluation_batches()))
    size = config.image_size // 2
    reduced = {
        **batch,
        "image": resize_image(batch["image"], size),
        "mask": resize_mask(batch["mask"], size),
    }

    def totals(batch, *, reduction):
        steps = make_validation_steps(config, placement, model, reduction=reduction)
        batches = iter(tf.data.Dataset.from_tensors(batch))
        return steps(batches, tf.constant(1), tf.zeros([len(TOTALS)], tf.float64))[0].numpy()

    np.testing.assert_allclose(totals(batch, reduction=2), totals(reduced, reduction=1))
    assert not np.allclose(totals(batch, reduction=2), totals(batch, reduction=1))
