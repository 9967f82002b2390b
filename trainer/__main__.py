"""``python -m trainer VERB``: flags to a configuration, a configuration to a run."""

import signal

if __name__ == "__main__":
    # Until `main` can say it in a line, Ctrl-C ends the program without a traceback.
    _on_ctrl_c = signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from preprocessing.spec import SPLITS, VALIDATION_SPLIT
from trainer.config import CACHES, FLIPS, PRECISIONS, TrainerConfig
from trainer.startup import import_tensorflow

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Gives the parser of all verbs; the flags of a verb are the fields of its configuration."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Shards in, SavedModel out: trains a U-Net that marks lungs in CT slices.",
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_train(verbs)
    _add_evaluate(verbs)
    _add_export(verbs)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs a verb.

    Returns:
        0, or 1 with one line on stderr when the input or the settings do not work.
    """
    try:
        flags = vars(build_parser().parse_args(arguments))
        verb: Callable[[dict[str, object]], None] = _VERBS[flags.pop("verb")]
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        verb(flags)
    except (ValueError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        place = f"cannot read or write {error.filename}: {error.strerror}"
        print(f"error: {place if error.filename else error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def _train(flags: dict[str, object]) -> None:
    config = TrainerConfig(**flags)  # type: ignore[arg-type]
    import_tensorflow()
    from trainer.train import run

    try:
        run(config)
    except KeyboardInterrupt:
        logger.info("the same command goes on after the last whole epoch, if there is one")
        raise


def _evaluate(flags: dict[str, object]) -> None:
    import_tensorflow()
    from trainer.evaluation import EvaluationConfig, evaluate

    evaluate(EvaluationConfig(**flags))  # type: ignore[arg-type]


def _export(flags: dict[str, object]) -> None:
    import_tensorflow()
    from trainer.export import ExportConfig, export

    export(ExportConfig(**flags))  # type: ignore[arg-type]


_VERBS = {"train": _train, "evaluate": _evaluate, "export": _export}


def _add_train(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    train = _verb(
        verbs,
        "train",
        "Train a U-Net on a dataset, on all GPUs.",
        "Trains on every GPU (or on logical CPU devices where there is none), keeps the epoch "
        "with the lowest validation loss, measures it and draws it. The defaults are the "
        "reference recipe. A run that was stopped goes on when the same command is given again.",
    )
    train.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="dataset that tfrecords wrote"
    )
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    model = train.add_argument_group("model")
    model.add_argument(
        "--image-size",
        type=int,
        default=TrainerConfig.image_size,
        metavar="PX",
        help="height and width that the model works at",
    )
    model.add_argument(
        "--filters", type=int, default=TrainerConfig.filters, help="filters of the first level"
    )
    model.add_argument(
        "--depth", type=int, default=TrainerConfig.depth, help="how often the image is halved"
    )
    recipe = train.add_argument_group("recipe")
    recipe.add_argument(
        "--global-batch-size",
        type=int,
        default=TrainerConfig.global_batch_size,
        metavar="N",
        help="slices in a step, over all devices",
    )
    recipe.add_argument("--epochs", type=int, default=TrainerConfig.epochs, help="at most")
    recipe.add_argument(
        "--patience",
        type=int,
        default=TrainerConfig.patience,
        metavar="EPOCHS",
        help="epochs without a lower validation loss before it stops",
    )
    recipe.add_argument(
        "--learning-rate",
        type=float,
        default=TrainerConfig.learning_rate,
        metavar="RATE",
        help="of Adam",
    )
    recipe.add_argument("--flip", choices=FLIPS, default=TrainerConfig.flip, help="random flips")
    recipe.add_argument(
        "--rotation-degrees",
        type=float,
        default=TrainerConfig.rotation_degrees,
        metavar="DEG",
        help="random rotation, at most, to either side",
    )
    recipe.add_argument(
        "--seed", type=int, default=TrainerConfig.seed, help="of all random sequences"
    )
    machine = train.add_argument_group("machine")
    machine.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=TrainerConfig.precision,
        help="mixed_bfloat16 is faster where the device has it",
    )
    machine.add_argument(
        "--num-replicas",
        type=int,
        metavar="N",
        help="devices to train on (default: every GPU, or 2 logical CPU devices)",
    )
    machine.add_argument(
        "--cache",
        choices=CACHES,
        default=TrainerConfig.cache,
        help="keep decoded slices in memory; auto: when they fit",
    )


def _add_evaluate(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    evaluate = _verb(
        verbs,
        "evaluate",
        "Measure the best epoch of a run.",
        "Measures Dice, IoU and accuracy at the size of the slices, over all, by patient and by "
        "slice; writes evaluation.json and predictions.png.",
    )
    evaluate.add_argument("--run", type=Path, required=True, metavar="DIR", help="training run")
    evaluate.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where the results go"
    )
    evaluate.add_argument(
        "--data", type=Path, metavar="DIR", help="dataset (default: that of the run)"
    )
    evaluate.add_argument("--split", choices=SPLITS, default=VALIDATION_SPLIT, help="which slices")
    evaluate.add_argument(
        "--write-masks", action="store_true", help="also write each predicted mask as a PNG"
    )


def _add_export(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    export = _verb(
        verbs,
        "export",
        "Write the best epoch of a run as a SavedModel.",
        "Writes the next numbered version of a model for TensorFlow Serving, with a signature for "
        "arrays and one for image files; it is loaded again and compared with the trained model "
        "before it is published.",
    )
    export.add_argument("--run", type=Path, required=True, metavar="DIR", help="training run")
    export.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the model's versions"
    )
    export.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="dataset to compare on (default: that of the run)",
    )


class _DefaultsShown(argparse.HelpFormatter):
    """Adds the default to the help of a flag that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, argparse.SUPPRESS):
            return action.help
        return f"{action.help} (default: %(default)s)"


def _verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    summary: str,
    description: str,
) -> argparse.ArgumentParser:
    return verbs.add_parser(
        name,
        help=summary,
        description=description,
        allow_abbrev=False,
        formatter_class=_DefaultsShown,
    )


if __name__ == "__main__":
    # A container is stopped with SIGTERM: end as on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, _on_ctrl_c)
    sys.exit(main())
