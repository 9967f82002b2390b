"""The whole road in one go, each stage by the command that a user would type."""

import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from preprocessing.images.reading import IMAGE_SUFFIXES, read_mask
from preprocessing.publish import write_text
from serving.config import DemoConfig
from serving.errors import InputError, StageFailedError
from serving.report import FILENAME, STAGES_FILENAME, Stage, write_report

logger = logging.getLogger(__name__)

MARKER = "demo.json"
"""File that says that a folder is a demo's, so that the next demo may replace it."""

FORMAT = "lung-ct-segmentation-demo"
"""What the marker says: another program may have a ``demo.json`` of its own."""

MADE = (
    "phantoms",
    "dataset",
    "dataset.refused.txt",
    "run",
    "evaluation",
    "model",
    "validation",
    "predictions",
    STAGES_FILENAME,
    FILENAME,
    MARKER,
)
"""All that a demo makes in its folder; half-made, it has the same name, hidden by a dot."""

READY_PREFIX = "READY "
"""Start of the line in which ``serving serve`` says where it answers."""

ENDING_S = 15.0
"""Time for a stage to end in order; the server gives calls under way 10 s of it."""


def run(config: DemoConfig) -> Path:
    """Drives slices from BMP files to served masks.

    Args:
        config: all settings.

    Returns:
        The page with all that came of it.

    Raises:
        InputError: if ``config.out`` holds something that is no demo, or the slices, or cannot be
            written.
        StageFailedError: if a stage fails; it has said why itself.
    """
    out = config.out
    _claim(config)
    stages: list[Stage] = []
    images, masks = config.images, config.masks
    if images is None or masks is None:
        images, masks = out / "phantoms" / "images", out / "phantoms" / "masks"
        _run(
            stages,
            "phantoms",
            "preprocessing phantoms",
            *("--out", out / "phantoms"),
            *("--num-patients", config.num_patients),
            *("--slices-per-patient", config.slices_per_patient),
        )
    _run(
        stages,
        "tfrecords",
        "preprocessing tfrecords",
        *("--images", images, "--masks", masks, "--out", out / "dataset"),
        *_where_given("--patient-pattern", config.patient_pattern),
        *_where_given("--max-refused-fraction", config.max_refused_fraction),
    )
    _run(
        stages,
        "train",
        "trainer train",
        *("--data", out / "dataset", "--out", out / "run"),
        *("--image-size", config.image_size, "--filters", config.filters),
        *("--epochs", config.epochs),
    )
    _run(
        stages,
        "evaluate",
        "trainer evaluate",
        *("--run", out / "run", "--out", out / "evaluation", "--write-masks"),
    )
    _run(stages, "export", "trainer export", "--run", out / "run", "--out", out / "model")
    slice_ids = _gather_validation_slices(out, images)
    with _server(stages, out / "model") as target:
        _run(
            stages,
            "predict",
            "serving predict",
            *(out / "validation", "--out", out / "predictions", "--target", target),
        )
    num_equal = sum(_is_served_as_trained(out, slice_id) for slice_id in slice_ids)
    return write_report(out, stages=stages, slice_ids=slice_ids, num_equal=num_equal)


def _where_given(flag: str, value: object) -> list[str]:
    # In one word, as a value may begin with a dash.
    return [] if value is None else [f"{flag}={value}"]


def _claim(config: DemoConfig) -> None:
    """Empties the folder of an earlier demo, and marks it as a demo's; nothing else is removed."""
    out = config.out
    for folder in (config.images, config.masks):
        if folder and folder.resolve().is_relative_to(out.resolve()):
            raise InputError(f"{folder} lies in {out}, which the demo replaces; give another OUT")
    settings = {name: value and str(value) for name, value in vars(config).items()}
    try:
        entries = sorted(out.iterdir()) if out.exists() else []
        strange = [entry.name for entry in entries if not _is_made(entry.name)]
        if entries and (strange or not _is_marked(out)):
            raise InputError(
                f"{out} holds something that is no demo: {(strange or [entries[0].name])[0]}; "
                "expected a new or empty folder, or that of a demo; give another OUT"
            )
        # The marker stays to the end: a demo that is stopped here is still known for a demo.
        for entry in entries:
            if entry.name != MARKER:
                _remove(entry)
        write_text(out / MARKER, json.dumps({"format": FORMAT, **settings}, indent=2) + "\n")
    except OSError as error:
        raise InputError(
            f"--out {out} cannot be written: {error.strerror or error}; choose another"
        ) from error


