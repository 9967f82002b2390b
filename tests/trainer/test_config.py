import json
from pathlib import Path

import pytest

from trainer.config import AUGMENTATION, RECIPES, TrainerConfig, describe_recipe, make_config


def make(**settings: object) -> TrainerConfig:
    return TrainerConfig(data=Path("d"), out=Path("o"), **settings)


def test_defaults_are_the_reference_recipe():
    config = make()
    assert (config.image_size, config.filters, config.depth) == (512, 64, 4)
    assert (config.global_batch_size, config.epochs, config.patience) == (8, 50, 5)
    assert config.flip != "none"
    assert config.rotation_degrees > 0


def test_reference_recipe_is_plain_where_the_letter_says_nothing():
    config = make()
    assert (config.loss, config.learning_rate, config.schedule) == ("bce", 1e-3, "constant")
    assert (config.normalization, config.precision) == ("none", "float32")
    off = {"warmup_epochs", "clip_norm", "ema_decay", "phantom_share", *AUGMENTATION}
    off -= {"flip", "rotation_degrees"}
    assert {name: getattr(config, name) for name in off} == dict.fromkeys(off, 0)
    assert make_config("reference", data=Path("d"), out=Path("o")) == config


def test_flag_wins_over_the_recipe():
    config = make_config("best", data=Path("d"), out=Path("o"), clip_norm=0.25)
    assert config.clip_norm == 0.25
    assert config.loss == "bce_dice"


@pytest.mark.parametrize(
    ("epochs", "share", "reductions"),
    [
        (10, 0.8, [4, 4, 4, 4, 2, 2, 2, 2, 1, 1]),
        (4, 0.9, [4, 2, 2, 1]),
        (1, 0.8, [1]),
        (3, 0.0, [1, 1, 1]),
    ],
)
def test_coarse_epochs_are_a_share_and_never_all(epochs, share, reductions):
    config = make(epochs=epochs, coarse_share=share)
    assert [config.reduction(epoch) for epoch in range(1, epochs + 1)] == reductions


@pytest.mark.parametrize(
    ("size", "depth", "first"), [(128, 4, 4), (64, 4, 2), (128, 5, 2), (256, 5, 4), (96, 3, 4)]
)
def test_coarsest_size_leaves_two_by_two_pixels_at_the_bottom(size, depth, first):
    config = make(image_size=size, depth=depth, epochs=10, coarse_share=0.8)
    assert config.reduction(1) == first
    assert config.reduction(5) == 2


def test_recipe_is_told_with_what_differs_from_it():
    paths = {"data": Path("d"), "out": Path("o")}
    assert describe_recipe(make()) == "reference"
    assert describe_recipe(make(filters=8, devices="cpu:2")) == "reference"  # the task, the machine
    assert describe_recipe(make(epochs=3, flip="none")) == "reference, but --flip none --epochs 3"
    assert describe_recipe(make_config("best", **paths)) == "best"
    assert describe_recipe(make_config("best", **paths, precision="bfloat16")) == "best"
    assert describe_recipe(make_config("best", **paths, noise=1.0)) == "best, but --noise 1.0"


def test_recipes_set_only_what_is_there():
    for name in RECIPES:
        make_config(name, data=Path("d"), out=Path("o"))


def test_unknown_recipe_is_refused():
    with pytest.raises(ValueError, match="--recipe is 'secret'; expected one of reference, best"):
        make_config("secret")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "--epochs is 0; expected at least 1"),
        ({"global_batch_size": -1}, "--global-batch-size is -1; expected at least 1"),
        ({"accumulation_steps": 0}, "--accumulation-steps is 0; expected at least 1"),
        ({"accumulation_steps": 9}, "is 9, but --global-batch-size is 8; expected at most a part"),
        ({"learning_rate": 0.0}, "--learning-rate is 0.0; expected more than 0"),
        ({"learning_rate": float("nan")}, "--learning-rate is nan; expected more than 0"),
        ({"clip_norm": -1.0}, "--clip-norm is -1.0; expected 0 or more"),
        ({"warmup_epochs": -1.0}, "--warmup-epochs is -1.0; expected 0 or more"),
        ({"warmup_epochs": 51.0}, "--warmup-epochs is 51.0, but there are 50 --epochs"),
        ({"ema_decay": 1.0}, "--ema-decay is 1.0; expected at least 0 and less than 1"),
        ({"rotation_degrees": 200}, "--rotation-degrees is 200; expected 0 to 180"),
        ({"phantom_share": 1.5}, "--phantom-share is 1.5; expected 0 to 1"),
        ({"phantoms": 0}, "--phantoms is 0; expected at least 1"),
        ({"seed": -1}, "--seed is -1; expected 0 to 2147483647"),
        ({"precision": "half"}, "--precision is 'half'; expected one of auto, float32, tf32"),
        ({"normalization": "batch"}, "--normalization is 'batch'; expected one of none, instance"),
        ({"loss": "dice"}, "--loss is 'dice'; expected one of bce, bce_dice"),
        (
            {"schedule": "step"},
            "--schedule is 'step'; expected one of constant, cosine, cosine_by_size",
        ),
        ({"flip": "up"}, "--flip is 'up'; expected one of none, horizontal"),
        ({"cache": "tape"}, "--cache is 'tape'; expected one of auto, memory, disk, none"),
        ({"resume": "yes"}, "--resume is 'yes'; expected one of auto, always, never"),
        ({"devices": "tpu"}, "--devices is 'tpu'; expected auto, gpu, gpu:0,2"),
        ({"devices": "cpu:0"}, "--devices is 'cpu:0'; expected auto"),
        ({"checkpoint_minutes": 0}, "--checkpoint-minutes is 0; expected more than 0"),
        ({"checkpoint_steps": 0}, "--checkpoint-steps is 0; expected at least 1"),
        ({"image_size": 100}, "expected a multiple of 16, such as 96"),
        ({"image_size": 48, "coarse_share": 0.5}, "expected a multiple of 32, such as 64"),
        ({"coarse_share": 1.0}, "--coarse-share is 1.0; expected at least 0 and less than 1"),
    ],
)
def test_value_that_cannot_work_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_config_survives_json(tmp_path):
    config = TrainerConfig(data=tmp_path / "d", out=tmp_path / "o", image_size=64, noise=3.0)
    (tmp_path / "config.json").write_text(config.to_json())
    assert TrainerConfig.load(tmp_path) == config


def test_recipe_that_travels_with_a_model_names_no_paths():
    recipe = json.loads(make().recipe_to_json())
    assert recipe["filters"] == 64
    assert not {"data", "out"} & set(recipe)


def test_folder_without_config_is_no_run(tmp_path):
    with pytest.raises(ValueError, match=r"is no training run: it holds no config.json"):
        TrainerConfig.load(tmp_path)


def test_config_of_another_version_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"data": "d", "out": "o", "momentum": 1}')
    with pytest.raises(ValueError, match=r"config.json cannot be read .*momentum"):
        TrainerConfig.load(tmp_path)
