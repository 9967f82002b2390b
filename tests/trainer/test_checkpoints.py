import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from preprocessing.publish import whole_folder
from trainer import checkpoints as module
from trainer.checkpoints import Checkpoints, Progress, load_checkpoint_model, model_of
from trainer.history import COLUMNS
from trainer.optimizer import Optimizer
from trainer.run_folder import load_best_model


def rows_of(*validation_losses: float) -> list[dict[str, float]]:
    return [
        {**dict.fromkeys(COLUMNS, 0.1), "epoch": float(epoch), "validation_loss": loss}
        for epoch, loss in enumerate(validation_losses, start=1)
    ]


def make(config, *, seed: int = 0) -> Checkpoints:
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "config.json").write_text(config.to_json())
    trained = model_of(replace(config, seed=seed))
    measured = model_of(replace(config, seed=seed + 1)) if config.ema_decay else trained
    variables = [weight.value for weight in trained.trainable_variables]
    optimizer = Optimizer(config, variables, [], steps_per_epoch=3)
    optimizer.first_moments[0].assign_add(tf.ones_like(optimizer.first_moments[0]) * (seed + 0.5))
    return Checkpoints(config, trained=trained, measured=measured, optimizer=optimizer)


def values_of(checkpoints: Checkpoints) -> dict[str, np.ndarray]:
    variables = {**checkpoints._measured, **{f"t/{k}": v for k, v in checkpoints._training.items()}}
    return {name: variable.numpy() for name, variable in variables.items()}


def names(config, kind: str) -> list[str]:
    return sorted(entry.name for entry in (config.out / "checkpoints" / kind).iterdir())


@pytest.mark.parametrize("ema_decay", [0.0, 0.5])
def test_what_was_saved_comes_back_to_the_bit(config, ema_decay):
    config = replace(config, ema_decay=ema_decay, precision="float16")
    saved = make(config, seed=5)
    progress = Progress(epoch=2, step=1, totals=[0.1 + 0.2] * 9, rows=rows_of(1 / 3))
    saved.save(progress)
    restored = make(config)
    assert restored.restore() == progress
    before, after = values_of(saved), values_of(restored)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_run_without_a_checkpoint_begins_at_the_beginning(config):
    assert make(config).restore() == Progress()


def test_last_two_are_kept_and_the_best_one(config):
    checkpoints = make(config)
    for step in (2, 1):
        checkpoints.save(Progress(epoch=1, step=step))
    for epoch in (2, 3, 4):
        checkpoints.save(Progress(epoch=epoch, rows=rows_of(0.5, 0.4, 0.9)[: epoch - 1]))
    assert names(config, "latest") == ["epoch-0003-step-000000", "epoch-0004-step-000000"]
    assert names(config, "best") == ["epoch-0002"]


def test_newest_is_the_one_that_came_last_whatever_the_number_of_digits(config):
    checkpoints = make(config)
    for epoch, step in ((9998, 7), (10001, 3)):
        checkpoints.save(Progress(epoch=epoch, step=step))
    assert make(config).restore().epoch == 10001


def test_kill_between_the_two_saves_of_an_epoch_loses_no_best_weights(config, monkeypatch):
    checkpoints = make(config, seed=5)
    monkeypatch.setattr(Checkpoints, "_save_best", lambda *_: (_ for _ in ()).throw(SystemExit))
    with pytest.raises(SystemExit):
        checkpoints.save(Progress(epoch=2, rows=rows_of(0.5)))
    monkeypatch.undo()
    assert not (config.out / "checkpoints" / "best").exists()
    make(config).restore()
    assert names(config, "best") == ["epoch-0001"]
    model = load_best_model(config.out)[1]
    saved = values_of(checkpoints)
    for weight in model.weights:
        assert np.array_equal(weight, saved[weight.path])


