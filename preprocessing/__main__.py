"""``python -m preprocessing VERB``: download, phantoms, tfrecords, inspect."""

import signal

if __name__ == "__main__":
    # Until `main` can say it in a line, Ctrl-C ends the program without a traceback.
    _on_ctrl_c = signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import errno
import io
import logging
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

from preprocessing.config import SPLIT_BY_CHOICES, TfrecordsConfig
from preprocessing.download.config import DownloadConfig
from preprocessing.errors import EngineError
from preprocessing.finding import printable
from preprocessing.inspection.config import InspectConfig
from preprocessing.manifest import DatasetManifest
from preprocessing.records import ENCODINGS
from preprocessing.refusals import describe_refused, refused_list
from preprocessing.shards import ShardWriteError
from preprocessing.spec import READ_CHOICES

_BEAM_SEPARATOR = "--"
_NUM_REFUSED_SHOWN = 5

_TFRECORDS_DESCRIPTION = """\
Pairs slices with masks by name, checks them, splits them by patient, and writes sharded TFRecords
with a dataset.json that lists them. Scans (DICOM series, NIfTI) become axial slices first, through
one window of Hounsfield units and under pseudonyms.

A file that cannot be used (damaged, in color, of another size than its partner, a mask with other
gray values than 0 and 255 or 0 and 1) is left out and listed in dataset.json, as long as no more
than --max-refused-fraction of the slices are. A slice without a mask or a mask without a slice ends
the job before it begins, unless --allow-orphans is given.
"""

_DOWNLOAD_DESCRIPTION = """\
Downloads an archive (zip, tar, tar.gz, tar.bz2, tar.xz) and unpacks it, or downloads a single file
or a folder of Google Drive as it is. The folder --out appears whole or not at all.

A connection that drops or stalls is tried again from where it was. What a failed or stopped run has
fetched is kept beside --out, and the same command goes on from there.
"""

_TFRECORDS_EPILOG = """\
Apache Beam's own options go after `--`:
  python -m preprocessing tfrecords --images DIR --masks DIR --out DIR -- --direct_num_workers=4
"""

_INSPECT_DESCRIPTION = """\
Tells what is in a dataset, who is in which split, and what was refused and why. A shard that is
missing, or has another size than dataset.json says, ends in exit status 1.

With --gallery, all masks are read and judged, and a page shows the oddest first: those that do not
run along edges of the slice (shifted, mirrored, inverted), are huge or tiny, touch the border, are
in many parts or have holes, or have an area far from those of their neighbors.
"""


def main(argv: Sequence[str]) -> int:
    """Runs a verb and gives the exit status."""
    try:
        own, beam_options = _cut_at_separator(argv)
        flags = vars(build_parser().parse_args(own))
        verbs = {
            "download": _download,
            "phantoms": _phantoms,
            "tfrecords": _tfrecords,
            "inspect": _inspect,
        }
        run = verbs[flags.pop("verb")]
        # Beam and Dask speak through many loggers, the root one too; only ours are for the user.
        handler = logging.StreamHandler()
        handler.addFilter(logging.Filter("preprocessing"))
        logging.basicConfig(
            level=logging.CRITICAL, format="%(levelname)s: %(message)s", handlers=[handler]
        )
        logging.getLogger("preprocessing").setLevel(logging.INFO)
        return run(flags, beam_options)
    except (ValueError, OSError, EngineError, ShardWriteError) as error:
        is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        mend = "; make room or choose another --out, then run again" if is_full else ""
        print(f"error: {printable(str(error))}{mend}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; nothing was published", file=sys.stderr)
        return 130


def _tfrecords(flags: dict[str, Any], beam_options: Sequence[str]) -> int:
    config = TfrecordsConfig(**flags, beam_options=tuple(beam_options))
    from preprocessing import pipeline  # Beam takes seconds to load; --help should not.

    summary = pipeline.run(config, is_terminal=sys.stderr.isatty())
    dataset = summary.dataset
    listed = refused_list(config.out.resolve())
    if listed.exists():  # of scans, whose files dataset.json does not name
        refused, place = listed.read_text(encoding="utf-8").splitlines(), str(listed)
    else:
        refused = [describe_refused(entry, config) for entry in dataset.refused]
        place = "dataset.json"
    for line in refused[:_NUM_REFUSED_SHOWN]:
        print(f"refused: {line}")
    if refused[_NUM_REFUSED_SHOWN:]:
        print(f"refused: {len(refused) - _NUM_REFUSED_SHOWN} more, see {place}")
    num_examples = sum(split.num_examples for split in dataset.splits.values())
    for name, split in dataset.splits.items():
        print(
            f"{name}: {split.num_examples} slices, patients: {len(split.patients) or 'unknown'}, "
            f"shards: {len(split.shards)}"
        )
    print(
        f"{config.out}: {num_examples} pairs, {summary.num_refused_pairs} refused"
        + (f", {summary.num_orphans} files without a partner; " if summary.num_orphans else "; ")
        + f"{summary.record_bytes / 2**20:.1f} MiB of records from "
        f"{summary.input_bytes / 2**20:.1f} MiB of files "
        f"({100 * summary.record_bytes / summary.input_bytes:.0f} %); {summary.seconds:.1f} s"
    )
    return 0


