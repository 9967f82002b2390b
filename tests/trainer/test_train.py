import csv
import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from trainer import train
from trainer.config import TrainerConfig
from trainer.run_folder import load_best_model
from trainer.train import run


def history_of(run_dir) -> list[dict[str, str]]:
    """Gives the rows without the columns that tell how long it took."""
    with (run_dir / "history.csv").open() as file:
        return [
            {k: v for k, v in row.items() if k not in ("seconds", "slices_per_s")}
            for row in csv.DictReader(file)
        ]


def test_run_leaves_all_that_a_user_looks_for(trained_run):
    names = {entry.name for entry in trained_run.iterdir()}
    assert names == {
        "checkpoints",
        "config.json",
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


def test_start_line_gives_the_arithmetic(config, caplog):
    caplog.set_level(logging.INFO, logger="trainer.train")
    run(replace(config, epochs=1, global_batch_size=5))
    assert (
        "global batch 5 = 2 replicas x 3 slices (padded); 10 training slices, 2 steps an epoch; "
        "5 validation slices; U-Net 32x32, 4 filters, depth 2"
    ) in caplog.text


def test_run_that_was_stopped_goes_on_as_if_it_had_not_been(config, monkeypatch, tmp_path):
    config = replace(config, epochs=3)
    run(config)
    stopped = replace(config, out=tmp_path / "stopped")

    def stop_in_third_epoch(step, batches, split, title):
        if title.startswith("epoch 3"):
            raise KeyboardInterrupt
        return real(step, batches, split, title)

    real = train._run_epoch
    monkeypatch.setattr(train, "_run_epoch", stop_in_third_epoch)
    with pytest.raises(KeyboardInterrupt):
        run(stopped)
    assert len(history_of(stopped.out)) == 2
    monkeypatch.undo()
    run(stopped)
    for row, other in zip(history_of(config.out), history_of(stopped.out), strict=True):
        assert {k: float(v) for k, v in row.items()} == pytest.approx(
            {k: float(v) for k, v in other.items()}, abs=1e-6
        )
    weights = [load_best_model(folder)[1].get_weights() for folder in (config.out, stopped.out)]
    for first, second in zip(*weights, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-6)


def test_finished_run_is_not_trained_again(config, monkeypatch):
    run(replace(config, epochs=1))
    monkeypatch.setattr(train, "_run_epoch", lambda *_: pytest.fail("trained again"))
    run(replace(config, epochs=1))


def test_early_stopping_ends_the_run_and_keeps_the_best_epoch(config, monkeypatch):
    losses = iter([0.5, 0.4, 0.3, 0.9, 0.3, 0.8])  # training and validation in turn

    def pretend(step, batches, split, title):
        metrics = {name: 0.5 for name in train.summarize([1.0] * len(train.TOTALS))}
        return {**metrics, "loss": next(losses)}

    monkeypatch.setattr(train, "_run_epoch", pretend)
    run(replace(config, epochs=50, patience=2))
    assert [row["validation_loss"] for row in history_of(config.out)] == ["0.4", "0.9", "0.8"]
    assert list((config.out / "checkpoints" / "best").glob("ckpt-1.index"))


def test_loss_that_is_no_number_stops_the_run(config):
    with pytest.raises(
        FloatingPointError, match=r"the loss became nan between steps \d and \d; try a lower"
    ):
        run(replace(config, learning_rate=1e30, epochs=3))


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


def test_run_without_a_finished_epoch_has_no_model(config):
    config.out.mkdir()
    (config.out / "config.json").write_text(config.to_json())
    with pytest.raises(ValueError, match="holds no checkpoint yet: train it for an epoch"):
        load_best_model(config.out)


def test_saved_config_is_the_one_of_the_run(trained_run):
    assert TrainerConfig.load(trained_run).epochs == 25
