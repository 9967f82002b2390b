from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from serving.config import DemoConfig, PredictConfig, ServeConfig, ViewConfig, check_target
from serving.flags import build_parser


@pytest.mark.parametrize(
    ("argv", "config"),
    [
        (["serve", "--model_base_path", "m"], ServeConfig(model_base_path=Path("m"))),
        (["predict", "in", "--out", "o"], PredictConfig(inputs=[Path("in")], out=Path("o"))),
        (["view"], ViewConfig()),
        (["demo", "--out", "o"], DemoConfig(out=Path("o"))),
    ],
)
def test_flags_and_their_defaults_are_the_fields(argv: list[str], config: Any) -> None:
    parsed = vars(build_parser().parse_args(argv))
    del parsed["verb"]
    assert parsed == {field.name: getattr(config, field.name) for field in fields(config)}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"port": 70000}, "--port is 70000; expected 0 to 65535"),
        ({"rest_api_port": -1}, "--rest_api_port is -1"),
        ({"port": 9, "rest_api_port": 9}, "are both 9; give REST another port"),
        ({"model_name": ""}, "--model_name is ''"),
        ({"model_name": "a/b"}, "expected a name without"),
        ({"bind_address": ""}, "--bind_address is empty"),
    ],
)
def test_server_values_that_cannot_work_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ServeConfig(model_base_path=Path("m"), **values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"target": ""}, "the target is ''; expected HOST:PORT"),
        ({"target": "localhost"}, "the target is 'localhost'; expected HOST:PORT"),
        ({"target": "a b:1"}, "the target is 'a b:1'"),
        ({"timeout_s": 0.0}, "--timeout-s is 0.0; expected seconds above 0"),
        ({"timeout_s": float("nan")}, "--timeout-s is nan"),
        ({"timeout_s": float("inf")}, "--timeout-s is inf; expected seconds above 0, and at most"),
        ({"timeout_s": 1e12}, "and at most 86400, which is a day"),
        ({"model_version": -2}, "--model-version is -2"),
        ({"signature": "x"}, "--signature is 'x'; expected one of"),
        ({"model_name": ""}, "--model-name is ''"),
        ({"flips": "up"}, "--flips is 'up'; expected one of none, horizontal, all"),
        (
            {"flips": "horizontal", "signature": "encoded"},
            "--flips is horizontal and --signature encoded, which answers with masks that have no",
        ),
    ],
)
def test_client_values_that_cannot_work_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PredictConfig(inputs=[Path("i")], out=Path("o"), **values)


@pytest.mark.parametrize("target", ["h:1", "dns:///h:8500", "[::1]:8500", "unix:/run/s"])
def test_every_form_of_target_that_grpc_dials_is_taken(target: str) -> None:
    check_target(target)
