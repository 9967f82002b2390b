"""The flags of ``python -m serving``."""

import argparse
from pathlib import Path

from preprocessing.spec import READ_CHOICES
from serving.config import (
    MASK_FORMATS,
    SENT_SIGNATURES,
    BulkConfig,
    CallConfig,
    DemoConfig,
    PredictConfig,
    ServeConfig,
    ViewConfig,
    VolumeConfig,
)
from serving.container.command import TAG
from trainer.test_time import DEFAULT_FLIPS, FLIP_CHOICES


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of all commands; each gets the fields of its configuration."""
    parser = argparse.ArgumentParser(
        prog="python -m serving",
        description="Serve a lung segmentation model, and get masks from it.",
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_serve(verbs)
    _add_container(verbs)
    _add_predict(verbs)
    _add_bulk(verbs)
    _add_view(verbs)
    _add_demo(verbs)
    return parser


def _add_serve(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    serve = verbs.add_parser(
        "serve",
        help="serve a model on this computer, with TensorFlow Serving's protocol",
        description=(
            "Serve one model, or several with --model_config_file, with TensorFlow Serving's gRPC "
            "and REST protocols. For development and tests; in production "
            "run the tensorflow/serving container, whose command line this prints. The flags are "
            "named as those of tensorflow_model_server. Once it answers, the last line on stdout "
            "is READY and a JSON object. SIGTERM or Ctrl-C ends it: calls under way get their "
            "answers first."
        ),
        allow_abbrev=False,
    )
    _add_server(serve)


def _add_container(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    container = verbs.add_parser(
        "container",
        help="serve a model with TensorFlow Serving's own container, where Docker or Podman is",
        description=(
            "Run the tensorflow/serving container on a model: as nobody, without rights, with the "
            "server as the process that signals reach. The flags are those of `serve`."
        ),
        allow_abbrev=False,
    )
    container.add_argument(
        "--tag", default=TAG, help="tag of the image, such as 2.21.0-gpu (default: %(default)s)"
    )
    container.add_argument(
        "--print", action="store_true", help="print the command instead of running it"
    )
    _add_server(container)


def _add_server(serve: argparse.ArgumentParser) -> None:
    """Adds the fields of ``ServeConfig``, named as tensorflow_model_server names them."""
    serve.add_argument(
        "--model_base_path",
        type=Path,
        metavar="DIR",
        help="folder with a numbered folder for each version, such as DIR/1",
    )
    serve.add_argument(
        "--model_name",
        default=ServeConfig.model_name,
        metavar="NAME",
        help="name that clients ask for (default: %(default)s)",
    )
    serve.add_argument(
        "--model_config_file",
        type=Path,
        metavar="FILE",
        help="ModelServerConfig as text, instead of these two: several models, policies, labels",
    )
    serve.add_argument(
        "--file_system_poll_wait_seconds",
        type=float,
        default=ServeConfig.file_system_poll_wait_seconds,
        metavar="S",
        help="seconds between two looks for new versions; 0: none (default: %(default)s)",
    )
    serve.add_argument(
        "--ssl_config_file",
        type=Path,
        metavar="FILE",
        help="SSLConfig as text, with key, certificate and authority as PEM text: gRPC over TLS",
    )
    serve.add_argument(
        "--monitoring_config_file",
        type=Path,
        metavar="FILE",
        help="MonitoringConfig as text: metrics for Prometheus at the REST port",
    )
    _add_switch(
        serve,
        "--allow_version_labels_for_unavailable_models",
        "let a label name a version that is not loaded yet, as all are not at the start",
    )
    _add_switch(
        serve,
        "--allow_reload_config",
        "let clients have other models served, as TensorFlow Serving always does",
    )
    _add_switch(
        serve, "--enable_grpc_healthcheck_service", "answer grpc.health.v1.Health, as probes ask it"
    )
    _add_switch(serve, "--enable_batching", "does nothing here: each request runs by itself")
    serve.add_argument(
        "--batching_parameters_file",
        type=Path,
        metavar="FILE",
        help="does nothing here either",
    )
    serve.add_argument(
        "--port",
        type=int,
        default=ServeConfig.port,
        metavar="PORT",
        help="gRPC port; 0 takes a free one (default: %(default)s)",
    )
    serve.add_argument(
        "--rest_api_port",
        type=int,
        default=ServeConfig.rest_api_port,
        metavar="PORT",
        help="port of TensorFlow Serving's REST API; 0 is off (default: %(default)s)",
    )
    serve.add_argument(
        "--bind_address",
        default=ServeConfig.bind_address,
        metavar="ADDRESS",
        help=(
            "address to listen at; 0.0.0.0 opens it to the network, without any authentication "
            "(default: %(default)s)"
        ),
    )


def _add_switch(parser: argparse.ArgumentParser, flag: str, meaning: str) -> None:
    """Adds a flag as tensorflow_model_server writes it: alone, or with =true or =false."""
    parser.add_argument(
        flag, type=_truth, nargs="?", const=True, default=False, metavar="true|false", help=meaning
    )


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"received {text!r}; expected true or false")
    return text == "true"


def _add_predict(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    predict = verbs.add_parser(
        "predict",
        help="get the masks of a slice or a folder of slices from a server",
        description=(
            "Send slices (BMP, PNG, TIFF or JPEG; with --signature encoded BMP or PNG) to a served "
            "model and write, below OUT: masks/NAME.png (255 is "
            "lung), overlays/NAME.png, summary.csv and summary.json. A file that fails is told in "
            "one line and the others go on; the exit code is 0 only if every slice has its mask. "
            "The same command goes on where it was stopped. Of DICOM series and NIfTI volumes it "
            "writes the lungs as volumes: NAME/lungs.nii.gz, lungs.dcm (DICOM SEG), pictures, and "
            "scans.csv with their milliliters."
        ),
        allow_abbrev=False,
    )
    predict.add_argument(
        "inputs",
        type=Path,
        nargs="+",
        metavar="INPUT",
        help="a slice, a folder that is searched through for slices, or a pattern such as "
        "P1/*.bmp; or folders of DICOM series, and NIfTI volumes",
    )
    predict.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the results"
    )
    predict.add_argument(
        "--signature",
        choices=SENT_SIGNATURES,
        default=PredictConfig.signature,
        help=(
            "serving_default sends pixels; encoded sends the file's own bytes, and the server "
            "decodes them (default: %(default)s)"
        ),
    )
    predict.add_argument(
        "--window",
        type=int,
        default=PredictConfig.window,
        metavar="N",
        help="slices that are under way at the same time (default: %(default)s)",
    )
    predict.add_argument(
        "--masks-as",
        nargs="+",
        choices=MASK_FORMATS,
        default=PredictConfig.masks_as,
        help=(
            "files of each mask: png (255 is lung), npy (uint8, 1 is lung), rle (run lengths as "
            f"JSON, as COCO has them) (default: {' '.join(PredictConfig.masks_as)})"
        ),
    )
    predict.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=PredictConfig.resume,
        help="skip slices or scans that an earlier run into OUT has finished (default: yes)",
    )
    _add_volumes(predict)
    _add_call(predict)


def _add_bulk(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    bulk = verbs.add_parser(
        "bulk",
        help="segment an archive of slices or scans, on Apache Beam",
        description=(
            "Segment all slices, DICOM series and NIfTI volumes of a folder or bucket on Apache "
            "Beam: shards of masks as run lengths (of scans, folders as of `predict`), and "
            "bulk.json, which lists shards, what was refused, and why. Workers run --model "
            "themselves, or ask the server at --target. The same command goes on where it was "
            "stopped. Beam's own options go after `--`."
        ),
        allow_abbrev=False,
    )
    bulk.add_argument("inputs", metavar="INPUT", help="folder or bucket, such as gs://name/folder")
    bulk.add_argument("--out", required=True, metavar="DIR", help="folder or bucket for results")
    bulk.add_argument(
        "--model",
        metavar="DIR",
        help="SavedModel, or folder of its versions, that workers run (default: ask --target)",
    )
    bulk.add_argument(
        "--slices-per-shard",
        type=int,
        default=BulkConfig.slices_per_shard,
        metavar="N",
        help="slices that a worker has at a time; of scans, one folder (default: %(default)s)",
    )
    bulk.add_argument(
        "--window",
        type=int,
        default=BulkConfig.window,
        metavar="N",
        help="slices that a worker has under way at the server (default: %(default)s)",
    )
    bulk.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=BulkConfig.resume,
        help="leave finished shards alone (default: yes)",
    )
    bulk.add_argument(
        "--runner",
        default=BulkConfig.runner,
        metavar="NAME",
        help="Apache Beam's engine (default: %(default)s); others: docs/engines.md",
    )
    _add_volumes(bulk)
    _add_call(bulk)


def _add_volumes(parser: argparse.ArgumentParser) -> None:
    """Adds the fields of ``VolumeConfig``."""
    parser.add_argument(
        "--overlays",
        action=argparse.BooleanOptionalAction,
        default=VolumeConfig.overlays,
        help="draw each mask on its slice, and cuts through volumes (default: yes)",
    )
    parser.add_argument(
        "--read",
        choices=READ_CHOICES,
        default=VolumeConfig.read,
        help="slices, or volumes of DICOM and NIfTI (default: %(default)s, what INPUT is)",
    )
    parser.add_argument(
        "--window-level-hu",
        type=float,
        default=VolumeConfig.window_level_hu,
        metavar="HU",
        help="of volumes: center of the window of the model's training (default: %(default)s)",
    )
    parser.add_argument(
        "--window-width-hu",
        type=float,
        default=VolumeConfig.window_width_hu,
        metavar="HU",
        help="of volumes: width of that window (default: %(default)s)",
    )


def _add_call(parser: argparse.ArgumentParser) -> None:
    """Adds the fields of ``CallConfig``."""
    parser.add_argument(
        "--target",
        default=CallConfig.target,
        metavar="HOST:PORT",
        help="gRPC address of the server (default: %(default)s)",
    )
    parser.add_argument(
        "--model-name",
        default=CallConfig.model_name,
        metavar="NAME",
        help="name under which the server serves the model (default: %(default)s)",
    )
    parser.add_argument(
        "--model-version",
        type=int,
        default=CallConfig.model_version,
        metavar="N",
        help="version to ask for (default: the latest that the server has)",
    )
    parser.add_argument(
        "--model-label",
        default=CallConfig.model_label,
        metavar="LABEL",
        help="label of the version to ask for, such as stable, instead of its number",
    )
    parser.add_argument(
        "--flips",
        choices=FLIP_CHOICES,
        default=CallConfig.flips,
        help=(
            "flips of a slice that are segmented too, to take the mean of their probabilities "
            f"(default: {DEFAULT_FLIPS}, but none with the signature encoded)"
        ),
    )
    parser.add_argument(
        "--postprocess",
        action=argparse.BooleanOptionalAction,
        default=CallConfig.postprocess,
        help=(
            "drop specks of predicted lung and fill small holes (default: "
            f"{'yes' if CallConfig.postprocess else 'no'})"
        ),
    )
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=CallConfig.timeout_s,
        metavar="SECONDS",
        help="time for each slice, retries included (default: %(default)g)",
    )
    parser.add_argument(
        "--wait-for-ready",
        action="store_true",
        help="wait that long for a server that is not there yet, instead of ending at once",
    )
    parser.add_argument("--tls", action="store_true", help="call with TLS; so does each flag below")
    files = (
        ("--tls-ca", "authorities to trust (default: those that gRPC brings)"),
        ("--tls-certificate", "the client's certificate, for servers that ask who calls"),
        ("--tls-key", "its private key"),
    )
    for flag, meaning in files:
        parser.add_argument(flag, type=Path, metavar="FILE", help=f"PEM: {meaning}")
    parser.add_argument(
        "--tls-server-name",
        metavar="NAME",
        help="name in the server's certificate, where that is not the host of the target",
    )


def _add_view(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    view = verbs.add_parser(
        "view",
        help="open a page on which slices are dropped and masks looked at",
        description=(
            "Serve a page at 127.0.0.1: drop slices or a folder on it, and see slice, mask and "
            "overlay, with areas and times. Ctrl-C ends it."
        ),
        allow_abbrev=False,
    )
    view.add_argument(
        "--port",
        type=int,
        default=ViewConfig.port,
        metavar="PORT",
        help="port of the page; 0 takes a free one (default: %(default)s)",
    )
    view.add_argument(
        "--max-upload-mib",
        type=int,
        default=ViewConfig.max_upload_mib,
        metavar="MIB",
        help="largest file that is taken (default: %(default)s)",
    )
    _add_call(view)


def _add_demo(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    demo = verbs.add_parser(
        "demo",
        help="drive the whole road: slices, records, training, server, masks, report",
        description=(
            "Drive the whole road at a small size and write report.html: slices, records, "
            "training, evaluation, export, server, masks. Without slices of your own, CT phantoms "
            "are drawn."
        ),
        allow_abbrev=False,
    )
    demo.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for everything; that of an earlier demo is replaced",
    )
    demo.add_argument(
        "--images", type=Path, metavar="DIR", help="slices of your own (default: phantoms)"
    )
    demo.add_argument("--masks", type=Path, metavar="DIR", help="their masks")
    demo.add_argument(
        "--patient-pattern",
        default=DemoConfig.patient_pattern,
        metavar="REGEX",
        help="as in `python -m preprocessing tfrecords`, which has the default",
    )
    demo.add_argument(
        "--max-refused-fraction",
        type=float,
        default=DemoConfig.max_refused_fraction,
        metavar="SHARE",
        help="as in `python -m preprocessing tfrecords`, which has the default",
    )
    numbers = (
        ("--num-patients", "N", "number of phantom patients"),
        ("--slices-per-patient", "N", "slices of each phantom patient"),
        ("--image-size", "PX", "height and width that the model works at"),
        ("--filters", "N", "filters of the first level of the U-Net"),
        ("--epochs", "N", "passes over the training slices, at most"),
    )
    for flag, metavar, meaning in numbers:
        demo.add_argument(
            flag,
            type=int,
            default=getattr(DemoConfig, flag.removeprefix("--").replace("-", "_")),
            metavar=metavar,
            help=f"{meaning} (default: %(default)s)",
        )