def _inspect(flags: dict[str, Any], beam_options: Sequence[str]) -> int:
    _refuse_beam_options("inspect", beam_options)
    config = InspectConfig(**flags)
    # Here, because SciPy and Jinja are for this verb only.
    from preprocessing.inspection.checks import check_gallery_place, find_problems
    from preprocessing.inspection.tables import describe_dataset

    dataset = DatasetManifest.load(config.dataset)
    if config.gallery:
        check_gallery_place(config.gallery, dataset_dir=config.dataset)
    print("\n".join(describe_dataset(config.dataset, dataset)), flush=True)
    problems = find_problems(config.dataset, dataset, verify=config.verify)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        if config.gallery:
            print(f"error: so {config.gallery} was not written", file=sys.stderr)
        return 1
    shards = "each has its size and SHA-256" if config.verify else "each has its size"
    print(f"shards: {shards}")
    if config.gallery:
        _gallery(config, dataset, config.gallery)
    else:
        print("masks: not looked at; pass --gallery page.html to see them, the worst first")
    return 0


def _gallery(config: InspectConfig, dataset: DatasetManifest, page: Path) -> None:
    from preprocessing.inspection.findings import judge
    from preprocessing.inspection.gallery import write_gallery
    from preprocessing.inspection.scan import measure_slices
    from preprocessing.inspection.tables import describe_findings

    measured = measure_slices(config.dataset, dataset)
    judged = judge(measured, gray_value_mean=dataset.statistics.gray_value_mean)
    num_shown = write_gallery(
        page,
        dataset_dir=config.dataset,
        dataset=dataset,
        judged=judged,
        max_slices=config.gallery_slices,
    )
    print("\n".join(describe_findings(judged)))
    print(
        f"\n{page}: {num_shown} of {len(judged)} slices, the worst first; "
        f"{page.stat().st_size / 2**20:.1f} MiB"
    )


def _refuse_beam_options(verb: str, beam_options: Sequence[str]) -> None:
    if beam_options:
        raise ValueError(f"`{verb}` takes nothing after `--`; only `tfrecords` runs on Beam")


def _phantoms(flags: dict[str, Any], beam_options: Sequence[str]) -> int:
    _refuse_beam_options("phantoms", beam_options)
    from preprocessing.phantoms.drawing import PhantomsConfig, write_phantoms

    config = PhantomsConfig(**flags)
    print(f"{config.out}: {write_phantoms(config)} pairs in images/ and masks/")
    return 0


def _download(flags: dict[str, Any], beam_options: Sequence[str]) -> int:
    if beam_options:
        raise ValueError("`download` takes nothing after `--`; only `tfrecords` runs on Beam")
    config = DownloadConfig(**flags)
    if config.keep_existing and config.out.is_dir() and any(config.out.iterdir()):
        print(f"{config.out} is there already; nothing was downloaded")
        return 0
    from preprocessing.download import job  # as Beam, gdown takes its time to load

    summary = job.run(config, is_terminal=sys.stderr.isatty())
    print(
        f"{config.out}: {summary.num_files} files, {summary.num_bytes / 2**20:.1f} MiB, from a "
        f"download of {summary.downloaded_bytes / 2**20:.1f} MiB"
    )
    if summary.sha256 and not config.sha256:
        print(f"pass --sha256 {summary.sha256} to be sure of the same file the next time")
    return 0


