"""Flags of ``python -m trainer``: those of a verb are the fields of its configuration."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from trainer.augmentation.config import FLIPS
from trainer.config import (
    CACHES,
    EXPORT_PRECISIONS,
    LOSSES,
    NORMALIZATIONS,
    PRECISIONS,
    RECIPES,
    RESUMES,
    SCHEDULES,
    TrainerConfig,
)
from trainer.evaluation.config import SPLIT_CHOICES, EvaluationConfig
from trainer.signature import WARM_UP_BATCHES
from trainer.test_time import FLIP_CHOICES


def build_parser() -> argparse.ArgumentParser:
    """Gives the parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Shards in, SavedModel out: trains a U-Net that marks lungs in CT slices.",
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_train(verbs)
    _add_show_augmentation(verbs)
    _add_evaluate(verbs)
    _add_cross_validate(verbs)
    _add_export(verbs)
    return parser


def _add_train(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    train = _verb(
        verbs,
        "train",
        "Train a U-Net on a dataset, on all GPUs.",
        "Trains on every GPU of one machine or of many (or on the CPU where there is none), keeps "
        "the epoch with the lowest validation loss, measures it and draws it. A run that was "
        "stopped, or killed, goes on when the same command is given again.",
    )
    train.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="dataset that tfrecords wrote"
    )
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    _add_settings(train)


def _add_settings(train: argparse.ArgumentParser) -> None:
    """Adds the flags of a recipe, and of what differs from it."""
    _add_recipe(train)
    _add_slices(train.add_argument_group("slices"))
    _add_model(train.add_argument_group("model"))
    _add_optimization(train.add_argument_group("optimization"))
    _add_augmentation(train.add_argument_group("augmentation, on training only"))
    _add_machine(train.add_argument_group("machine"))


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        default="reference",
        help="where the settings below come from that are not given: the reference recipe to the "
        "letter, or the best that was found",
    )


def _add_show_augmentation(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    show = _verb(
        verbs,
        "show-augmentation",
        "Draw what augmentation does to slices, at its extremes.",
        "Draws some slices of the training split as each kind of change leaves them, each at its "
        "extremes, with the outlines of their masks: look at it before a long training.",
    )
    show.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="dataset that tfrecords wrote"
    )
    show.add_argument("--out", type=Path, required=True, metavar="FILE", help="PNG to write")
    _add_recipe(show)
    _add_augmentation(show.add_argument_group("augmentation"))


def _add_slices(group: "argparse._ArgumentGroup") -> None:
    _setting(group, "phantom_share", float, "SHARE", "share of an epoch that is phantoms; 1: all")
    _setting(group, "phantoms", int, "N", "phantoms that are drawn, if there is a share for them")
    _setting(group, "hold_out", str, "PATIENT", "train on all others, and validate on this patient")


def _add_model(group: "argparse._ArgumentGroup") -> None:
    _setting(group, "image_size", int, "PX", "height and width that the model works at")
    _setting(group, "filters", int, "N", "filters of the first level")
    _setting(group, "depth", int, "N", "how often the image is halved")
    _choice(group, "normalization", NORMALIZATIONS, "after each convolution of 3x3")


def _add_optimization(group: "argparse._ArgumentGroup") -> None:
    _setting(group, "global_batch_size", int, "N", "slices in a step, over all devices")
    _setting(
        group, "accumulation_steps", int, "N", "parts of a step, one after the other: less memory"
    )
    _setting(group, "epochs", int, "N", "at most")
    _setting(group, "coarse_share", float, "SHARE", "of these, at the start, at a smaller size")
    _setting(group, "patience", int, "N", "epochs without a lower validation loss before it stops")
    _choice(group, "loss", LOSSES, "binary cross-entropy, or that plus soft Dice")
    _setting(group, "learning_rate", float, "RATE", "of Adam, at its highest")
    _choice(group, "schedule", SCHEDULES, "of the learning rate")
    _setting(group, "warmup_epochs", float, "N", "epochs in which the learning rate rises")
    _setting(group, "clip_norm", float, "NORM", "largest norm of the gradient; 0: any")
    _setting(group, "ema_decay", float, "DECAY", "of the average of the weights; 0: no average")
    _setting(group, "seed", int, "N", "of all random sequences")


