"""``python -m trainer VERB``: flags to a configuration, a configuration to a run."""

import signal

if __name__ == "__main__":
    # Until `main` can say it in a line, Ctrl-C ends the program without a traceback.
    _on_ctrl_c = signal.signal(signal.SIGINT, signal.SIG_DFL)

import dataclasses
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from trainer.config import make_config
from trainer.cross_validation.config import CrossValidationConfig
from trainer.evaluation.config import EvaluationConfig
from trainer.flags import build_parser
from trainer.interruption import (
    EXIT_CTRL_C,
    EXIT_RETRY,
    Terminated,
    WorkerLostError,
    raise_terminated,
)
from trainer.startup import import_tensorflow

logger = logging.getLogger(__name__)

PAGE_IMAGE_SIZE = 128
"""Height and width of a slice on the page of augmentations, in pixels."""


def main(arguments: list[str] | None = None) -> int:
    """Runs a verb.

    Returns:
        0; 1 with one line on stderr when the input or the settings do not work; 130 after Ctrl-C;
        ``EXIT_RETRY`` after SIGTERM, or where another worker of the training is gone: the same
        command then goes on.
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
    except WorkerLostError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_RETRY
    except Terminated:
        print("stopped", file=sys.stderr)
        return EXIT_RETRY
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return EXIT_CTRL_C
    return 0


def _train(flags: dict[str, object]) -> None:
    config = make_config(str(flags.pop("recipe")), **flags)
    import_tensorflow()
    from trainer.train import run

    run(config)


def _show_augmentation(flags: dict[str, object]) -> None:
    path = Path(str(flags["out"]))
    config = make_config(str(flags.pop("recipe")), **{"image_size": PAGE_IMAGE_SIZE, **flags})
    import_tensorflow()
    from trainer.augmentation.page import show_augmentation

    captions = show_augmentation(config, path)
    logger.info("drew %d kinds of change: %s", len(captions) - 1, path)


def _evaluate(flags: dict[str, object]) -> None:
    config = EvaluationConfig(**flags)  # type: ignore[arg-type]
    import_tensorflow()
    from trainer.evaluation.job import evaluate

    evaluate(config)


def _cross_validate(flags: dict[str, object]) -> None:
    own = {field.name for field in dataclasses.fields(CrossValidationConfig)}
    given = {name: value for name, value in flags.items() if name in own}
    settings = {name: value for name, value in flags.items() if name not in own}
    config = CrossValidationConfig(**given, settings=settings)  # type: ignore[arg-type]
    import_tensorflow()
    from trainer.cross_validation.job import cross_validate

    cross_validate(config)


def _export(flags: dict[str, object]) -> None:
    import_tensorflow()
    from trainer.export import ExportConfig, export

    export(ExportConfig(**flags))  # type: ignore[arg-type]


_VERBS = {
    "train": _train,
    "show-augmentation": _show_augmentation,
    "evaluate": _evaluate,
    "cross-validate": _cross_validate,
    "export": _export,
}


if __name__ == "__main__":
    # A container is stopped with SIGTERM.
    signal.signal(signal.SIGTERM, raise_terminated)
    signal.signal(signal.SIGINT, _on_ctrl_c)
    sys.exit(main())