def _cut_at_separator(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    own = list(argv)
    if _BEAM_SEPARATOR not in own:
        return own, []
    index = own.index(_BEAM_SEPARATOR)
    return own[:index], own[index + 1 :]


def build_parser() -> argparse.ArgumentParser:
    """Gives the parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="python -m preprocessing",
        description="From slices and masks to TFRecords.",
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_tfrecords(verbs)
    _add_inspect(verbs)
    _add_phantoms(verbs)
    _add_download(verbs)
    return parser


def _add_tfrecords(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    verb = verbs.add_parser(
        "tfrecords",
        help="slices and masks -> sharded TFRecords with a dataset.json",
        description=_TFRECORDS_DESCRIPTION,
        epilog=_TFRECORDS_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verb.add_argument(
        "--images",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of slices (BMP, PNG, TIFF or JPEG, 8-bit gray), or of scans (DICOM series, or "
        "NIfTI in Hounsfield units)",
    )
    verb.add_argument(
        "--masks",
        type=Path,
        metavar="DIR",
        help="folder of masks with the same names; 255 (or 1) is lung, 0 is background; of scans: "
        "NIfTI label maps with their names, DICOM SEG or RTSTRUCT (default: masks lie among the "
        "slices and are told by --mask-pattern; SEG and RTSTRUCT name their series)",
    )
    verb.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the dataset; is made"
    )
    verb.add_argument(
        "--overwrite", action="store_true", help="replace the dataset that --out holds"
    )
    _add_volume_flags(verb)
    verb.add_argument(
        "--image-pattern",
        default=TfrecordsConfig.image_pattern,
        metavar="REGEX",
        help="regular expression; what it finds in the path of a slice, without extension, is cut "
        "out before it is compared with masks (default: finds a folder images, slices or ct)",
    )
    verb.add_argument(
        "--mask-pattern",
        default=TfrecordsConfig.mask_pattern,
        metavar="REGEX",
        help="the same for a mask, and where --masks is left out it tells masks from slices "
        "(default: finds a folder masks, segmentations or labels, and _mask, _seg, _segmentation "
        "or _label at the end)",
    )
    verb.add_argument(
        "--mask-foreground",
        type=_gray_values,
        metavar="N,N",
        help="gray values that are lung in masks with several labels, such as 1,2; all others are "
        "background (default: masks hold 0 and 255, or 0 and 1)",
    )
    verb.add_argument(
        "--allow-orphans",
        action="store_true",
        help="leave out slices without a mask and masks without a slice, and list them",
    )
    verb.add_argument(
        "--validation-fraction",
        type=float,
        default=TfrecordsConfig.validation_fraction,
        metavar="SHARE",
        help="at least this share of the slices is for validation (default: %(default)s)",
    )
    verb.add_argument(
        "--split-by",
        choices=SPLIT_BY_CHOICES,
        default=TfrecordsConfig.split_by,
        help="what is kept together in one split (default: %(default)s)",
    )
    verb.add_argument(
        "--split-file",
        type=Path,
        metavar="FILE",
        help="table with the columns patient_id,split (or slice_id,split), or an earlier "
        "dataset.json: who is for train and who for validation (default: drawn by --seed)",
    )
    verb.add_argument(
        "--patient-pattern",
        default=TfrecordsConfig.patient_pattern,
        metavar="REGEX",
        help="whose slice it is: names (<patient>_z<slice> or <patient>_Z_<slice>), folders (one "
        "for each patient), auto (names, or else folders), or a regular expression with a group "
        "named patient_id, searched in the path of a slice below --images, without extension, "
        "such as '^(?P<patient_id>[^/]+)/' (default: %(default)s)",
    )
    verb.add_argument(
        "--seed",
        type=int,
        default=TfrecordsConfig.seed,
        metavar="N",
        help="another seed gives another split and order (default: %(default)s)",
    )
    verb.add_argument(
        "--max-refused-fraction",
        type=float,
        default=TfrecordsConfig.max_refused_fraction,
        metavar="SHARE",
        help="fail if a larger share of the slices is refused (default: %(default)s)",
    )
    verb.add_argument(
        "--encoding",
        choices=ENCODINGS,
        default=TfrecordsConfig.encoding,
        help="how slices are stored, both without loss: png is small, raw needs no decoding "
        "(default: %(default)s)",
    )
    verb.add_argument(
        "--image-size",
        type=int,
        metavar="N",
        help="scale slices and masks to N x N pixels (default: as they come)",
    )
    verb.add_argument(
        "--num-shards",
        type=int,
        metavar="N",
        help="files of the training split, validation in proportion (default: from the sizes)",
    )
    verb.add_argument(
        "--runner",
        default=TfrecordsConfig.runner,
        metavar="NAME",
        help="Apache Beam's engine (default: %(default)s, this machine with all its cores); "
        "others: docs/engines.md",
    )


def _add_volume_flags(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--read",
        choices=READ_CHOICES,
        default=TfrecordsConfig.read,
        help="slices, or volumes of DICOM and NIfTI (default: %(default)s, what --images holds)",
    )
    verb.add_argument(
        "--window-level-hu",
        type=float,
        default=TfrecordsConfig.window_level_hu,
        metavar="HU",
        help="of volumes: center of the window that becomes gray values (default: %(default)s)",
    )
    verb.add_argument(
        "--window-width-hu",
        type=float,
        default=TfrecordsConfig.window_width_hu,
        metavar="HU",
        help="of volumes: width of that window (default: %(default)s)",
    )
    verb.add_argument(
        "--structure",
        default=TfrecordsConfig.structure,
        metavar="REGEX",
        help="of volumes: which segments of a SEG or structures of an RTSTRUCT are the mask, by "
        "their names (default: %(default)s)",
    )
    verb.add_argument(
        "--salt-file",
        type=Path,
        metavar="FILE",
        help="of volumes: the secret from which pseudonyms of patients are made; is made if it is "
        "not there; keep it for equal names the next time (default: beside --out)",
    )


def _gray_values(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(value) for value in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"received {text!r}; expected gray values such as 1,2"
        ) from error


def _add_inspect(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    verb = verbs.add_parser(
        "inspect",
        help="what a dataset holds, and which masks to look at",
        description=_INSPECT_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verb.add_argument("dataset", type=Path, metavar="DATASET", help="folder of a dataset")
    verb.add_argument(
        "--gallery",
        type=Path,
        metavar="PAGE",
        help="HTML file to write: all masks are judged, and the oddest shown on their slices",
    )
    verb.add_argument(
        "--gallery-slices",
        type=int,
        default=InspectConfig.gallery_slices,
        metavar="N",
        help="at most this many slices are on the page (default: %(default)s)",
    )
    verb.add_argument(
        "--verify", action="store_true", help="compare each shard with its SHA-256 in dataset.json"
    )


def _add_phantoms(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    verb = verbs.add_parser(
        "phantoms",
        help="make chest-like slices and masks to try the project with",
        description="Makes chest-like CT slices and their lung masks: OUT/images and OUT/masks.",
        allow_abbrev=False,
    )
    verb.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    numbers = (
        ("--num-patients", 20, "number of patients"),
        ("--slices-per-patient", 12, "number of slices of each patient"),
        ("--image-size", 512, "height and width, in pixels"),
        ("--seed", 0, "another seed gives other patients"),
    )
    for flag, default, meaning in numbers:
        verb.add_argument(
            flag, type=int, default=default, metavar="N", help=f"{meaning} (default: %(default)s)"
        )


def _add_download(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    verb = verbs.add_parser(
        "download",
        help="fetch slices from Google Drive or any other address, and unpack them",
        description=_DOWNLOAD_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verb.add_argument(
        "--url",
        required=True,
        help="address of an archive or a file, or of a file or folder that Google Drive shares "
        "with everybody",
    )
    verb.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder to write to; is made"
    )
    verb.add_argument(
        "--sha256",
        metavar="HASH",
        help="fail unless the downloaded file has this hash (default: any; it is printed)",
    )
    verb.add_argument(
        "--keep-existing",
        action="store_true",
        help="do nothing where --out holds files already (default: that is an error)",
    )
    numbers = (
        ("--timeout-s", float, "longest wait for a connection or the next byte, in seconds"),
        ("--num-retries", int, "failures in a row that are borne; new bytes start a new count"),
        ("--max-gib", float, "most GiB to download, and most GiB to unpack from it"),
        ("--max-files", int, "most files and folders in an archive or a Drive folder"),
    )
    for flag, kind, meaning in numbers:
        verb.add_argument(
            flag,
            type=kind,
            default=getattr(DownloadConfig, flag.removeprefix("--").replace("-", "_")),
            metavar="N",
            help=f"{meaning} (default: %(default)s)",
        )


class _MainThreadOnly(io.TextIOBase):
    """A stream to which other threads write in vain."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        is_main = threading.current_thread() is threading.main_thread()
        return self._stream.write(text) if is_main else len(text)

    def flush(self) -> None:
        self._stream.flush()


def _interrupt(*_: object) -> NoReturn:
    """Ends the run; the engine's threads, which break off, would print how they did."""
    sys.stderr = cast(TextIO, _MainThreadOnly(sys.stderr))
    raise KeyboardInterrupt


if __name__ == "__main__":
    # A container is stopped with SIGTERM: end as on Ctrl-C, and leave nothing half-done behind.
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, signal.SIG_IGN if _on_ctrl_c is signal.SIG_IGN else _interrupt)
    for stream in (sys.stdout, sys.stderr):
        # A name that a terminal cannot show must not end a job that is done.
        cast(io.TextIOWrapper, stream).reconfigure(errors="backslashreplace")
    status = main(sys.argv[1:])
    if status:
        # Threads of an engine that was interrupted or failed may never end; Python would wait.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