def _add_augmentation(group: "argparse._ArgumentGroup") -> None:
    _choice(group, "flip", FLIPS, "random flips")
    _setting(group, "quarter_turns", float, "SHARE", "share of slices turned by 90 degrees")
    _setting(group, "rotation_degrees", float, "DEG", "rotation, at most, to either side")
    _setting(group, "magnify", float, "X", "magnified by 1 plus this, at most")
    _setting(group, "shrink", float, "X", "shrunk by 1 plus this, at most")
    _setting(group, "stretch", float, "X", "width against height, by 1 plus this, at most")
    _setting(group, "translation", float, "SHARE", "shift in each axis, in images, at most")
    _setting(group, "crop_to_body", float, "SHARE", "share of slices cropped around the lungs")
    _setting(group, "elastic", float, "SHARE", "elastic deformation, in images, at most")
    _setting(group, "background_removal", float, "SHARE", "share of slices, black around the body")
    _setting(group, "couch", float, "SHARE", "share of slices with a couch drawn")
    _setting(group, "gantry_circle", float, "SHARE", "share of slices cut to a circle")
    _setting(group, "low_resolution", float, "X", "coarser by 1 plus this, at most")
    _setting(group, "blur", float, "SHARE", "blur, at most: share of the neighbors")
    _setting(group, "sharpen", float, "X", "unsharp masking, at most")
    _setting(group, "noise", float, "GRAY", "standard deviation in gray values, at most")
    _setting(group, "window", float, "X", "other display windows: 0 none, 1 from narrow to wide")
    _setting(group, "brightness", float, "GRAY", "shift of the gray values, at most")
    _setting(group, "contrast", float, "X", "contrast times 1 plus this, at most")
    _setting(group, "gamma", float, "X", "exponent of 1 plus this, at most")
    _setting(group, "local_contrast", float, "SHARE", "share of slices with equalized contrast")
    _setting(group, "invert", float, "SHARE", "share of slices with black for white")


def _add_machine(group: "argparse._ArgumentGroup") -> None:
    _setting(
        group,
        "devices",
        str,
        "WHICH",
        "auto: every GPU, or the CPU; gpu, gpu:0,2, cpu, or cpu:N for N logical devices",
    )
    _choice(group, "precision", PRECISIONS, "to compute in; auto: what the device is fast in")
    group.add_argument(
        "--xla",
        action=argparse.BooleanOptionalAction,
        default=argparse.SUPPRESS,
        help="compile the gradient with XLA, for GPUs (default: no)",
    )
    group.add_argument(
        "--deterministic",
        action=argparse.BooleanOptionalAction,
        default=argparse.SUPPRESS,
        help="use only operations that give the same bits in each run (default: no)",
    )
    _choice(group, "cache", CACHES, "where decoded slices are kept; auto: where they fit")
    _setting(group, "checkpoint_minutes", float, "N", "minutes between two saves of the state")
    _setting(group, "checkpoint_steps", int, "N", "steps between two saves, besides")
    group.add_argument(
        "--resume",
        choices=RESUMES,
        nargs="?",
        const="always",
        default=argparse.SUPPRESS,
        help="go on with the run in OUT: if there is one (auto), always (--resume alone says so), "
        "or never (default: auto)",
    )


def _setting(
    group: "argparse._ArgumentGroup",
    name: str,
    kind: Callable[[str], object],
    metavar: str,
    meaning: str,
) -> None:
    """Adds the flag of a setting. One that is not given is left out, so that the recipe decides."""
    flag = f"--{name.replace('_', '-')}"
    described = f"{meaning}{_defaults(name)}"
    group.add_argument(flag, type=kind, default=argparse.SUPPRESS, metavar=metavar, help=described)


def _choice(
    group: "argparse._ArgumentGroup", name: str, choices: Sequence[str], meaning: str
) -> None:
    group.add_argument(
        f"--{name.replace('_', '-')}",
        choices=choices,
        default=argparse.SUPPRESS,
        help=f"{meaning}{_defaults(name)}",
    )


def _defaults(name: str) -> str:
    """Tells what each recipe takes for a setting."""
    default = getattr(TrainerConfig, name)
    values = {recipe: values.get(name, default) for recipe, values in RECIPES.items()}
    if default is None:
        return ""
    if len(set(values.values())) == 1:
        return f" (default: {default})"
    return f" ({', '.join(f'{recipe}: {value}' for recipe, value in values.items())})"


