import csv
import json
import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from preprocessing.manifest import DatasetManifest, ManifestError
from trainer import train
from trainer.config import TrainerConfig
from trainer.run_folder import claimed, load_best_model
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


def test_folder_whose_name_tensorflow_takes_for_a_pattern_is_refused(config, tmp_path):
    with pytest.raises(ValueError, match=r"cannot keep checkpoints below a name with \[ \];"):
        run(replace(config, out=tmp_path / "run[1]"))
    assert not (tmp_path / "run[1]").exists()


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


def test_exhausted_memory_is_told_with_what_to_lower(config, monkeypatch):
    def exhausted(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\nmore")

    monkeypatch.setattr(train, "_run_epoch", exhausted)
    with pytest.raises(ValueError, match=r"lower --global-batch-size, .*OOM when allocating\)$"):
        run(config)


@pytest.mark.parametrize("kind", ["latest", "best"])
def test_damaged_checkpoint_is_named(config, kind):
    run(replace(config, epochs=1))
    (data,) = (config.out / "checkpoints" / kind).glob("*.data-*")
    data.write_bytes(data.read_bytes()[:10])
    with pytest.raises(ValueError, match=f"the checkpoint .*/{kind}/ckpt-1 is damaged"):
        run(replace(config, epochs=1))


def test_run_without_a_finished_epoch_has_no_model(config):
    config.out.mkdir()
    (config.out / "config.json").write_text(config.to_json())
    with pytest.raises(ValueError, match="holds no checkpoint yet: train it for an epoch"):
        load_best_model(config.out)


def test_saved_config_is_the_one_of_the_run(trained_run):
    assert TrainerConfig.load(trained_run).epochs == 25


def test_finished_run_goes_on_with_more_epochs(config):
    run(replace(config, epochs=1))
    run(replace(config, epochs=2))
    assert [row["epoch"] for row in history_of(config.out)] == ["1", "2"]
    assert TrainerConfig.load(config.out).epochs == 2