@pytest.mark.parametrize("name", ["weights.npz", "training.npz", "progress.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_damaged_checkpoint_is_named(config, name, damage):
    make(config).save(Progress(epoch=2, step=1))
    folder = config.out / "checkpoints" / "latest" / "epoch-0002-step-000001"
    content = (folder / name).read_bytes()
    if damage == "gone":
        (folder / name).unlink()
    elif damage == "cut":
        (folder / name).write_bytes(content[: len(content) // 2])
    else:
        middle = len(content) // 2
        (folder / name).write_bytes(content[:middle] + b"\xff\xff" + content[middle + 2 :])
    with pytest.raises(ValueError, match=f"the checkpoint {folder} is damaged .*or remove it: the"):
        make(config).restore()


def test_checkpoint_of_another_version_is_told(config):
    make(config).save(Progress(epoch=2, step=0, rows=rows_of(0.5)))
    (folder,) = (config.out / "checkpoints" / "latest").iterdir()
    progress = json.loads((folder / "progress.json").read_text())
    del progress["rows"][0]["image_size"]
    (folder / "progress.json").write_text(json.dumps(progress))
    with pytest.raises(ValueError, match=r"is of another version .*\(image_size\); train anew"):
        make(config).restore()


def test_run_goes_on_from_the_one_before_a_damaged_checkpoint_that_was_removed(config):
    checkpoints = make(config)
    for step in (1, 2):
        checkpoints.save(Progress(epoch=1, step=step))
    shutil.rmtree(config.out / "checkpoints" / "latest" / "epoch-0001-step-000002")
    assert make(config).restore().step == 1


def test_checkpoint_of_another_architecture_is_refused(config):
    make(config).save(Progress(epoch=1, step=1))
    other = replace(config, filters=8)
    with pytest.raises(
        ValueError,
        match=r"is of another model than config.json beside it describes: bottleneck_conv1/bias "
        r"has shape \[16\] there, \[32\] here; restore the folder",
    ):
        make(other).restore()
    with pytest.raises(ValueError, match=r"bottleneck_conv1/bias has shape .16. there, none here"):
        make(replace(config, normalization="instance")).restore()


def test_folder_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path} is no checkpoint: it holds no weights.npz"):
        load_checkpoint_model(tmp_path)


def test_checkpoint_named_as_a_run_is_told(config):
    make(config).save(Progress(epoch=2, rows=rows_of(0.5)))
    folder = config.out / "checkpoints" / "best" / "epoch-0001"
    with pytest.raises(
        ValueError, match="is a checkpoint of a run; name the folder of the run, or"
    ):
        load_best_model(folder)


def test_checkpoint_holds_its_configuration_and_plain_arrays(config):
    make(config).save(Progress(epoch=2, rows=rows_of(0.5)))
    folder = config.out / "checkpoints" / "best" / "epoch-0001"
    assert json.loads((folder / "config.json").read_text())["filters"] == 4
    with np.load(folder / "weights.npz", allow_pickle=False) as file:
        assert file["logits/kernel"].shape == (1, 1, 4, 1)


def test_full_disk_is_told_and_the_checkpoints_before_stay(config, monkeypatch):
    checkpoints = make(config)
    checkpoints.save(Progress(epoch=1, step=1))

    def fill(path, variables):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_save_arrays", fill)
    with pytest.raises(
        ValueError,
        match=r"epoch-0001-step-000002 cannot be written: No space left on device; make room for "
        r"\d+ MiB and give the same command again: the run goes on from epoch-0001-step-000001$",
    ):
        checkpoints.save(Progress(epoch=1, step=2))
    assert names(config, "latest") == ["epoch-0001-step-000001"]
    monkeypatch.undo()
    assert make(config).restore().step == 1


def test_disk_without_room_for_checkpoints_is_told_before_training(config, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(ValueError, match="MiB free, but the checkpoints take .* MiB; make room or"):
        make(config)


def test_checkpoint_that_is_being_written_is_none(config):
    make(config).save(Progress(epoch=1, step=1))
    with whole_folder(config.out / "checkpoints" / "latest" / "epoch-0001-step-000009"):
        assert make(config).restore().step == 1
