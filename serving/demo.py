"""The whole road in one go, each stage by the command that a user would type."""

import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from preprocessing.bmp import IMAGE_SUFFIXES, read_mask
from preprocessing.publish import write_text
from serving.errors import InputError, StageFailedError
from serving.report import Stage, write_report

logger = logging.getLogger(__name__)

MARKER = "demo.json"
"""File that says that a folder is a demo's, so that the next demo may replace it."""

READY_PREFIX = "READY "
"""Start of the line in which ``serving serve`` says where it answers."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Settings of ``python -m serving demo``: small enough for a laptop without a GPU."""

    out: Path
    """Folder for everything; a folder of an earlier demo is replaced."""

    images: Path | None = None
    """Folder of slices; ``None``: phantoms are drawn."""

    masks: Path | None = None
    """Folder of masks, where ``images`` is given."""

    num_patients: int = 20
    """Phantom patients."""

    slices_per_patient: int = 12
    """Slices of each phantom patient."""

    image_size: int = 128
    """Height and width that the model works at, in pixels."""

    filters: int = 16
    """Filters of the first level of the U-Net."""

    epochs: int = 25
    """Passes over the training slices, at most."""

    def __post_init__(self) -> None:
        """Checks values.

        Raises:
            ValueError: if only one of ``images`` and ``masks`` is given.
        """
        if (self.images is None) != (self.masks is None):
            given, missing = ("IMAGES", "MASKS") if self.images else ("MASKS", "IMAGES")
            raise ValueError(
                f"{given} is given without {missing}; give both folders, or none for phantoms"
            )


def run(config: DemoConfig) -> Path:
    """Drives slices from BMP files to served masks.

    Args:
        config: all settings.

    Returns:
        The page with all that came of it.

    Raises:
        InputError: if ``config.out`` holds something that is no demo, or the slices.
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


def _claim(config: DemoConfig) -> None:
    out = config.out
    for folder in (config.images, config.masks):
        if folder and folder.resolve().is_relative_to(out.resolve()):
            raise InputError(f"{folder} lies in {out}, which the demo replaces; give another OUT")
    if out.exists():
        if any(out.iterdir()) and not (out / MARKER).is_file():
            raise InputError(f"{out} holds something that is no demo; give another OUT")
        shutil.rmtree(out)
    settings = {name: value and str(value) for name, value in vars(config).items()}
    write_text(out / MARKER, json.dumps(settings, indent=2) + "\n")


def _run(stages: list[Stage], name: str, module_and_verb: str, *arguments: object) -> None:
    """Runs a stage to its end, its output on the terminal.

    Raises:
        StageFailedError: if it exits with another code than 0.
    """
    command = _command(name, module_and_verb, arguments)
    start = time.perf_counter()
    exit_code = subprocess.run(command, check=False).returncode
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
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            target = _wait_until_ready(server)
            stages.append(_stage("serve", command, start))
            yield target
        finally:
            server.terminate()


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
        if path.suffix.lower() in IMAGE_SUFFIXES
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
