import json
from pathlib import Path

import pytest

from trainer.config import TrainerConfig


def make(**settings: object) -> TrainerConfig:
    return TrainerConfig(data=Path("d"), out=Path("o"), **settings)


def test_defaults_are_the_reference_recipe():
    config = make()
    assert (config.image_size, config.filters, config.depth) == (512, 64, 4)
    assert (config.global_batch_size, config.epochs, config.patience) == (8, 50, 5)
    assert config.flip != "none"
    assert config.rotation_degrees > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "--epochs is 0; expected at least 1"),
        ({"global_batch_size": -1}, "--global-batch-size is -1; expected at least 1"),
        ({"learning_rate": 0.0}, "--learning-rate is 0.0; expected more than 0"),
        ({"rotation_degrees": 200}, "--rotation-degrees is 200; expected 0 to 180"),
        ({"seed": -1}, "--seed is -1; expected 0 to 2147483647"),
        ({"precision": "half"}, "--precision is 'half'; expected one of float32, mixed_bfloat16"),
        ({"flip": "up"}, "--flip is 'up'; expected one of none, horizontal"),
        ({"cache": "disk"}, "--cache is 'disk'; expected one of auto, memory, none"),
        ({"num_replicas": 0}, "--num-replicas is 0; expected at least 1"),
        ({"image_size": 100}, "expected a multiple of 16, such as 96"),
    ],
)
def test_value_that_cannot_work_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_config_survives_json(tmp_path):
    config = TrainerConfig(data=tmp_path / "d", out=tmp_path / "o", image_size=64, num_replicas=3)
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