def _add_evaluate(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    evaluate = _verb(
        verbs,
        "evaluate",
        "Measure a model: the best epoch of a run, a checkpoint, or a SavedModel.",
        "Measures Dice, IoU, precision, sensitivity, specificity, accuracy and the distances of "
        "outlines at the size of the slices, over all, by patient and by slice, with intervals by "
        "patient; writes evaluation.json and predictions.png.",
    )
    what = evaluate.add_argument_group("what is measured (one of)")
    what.add_argument("--run", type=Path, metavar="DIR", help="training run: its best epoch")
    what.add_argument(
        "--checkpoint",
        type=Path,
        metavar="DIR",
        help="one checkpoint, such as RUN/checkpoints/best/epoch-0002",
    )
    what.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="SavedModel, or the folder of its versions: the highest",
    )
    dataset = evaluate.add_argument_group("on a dataset")
    dataset.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="dataset that tfrecords wrote (default: that of the run)",
    )
    dataset.add_argument(
        "--split", choices=SPLIT_CHOICES, default=EvaluationConfig.split, help="which slices"
    )
    folders = evaluate.add_argument_group("or on plain folders")
    folders.add_argument("--images", type=Path, metavar="DIR", help="folder of slices")
    folders.add_argument(
        "--masks",
        type=Path,
        metavar="DIR",
        help="folder of masks with the same names (default: they lie among the slices, told by "
        "names such as P1_z012_mask.bmp)",
    )
    folders.add_argument(
        "--image-pattern",
        metavar="REGEX",
        help="what only slices have in their names, as in preprocessing (default: its default)",
    )
    folders.add_argument(
        "--mask-pattern",
        metavar="REGEX",
        help="what only masks have in their names, as in preprocessing (default: its default)",
    )
    folders.add_argument(
        "--patient-pattern",
        default=EvaluationConfig.patient_pattern,
        metavar="REGEX",
        help="whose slice it is: names, folders, auto, or a regular expression with a group named "
        "patient_id, as in preprocessing",
    )
    folders.add_argument(
        "--mask-foreground",
        type=_gray_values,
        metavar="N,N",
        help="gray values that are lung in masks with several labels, such as 1,2",
    )
    folders.add_argument(
        "--allow-orphans",
        action="store_true",
        help="leave out slices without a mask and masks without a slice, and list them",
    )
    evaluate.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where the results go"
    )
    _add_test_time(evaluate)
    evaluate.add_argument(
        "--scanner",
        metavar="NAME",
        help="see the slices through a simulated scanner, such as clahe; all: as they are, and "
        "then through each of them (docs/evaluation.md lists them)",
    )
    _add_scanner_every(evaluate)
    evaluate.add_argument(
        "--pixel-spacing-mm",
        type=float,
        metavar="MM",
        help="width of a pixel: distances are in mm then, and in pixels without",
    )
    evaluate.add_argument(
        "--write-masks", action="store_true", help="also write each predicted mask as a PNG"
    )


def _add_test_time(group: "argparse._ActionsContainer") -> None:
    group.add_argument(
        "--flips",
        choices=FLIP_CHOICES,
        default=EvaluationConfig.flips,
        help="flips of a slice that are segmented too, to take the mean of their probabilities",
    )
    group.add_argument(
        "--postprocess",
        action=argparse.BooleanOptionalAction,
        default=EvaluationConfig.postprocess,
        help="drop specks of predicted lung and open air, and fill small holes",
    )


def _add_scanner_every(group: "argparse._ActionsContainer") -> None:
    group.add_argument(
        "--scanner-every",
        type=int,
        default=EvaluationConfig.scanner_every,
        metavar="N",
        help="measure simulated scanners on each n-th slice only",
    )


def _add_cross_validate(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    cross = _verb(
        verbs,
        "cross-validate",
        "Train once for each patient without that patient, and measure on them.",
        "Leave-one-patient-out: how good a recipe is on patients whom nothing was learned or "
        "chosen on, on their slices as they are and as simulated scanners would have them. Runs "
        "all epochs and measures the last. Takes the flags of train but for --hold-out, --patience "
        "and --resume. What was stopped, or killed, goes on when the same command is given again.",
    )
    cross.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="dataset that tfrecords wrote"
    )
    cross.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the runs and the results"
    )
    _add_scanner_every(cross)
    cross.add_argument(
        "--folds",
        type=lambda text: tuple(text.split(",")),
        metavar="P1,P2",
        help="leave only these patients out, one after the other (default: all)",
    )
    _add_test_time(cross.add_argument_group("measuring"))
    _add_settings(cross)


def _gray_values(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(value) for value in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"received {text!r}; expected gray values such as 1,2"
        ) from error


def _add_export(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    export = _verb(
        verbs,
        "export",
        "Write the best epoch of a run as a SavedModel.",
        "Writes the next numbered version of a model for TensorFlow Serving, with signatures for "
        "arrays of uint8 and of float32 and for image files, and requests that a server plays "
        "before it serves them; it is loaded again and compared with the trained model before it "
        "is published.",
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
    export.add_argument(
        "--warm-up-batches",
        type=int,
        nargs="*",
        default=WARM_UP_BATCHES,
        metavar="N",
        help="slices in the requests that a server plays first; none: no requests",
    )
    export.add_argument(
        "--precision",
        choices=EXPORT_PRECISIONS,
        default=EXPORT_PRECISIONS[0],
        help="numbers that the served model computes in; bfloat16 is for processors and GPUs that "
        "have instructions for it, and its Dice is told beside that of float32",
    )


class _DefaultsShown(argparse.HelpFormatter):
    """Adds the default to the help of a flag that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, argparse.SUPPRESS):
            return action.help
        default = "yes" if action.default is True else "%(default)s"
        return f"{action.help} (default: {default})"


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
