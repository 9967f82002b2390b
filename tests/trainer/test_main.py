import dataclasses
import subprocess
import sys

import pytest

from trainer.__main__ import main
from trainer.config import TrainerConfig
from trainer.cross_validation.config import CrossValidationConfig
from trainer.evaluation.config import EvaluationConfig
from trainer.export import ExportConfig
from trainer.flags import build_parser
from trainer.interruption import EXIT_CTRL_C, EXIT_RETRY, Terminated, WorkerLostError
from trainer.startup import LOG_LEVEL_VARIABLE

REQUIRED = {
    "train": ["--data", "d", "--out", "o"],
    "evaluate": ["--run", "r", "--out", "o"],
    "cross-validate": ["--data", "d", "--out", "o"],
    "export": ["--run", "r", "--out", "o"],
}


@pytest.mark.parametrize(
    ("verb", "config_class"), [("evaluate", EvaluationConfig), ("export", ExportConfig)]
)
def test_flags_are_the_fields_of_the_configuration_with_the_same_defaults(verb, config_class):
    flags = vars(build_parser().parse_args([verb, *REQUIRED[verb]]))
    del flags["verb"]
    assert set(flags) == {field.name for field in dataclasses.fields(config_class)}
    for field in dataclasses.fields(config_class):
        if f"--{field.name}" not in REQUIRED[verb]:
            assert flags[field.name] == field.default, field.name


def test_flags_of_training_are_the_fields_of_its_configuration():
    train = build_parser()._subparsers._group_actions[0].choices["train"]
    flags = {action.dest for action in train._actions} - {"help", "recipe"}
    assert flags == {field.name for field in dataclasses.fields(TrainerConfig)}


def test_flags_of_training_that_are_not_given_are_left_to_the_recipe():
    flags = vars(build_parser().parse_args(["train", *REQUIRED["train"], "--recipe", "best"]))
    assert set(flags) == {"verb", "data", "out", "recipe"}


def test_flags_of_training_reach_its_configuration(monkeypatch):
    seen = []
    monkeypatch.setattr("trainer.train.run", seen.append)
    given = ["--recipe", "best", "--noise", "2", "--xla", "--devices", "cpu:2", "--cache", "disk"]
    assert main(["train", *REQUIRED["train"], *given]) == 0
    config = seen[0]
    assert (config.noise, config.xla, config.devices, config.cache) == (2.0, True, "cpu:2", "disk")
    assert config.loss == "bce_dice"


def test_flags_of_cross_validation_are_its_own_and_those_of_training():
    verbs = build_parser()._subparsers._group_actions[0].choices
    flags = {action.dest for action in verbs["cross-validate"]._actions} - {"help"}
    own = {field.name for field in dataclasses.fields(CrossValidationConfig)} - {"settings"}
    assert flags == own | {field.name for field in dataclasses.fields(TrainerConfig)}
    given = vars(build_parser().parse_args(["cross-validate", *REQUIRED["cross-validate"]]))
    for name in ("folds", "recipe", "flips", "postprocess", "scanner_every"):
        assert given[name] == getattr(CrossValidationConfig, name)


def test_flags_of_cross_validation_reach_its_configuration(monkeypatch):
    seen = []
    monkeypatch.setattr("trainer.cross_validation.job.cross_validate", seen.append)
    given = ["--folds", "P1,P2", "--recipe", "best", "--epochs", "3", "--postprocess"]
    assert main(["cross-validate", *REQUIRED["cross-validate"], *given]) == 0
    assert seen[0].folds == ("P1", "P2")
    assert seen[0].postprocess is True
    assert seen[0].settings == {"epochs": 3}
    assert seen[0].training("P1").loss == "bce_dice"


def test_flag_that_cross_validation_sets_itself_is_refused(capsys):
    assert main(["cross-validate", *REQUIRED["cross-validate"], "--hold-out", "P1"]) == 1
    assert "error: received --hold-out P1; expected none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "resume"),
    [([], "auto"), (["--resume"], "always"), (["--resume", "never"], "never")],
)
def test_resume_alone_insists_on_a_run_to_go_on_with(monkeypatch, given, resume):
    seen = []
    monkeypatch.setattr("trainer.train.run", seen.append)
    assert main(["train", *REQUIRED["train"], *given]) == 0
    assert seen[0].resume == resume


def test_help_tells_what_each_recipe_takes():
    shown = build_parser()._subparsers._group_actions[0].choices["train"].format_help()
    assert "(reference: 50, best: 48, best-full-size: 48)" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (WorkerLostError("a peer is gone"), EXIT_RETRY, "error: a peer is gone\n"),
        (Terminated(), EXIT_RETRY, "stopped\n"),
        (KeyboardInterrupt(), EXIT_CTRL_C, "stopped\n"),
        (FloatingPointError("the loss became nan"), 1, "error: the loss became nan\n"),
    ],
)
def test_exit_code_tells_whether_the_same_command_goes_on(monkeypatch, capsys, error, code, said):
    def fail(config):
        raise error

    monkeypatch.setattr("trainer.train.run", fail)
    assert main(["train", *REQUIRED["train"]]) == code
    assert capsys.readouterr().err == said


def test_flag_with_a_typing_error_is_refused(capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["train", *REQUIRED["train"], "--epoch", "3"])
    assert "unrecognized arguments: --epoch 3" in capsys.readouterr().err


def test_wrong_input_ends_in_one_line(tmp_path, capsys):
    assert main(["train", "--data", str(tmp_path), "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "holds no dataset.json" in error
    assert error.count("\n") == 1


def test_folder_that_cannot_be_written_is_named_in_one_line(trained_run, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    out = tmp_path / "file" / "model"
    assert main(["export", "--run", str(trained_run), "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert f"error: cannot read or write {out}" in error
    assert "Not a directory" in error


def test_help_shows_a_default_only_where_there_is_one():
    shown = build_parser()._subparsers._group_actions[0].choices["train"].format_help()
    shown = " ".join(shown.split())
    assert "(default: 2000)" in shown
    assert "None" not in shown


def test_help_is_there_without_tensorflow():
    code = (
        "import sys; from trainer.flags import build_parser; build_parser().format_help(); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_export_of_a_run_through_the_command_line(trained_run, tmp_path):
    assert main(["export", "--run", str(trained_run), "--out", str(tmp_path / "m")]) == 0
    assert (tmp_path / "m" / "1" / "saved_model.pb").is_file()


def test_start_of_tensorflow_is_quiet_and_its_failure_is_not(tmp_path):
    code = (
        f"import os; os.environ.pop({LOG_LEVEL_VARIABLE!r}, None); "
        "from trainer.startup import import_tensorflow; import_tensorflow()"
    )
    quiet = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert quiet.stderr == ""
    (tmp_path / "tensorflow.py").write_text(
        "import sys; print('broken wheel', file=sys.stderr); raise ImportError('no library')"
    )
    loud = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert loud.returncode
    assert "broken wheel" in loud.stderr
