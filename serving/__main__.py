"""Command line: ``python -m serving serve``, ``predict``, ``bulk``, ``view`` and ``demo``."""

import signal

if __name__ == "__main__":
    # Until `main` can say it in a line, Ctrl-C ends the program without a traceback.
    _on_ctrl_c = signal.signal(signal.SIGINT, signal.SIG_DFL)

import json
import logging
import os
import queue
import shutil
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from preprocessing.errors import EngineError
from serving.config import BulkConfig, DemoConfig, PredictConfig, ServeConfig, ViewConfig
from serving.errors import InputError, ServingError
from serving.flags import build_parser

if TYPE_CHECKING:  # the real import loads the engine, which the other verbs can do without
    from serving.embedded.server import EmbeddedServer
    from serving.results import Summary
    from serving.volumes.scan_results import ScanSummary

Item = TypeVar("Item")

READY = "READY"
"""First word of the line that says, as JSON, that the server answers and where."""

WAKE_S = 0.5
"""Seconds after which the server looks whether a signal came."""

NUM_REFUSED_SHOWN = 5

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Runs one command and gives its exit code."""
    try:
        arguments = _parse(argv)
        verbs = {
            "serve": _serve,
            "container": _container,
            "predict": _predict,
            "bulk": _bulk,
            "view": _view,
            "demo": _demo,
        }
        run = verbs[arguments.pop("verb")]
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        return run(arguments)
    except (ServingError, ValueError, OSError, EngineError) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted")
        return EXIT_INTERRUPTED


def _parse(argv: list[str] | None) -> dict[str, Any]:
    parser = build_parser()
    own, beam_options = _cut_at_separator(sys.argv[1:] if argv is None else argv)
    arguments, unknown = parser.parse_known_args(own)
    if arguments.verb == "bulk":
        arguments.beam_options = tuple(beam_options)
    elif beam_options:
        parser.error(f"`{arguments.verb}` takes nothing after `--`; only `bulk` runs on Beam")
    if unknown and arguments.verb in ("serve", "container"):
        parser.error(
            f"this server has no {' '.join(unknown)}; expected flags that `python -m serving "
            f"{arguments.verb} --help` lists; leave away what else tensorflow_model_server takes"
        )
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return vars(arguments)


def _cut_at_separator(argv: list[str]) -> tuple[list[str], list[str]]:
    """Gives our own arguments, and those of Beam."""
    index = argv.index("--") if "--" in argv else len(argv)
    return argv[:index], argv[index + 1 :]


def _serve(arguments: dict[str, Any]) -> int:
    config = ServeConfig(**arguments)
    if config.enable_batching or config.batching_parameters_file:
        print("this server does not batch: what is said about batching does nothing here")
    # A signal can arrive while the main thread holds the lock of an Event; this queue has none.
    stop: queue.SimpleQueue[int] = queue.SimpleQueue()

    def stop_on_signal(number: int, frame: FrameType | None) -> None:
        stop.put(number)

    # Before the model is loaded, so that a signal during the load ends the program in order too.
    # Python as a container's first process would ignore SIGTERM without a handler.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop_on_signal)

    from serving.embedded.server import DRAIN_S, EmbeddedServer

    server = EmbeddedServer(config)
    server.start()
    _print_start(config, server)
    _wait_for(stop)
    print(f"stopping; calls under way have {DRAIN_S:g} s to end", file=sys.stderr, flush=True)
    server.stop()
    return EXIT_OK


def _wait_for(stop: "queue.SimpleQueue[int]") -> None:
    """Waits for a signal, and wakes now and then: one that comes just before would not wake it."""
    while True:
        try:
            stop.get(timeout=WAKE_S)
        except queue.Empty:
            continue
        return


def _print_start(config: ServeConfig, server: "EmbeddedServer") -> None:
    from serving.container.command import as_shell, docker_command
    from serving.engine import describe_signatures

    models = server.models.served()
    for model in models:
        print(f"{model.name} version {model.version} from {model.folder}")
        for line in describe_signatures(model.session.signatures):
            print(f"  {line}")
    print(f"gRPC at {server.target}, REST {f'at {server.rest_url}' if server.rest_url else 'off'}")
    print("Ctrl-C stops it.")
    print("This server is for development; in production TensorFlow Serving does the same:")
    print(f"  {as_shell(docker_command(config, port=server.port))}")
    ready = {
        "target": server.target,
        "rest_url": server.rest_url,
        "model_name": models[0].name,
        "model_version": models[0].version,
    }
    print(READY, json.dumps(ready), flush=True)


def _container(arguments: dict[str, Any]) -> int:
    from serving.container.command import as_shell, docker_command

    tag, is_printed = arguments.pop("tag"), arguments.pop("print")
    config = ServeConfig(**arguments)
    if not config.port:
        raise ValueError("--port is 0; expected a port that is known before the container runs")
    command = docker_command(config, port=config.port, tag=tag)
    if is_printed:
        print(as_shell(command))
        return EXIT_OK
    program = shutil.which("docker") or shutil.which("podman")
    if program is None:
        raise InputError(
            "neither docker nor podman is installed; install one, or run what --print prints where "
            "one is. `serve` needs no container"
        )
    print(as_shell(command), flush=True)
    words = [word for line in command for word in line]
    # In the place of this process: signals reach it, and its exit code is the answer.
    os.execv(program, [program, *words[1:]])


def _predict(arguments: dict[str, Any]) -> int:
    config = PredictConfig(**arguments)
    from tqdm import tqdm

    from preprocessing.volumes.detection import holds_volumes

    def progress(slices: Sequence[Item]) -> Iterator[Item]:
        # disable=None: no bar where nobody watches, such as in a log file.
        yield from tqdm(slices, desc="segmenting", unit="slice", disable=None, dynamic_ncols=True)

    def on_failure(line: str) -> None:
        tqdm.write(f"failed: {line}", file=sys.stderr)

    summary: Summary | ScanSummary
    try:
        if holds_volumes(config.inputs, read=config.read, leave_out=[config.out]):
            # Here, because reading DICOM and NIfTI takes libraries that slices do without.
            from serving.volumes import job
            from serving.volumes.scan_results import CSV_FILENAME as TABLE

            summary = job.run(config, progress=progress, on_failure=on_failure)
        else:
            from serving import predict
            from serving.results import CSV_FILENAME as TABLE

            summary = predict.run(config, progress=progress, on_failure=on_failure)
    except KeyboardInterrupt:
        _fail(
            f"interrupted; the masks made so far are in {config.out}, and the same command goes on "
            "from there"
        )
        return EXIT_INTERRUPTED
    if summary.results:
        print(summary.to_text())
        print(f"results in {config.out}, a table in {config.out / TABLE}")
    if summary.stopped:
        return _fail(summary.stopped)
    return EXIT_FAILED if summary.failed else EXIT_OK


def _bulk(arguments: dict[str, Any]) -> int:
    config = BulkConfig(**arguments)
    for handler in logging.getLogger().handlers:  # Beam speaks through the root logger, at length
        handler.addFilter(lambda record: record.name.startswith(("serving", "preprocessing")))
    from serving.bulk import job  # Beam takes seconds to load; --help should not.

    summary = job.run(config)
    for entry in summary.refused[:NUM_REFUSED_SHOWN]:
        print(f"refused: {entry.file} {entry.reason}")
    if summary.refused[NUM_REFUSED_SHOWN:]:
        num_more = len(summary.refused) - NUM_REFUSED_SHOWN
        print(f"refused: {num_more} more, see {job.MANIFEST}")
    print(
        f"{config.out}: {summary.num_results} results, {len(summary.refused)} refused; "
        f"{summary.num_shards} shards, {summary.num_finished_before} of them by an earlier run; "
        f"{summary.seconds:.1f} s"
    )
    return EXIT_FAILED if summary.refused else EXIT_OK


def _view(arguments: dict[str, Any]) -> int:
    config = ViewConfig(**arguments)
    from serving.view.server import serve_page

    serve_page(config, on_ready=lambda url: print(f"open {url} (Ctrl-C ends it)", flush=True))
    return EXIT_OK


def _demo(arguments: dict[str, Any]) -> int:
    config = DemoConfig(**arguments)

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    signal.signal(signal.SIGTERM, interrupt)
    from serving import demo

    try:
        page = demo.run(config)
    except KeyboardInterrupt:
        _fail("interrupted; the next demo starts anew")
        return EXIT_INTERRUPTED
    print(f"done: open {page}")
    return EXIT_OK


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return EXIT_FAILED


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _on_ctrl_c)
    sys.exit(main())
