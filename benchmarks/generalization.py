"""What each addition brings on patients and scanners that were not trained on.

Each row of the table is leave-one-patient-out with `python -m trainer cross-validate`, once for
each seed; every training takes its steps on as many slices in all, so rows have the same budget.
The last row, trained on phantoms alone, is measured on all patients. What is finished is kept in
--out, and what was stopped goes on, when the same command is given again. The table for
docs/results.md is printed, and written to generalization.md in --out after each run.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slices import default_folders

from preprocessing.manifest import DatasetManifest
from trainer.config import AUGMENTATION, make_config
from trainer.cross_validation.summary import summarize_reports
from trainer.cross_validation.table import number
from trainer.evaluation.results import FALSE_LUNG, HAUSDORFF, LUNG_DICE

# --- The rows: each has all flags of its training, and how it is measured. ------------------------
REFERENCE = ["--recipe", "reference"]
AUGMENTED = [
    word
    for name, value in AUGMENTATION.items()
    for word in (f"--{name.replace('_', '-')}", str(value))
]
PHANTOMS = ["--phantom-share", "0.5", "--phantoms", "2000"]
# All epochs at the full size: a coarse one is cheaper, and would not be the same budget.
BEST = ["--recipe", "best", "--coarse-share", "0"]
CLEANED = ["--flips", "horizontal", "--postprocess"]
PLAIN = ["--flips", "none", "--no-postprocess"]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    training: list[str]
    """Flags of ``trainer train``, each with a value."""

    measuring: list[str]
    """Flags of ``trainer evaluate``."""

    same_training_as: str | None = None
    """Row whose folds are measured again in another way, instead of being trained anew."""


ROWS = (
    Row("reference", REFERENCE, PLAIN),
    Row("+ augmentation", [*REFERENCE, *AUGMENTED], PLAIN),
    Row("+ phantoms", [*REFERENCE, *AUGMENTED, *PHANTOMS], PLAIN),
    Row("+ recipe", [*BEST, *PHANTOMS], PLAIN),
    Row("+ flips and cleaning", [*BEST, *PHANTOMS], CLEANED, same_training_as="+ recipe"),
)
PHANTOMS_ONLY = Row("phantoms only", [*BEST, "--phantom-share", "1", "--phantoms", "2000"], CLEANED)
# --------------------------------------------------------------------------------------------------


def main() -> None:
    """Reads the flags, runs what is missing, and prints the table."""
    flags = read_flags()
    rows = [row for row in (*ROWS, PHANTOMS_ONLY) if flags.rows is None or row.name in flags.rows]
    if not flags.data:
        flags.data = flags.out / "dataset"
        write_dataset(flags.data)
    found: dict[str, list[dict]] = {}
    for seed in flags.seeds:
        for row in rows:
            run = run_phantoms_only if row is PHANTOMS_ONLY else run_cross_validation
            found.setdefault(row.name, []).append(run(flags, row, seed))
            table = make_tables(found)
            (flags.out / "generalization.md").write_text(table, encoding="utf-8")
    print(table)


def read_flags() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--data", type=Path, help="dataset (default: the slices of the tests)")
    parser.add_argument("--image-size", type=int, default=128, help="of the model, in pixels")
    parser.add_argument("--filters", type=int, default=16, help="of the first level")
    parser.add_argument(
        "--slices", type=int, default=11200, help="on which each training takes steps"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folds", help="patients who are left out, such as P1,P2 (default: all)")
    parser.add_argument("--scanner-every", type=int, default=1, help="as in cross-validate")
    names = [row.name for row in (*ROWS, PHANTOMS_ONLY)]
    parser.add_argument("--rows", nargs="+", choices=names, help="only these (default: all)")
    return parser.parse_args()


def write_dataset(folder: Path) -> None:
    """Writes the real slices as a dataset, unless it is there."""
    if not (folder / "dataset.json").exists():
        images, masks = default_folders()
        arguments = ["--images", images, "--masks", masks, "--out", folder]
        command("preprocessing", "tfrecords", *arguments)


def run_cross_validation(flags: argparse.Namespace, row: Row, seed: int) -> dict:
    """Runs a row with one seed; gives the content of ``cross_validation.json``."""
    out = folder_of(flags, row.same_training_as or row.name, seed)
    kept = out / f"measured-{slug(row.name)}.json"
    arguments = [*row.training, *size_flags(flags, row, seed), *row.measuring]
    if flags.folds:
        arguments += ["--folds", flags.folds]
    # It keeps finished folds by itself. Another way of measuring replaces the one before in the
    # folder, so what it came to is kept aside, with what it was asked for.
    asked = [str(argument) for argument in arguments]
    asked += ["--scanner-every", str(flags.scanner_every)]
    if kept.exists():
        content = json.loads(kept.read_text(encoding="utf-8"))
        if content["asked"] == asked:
            return content["report"]
    command("trainer", "cross-validate", "--data", flags.data, "--out", out, *asked)
    report = json.loads((out / "cross_validation.json").read_text(encoding="utf-8"))
    kept.write_text(json.dumps({"asked": asked, "report": report}), encoding="utf-8")
    return report


def run_phantoms_only(flags: argparse.Namespace, row: Row, seed: int) -> dict:
    """Trains on phantoms alone and measures the last epoch on all real slices."""
    out = folder_of(flags, row.name, seed)
    sizes = size_flags(flags, row, seed)
    epochs = sizes[sizes.index("--epochs") + 1]
    # No early stopping: it would choose an epoch by real slices.
    arguments = [*row.training, *sizes, "--patience", epochs]
    command("trainer", "train", "--data", flags.data, "--out", out / "run", *arguments)
    checkpoint = max((out / "run" / "checkpoints" / "latest").glob("epoch-*"))
    measured = out / "evaluation" / "evaluation.json"
    asked = ["--checkpoint", checkpoint, "--data", flags.data, "--split", "all", *row.measuring]
    asked += ["--scanner", "all", "--scanner-every", flags.scanner_every]
    asked = [str(argument) for argument in asked]
    stamp = out / "evaluation" / "asked.json"
    if not stamp.exists() or json.loads(stamp.read_text(encoding="utf-8")) != asked:
        command("trainer", "evaluate", "--out", measured.parent, *asked)
        stamp.write_text(json.dumps(asked), encoding="utf-8")
    return summarize_reports([json.loads(measured.read_text(encoding="utf-8"))])


def size_flags(flags: argparse.Namespace, row: Row, seed: int) -> list[str]:
    """Gives the flags that all rows share, and as many epochs as make up the slices."""
    manifest = DatasetManifest.load(flags.data)
    by_patient = [count for split in manifest.splits.values() for count in split.patients.values()]
    num_real = sum(by_patient) - statistics.mean(by_patient)  # one patient is left out
    given = [
        *("--image-size", str(flags.image_size), "--filters", str(flags.filters)),
        *("--seed", str(seed)),
    ]
    setting = {
        name.removeprefix("--"): value
        for name, value in zip(row.training[::2], row.training[1::2], strict=True)
    }
    defaults = make_config(setting["recipe"], data=flags.data, out=flags.out)
    share = float(setting.get("phantom-share", defaults.phantom_share))
    num_phantoms = int(setting.get("phantoms", defaults.phantoms))
    num_slices = num_phantoms if share == 1 else num_real / (1 - share)
    return [*given, "--epochs", str(max(1, round(flags.slices / num_slices)))]


def make_tables(found: dict[str, list[dict]]) -> str:
    """Makes Markdown: a line for each row, then a line for each simulated scanner."""
    lines = [
        "| what | Dice, patients left out | HD95, px | false lung, % | mean of scanners | "
        "worst scanner | seeds |",
        "| --- " + "| ---: " * 6 + "|",
    ]
    for name, reports in found.items():
        means = [report["mean_of_patients"] for report in reports]
        scanners = [report["scanners"] for report in reports]
        worst = worst_of(scanners)
        cells = [
            spread([mean[LUNG_DICE] for mean in means], 4),
            spread([mean[HAUSDORFF] for mean in means], 1),
            spread([mean[FALSE_LUNG] for mean in means], 3, factor=100),
            spread([each["mean"] for each in scanners], 4),
            f"{dice_of(scanners, worst)} ({worst})",
            str(len(reports)),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    names = list(next(iter(found.values()))[0]["scanners"]["by_scanner"])
    lines += ["", f"| simulated scanner | {' | '.join(found)} |", "| --- " + "| ---: " * len(found)]
    lines[-1] += "|"
    for scanner in names:
        cells = [
            dice_of([report["scanners"] for report in reports], scanner)
            for reports in found.values()
        ]
        lines.append(f"| {scanner} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def worst_of(scanners: Sequence[dict]) -> str:
    """Names the scanner with the lowest Dice in the mean over seeds."""
    return min(scanners[0]["by_scanner"], key=lambda name: mean_dice(scanners, name))


def dice_of(scanners: Sequence[dict], name: str) -> str:
    """Writes the Dice of a scanner, mean over seeds."""
    return number(mean_dice(scanners, name), 4)


def mean_dice(scanners: Sequence[dict], name: str) -> float:
    """Gives the Dice of a scanner, mean over seeds."""
    return statistics.mean(each["by_scanner"][name][LUNG_DICE] for each in scanners)


def spread(values: Sequence[float | None], digits: int, *, factor: float = 1) -> str:
    """Writes the mean over seeds and, of several, their lowest and highest."""
    if any(value is None for value in values):
        return number(None, digits)
    ends = [min(values), max(values)] if len(values) > 1 else None
    return number(statistics.mean(values), digits, factor=factor, interval=ends)


def folder_of(flags: argparse.Namespace, name: str, seed: int) -> Path:
    """Gives the folder of a row and a seed."""
    return flags.out / f"{slug(name)}-seed-{seed}"


def slug(name: str) -> str:
    """Makes a name of a folder."""
    return name.removeprefix("+ ").replace(" ", "-")


def command(package: str, verb: str, *arguments: object) -> None:
    """Runs a command of the project; ends with its exit code if it fails."""
    words = [sys.executable, "-m", package, verb, *map(str, arguments)]
    print(f"$ {' '.join(words)}", file=sys.stderr, flush=True)
    code = subprocess.run(words, check=False).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