def _is_made(name: str) -> bool:
    return name in MADE or name.startswith(tuple(f".{Path(made).stem}." for made in MADE))


def _is_marked(out: Path) -> bool:
    try:
        marker = json.loads((out / MARKER).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(marker, dict) and marker.get("format") == FORMAT


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()


def _run(stages: list[Stage], name: str, module_and_verb: str, *arguments: object) -> None:
    """Runs a stage to its end, its output on the terminal.

    Raises:
        StageFailedError: if it exits with another code than 0.
    """
    command = _command(name, module_and_verb, arguments)
    start = time.perf_counter()
    with _started(command) as process:
        exit_code = process.wait()
    if exit_code:
        raise StageFailedError(f"the stage {name} ended with exit code {exit_code}; see above")
    stages.append(_stage(name, command, start))


@contextmanager
def _server(stages: list[Stage], model_dir: Path) -> Iterator[str]:
    """Starts the embedded server, gives its target, and stops it at the end.

    Raises:
        StageFailedError: if it ends before it answers.
    """
    command = _command("serve", "serving serve", ("--model_base_path", model_dir, "--port", 0))
    start = time.perf_counter()
    with _started(command, stdout=subprocess.PIPE) as server:
        target = _wait_until_ready(server)
        stages.append(_stage("serve", command, start))
        yield target


@contextmanager
def _started(
    command: Sequence[str], *, stdout: int | None = None
) -> Iterator["subprocess.Popen[str]"]:
    """Starts a process, and ends it with the block, however the block ends.

    Ctrl-C reaches every program on the terminal, so the process ends by itself then. SIGTERM
    (a ``KeyboardInterrupt`` with its number) reaches the demo alone, which hands it on.
    """
    is_told = False
    with subprocess.Popen(command, stdout=stdout, text=True) as process:
        try:
            yield process
        except KeyboardInterrupt as interrupt:
            is_told = not interrupt.args
            raise
        finally:
            if not is_told:
                process.terminate()
            try:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(ENDING_S)
            finally:
                process.kill()  # nothing, if it has ended


def _wait_until_ready(server: "subprocess.Popen[str]") -> str:
    for line in server.stdout or ():
        if line.startswith(READY_PREFIX):
            return str(json.loads(line.removeprefix(READY_PREFIX))["target"])
        logger.info(line.rstrip())
    raise StageFailedError("the server ended before it answered; see above")


def _command(name: str, module_and_verb: str, arguments: Sequence[object]) -> list[str]:
    module, verb = module_and_verb.split()
    command = ["-m", module, verb, *(str(argument) for argument in arguments)]
    logger.info("\n== %s: python %s", name, " ".join(command))
    return [sys.executable, *command]


def _stage(name: str, command: Sequence[str], start: float) -> Stage:
    return Stage(
        name=name,
        command=" ".join(["python", *command[1:]]),
        seconds=time.perf_counter() - start,
    )


def _gather_validation_slices(out: Path, images: Path) -> list[str]:
    """Links the slices that the model was not trained on into a folder; gives their ids."""
    evaluation = json.loads((out / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    slice_ids = sorted(entry["slice_id"] for entry in evaluation["by_slice"])
    files = {
        path.relative_to(images).with_suffix("").as_posix(): path
        for path in images.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    }
    for slice_id in slice_ids:
        source = files[slice_id]
        link = out / "validation" / source.relative_to(images)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source.resolve())
    return slice_ids


def _is_served_as_trained(out: Path, slice_id: str) -> bool:
    """Tells whether the served mask is the trainer's own, pixel by pixel."""
    served = read_mask(out / "predictions" / "masks" / f"{slice_id}.png")
    trained = read_mask(out / "evaluation" / "predicted_masks" / f"{slice_id}.png")
    return served.shape == trained.shape and bool((served == trained).all())
