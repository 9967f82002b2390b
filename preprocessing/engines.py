"""Apache Beam's engines: their options, what must be there before they start, how they fail.

This is a contract: ``serving`` runs its bulk job on the same engines.
"""

import importlib.util
import os
import re
import socket
import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Protocol

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions, StandardOptions
from apache_beam.runners import create_runner

from preprocessing.errors import EngineError, PreprocessingError
from preprocessing.publish import write_text

CONNECT_TIMEOUT_S = 10.0
"""An engine that is there accepts a connection at once; one behind a stalled route never does."""

DASK_OPTIONS = (
    "dask_client_address",
    "dask_client_name",
    "dask_connection_limit",
    "dask_connection_timeout",
    "dask_npartitions",
    "dask_partition_size",
    "dask_scheduler_file",
)
"""Flags of Dask's engine; Beam lists its options under other names."""

_IN_PROCESS = ("fnapirunner", "directrunner")
"""For these names this process does the work.

Beam's own ``DirectRunner`` may download a Go program before it starts; ours does not.
"""

_MAX_PORT = 65535

_DASK = "daskrunner"
# Beam knows Dask's engine by its full name only.
_DASK_CLASS = "apache_beam.runners.dask.dask_runner.DaskRunner"

_ERROR_LINE = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception)\b", flags=re.MULTILINE)
_JAVA_FRAME = "\n\tat "
_MAX_SUMMARY_LENGTH = 300


class EngineConfig(Protocol):
    """What a job says of the engine that runs it."""

    @property
    def runner(self) -> str:
        """Beam's name of the engine."""

    @property
    def beam_options(self) -> tuple[str, ...]:
        """Beam's own options."""


def beam_options(config: EngineConfig) -> PipelineOptions:
    """Gives Beam's options, and looks whether the engine that they name is there.

    Raises:
        PreprocessingError: if there is no such engine, if it is not installed or cannot be reached,
            or if Beam would ignore one of the options.
    """
    flags, name = config.beam_options, _full_name(config.runner)
    if "--no_wait_until_finish" in flags:
        raise PreprocessingError(
            "received --no_wait_until_finish; expected to wait, since the results are published "
            "when the engine is done; leave it out"
        )
    if name in _IN_PROCESS:
        return _in_process_options(flags)
    if name in (_DASK, _DASK_CLASS.lower()):
        return _dask_options(flags)
    # Not all are checked: what they mean may be known to the engine's server only.
    options = PipelineOptions([f"--runner={config.runner}", *flags])
    _check_runner(config.runner, options=options)
    endpoint = options.view_as(PortableOptions).job_endpoint
    if endpoint and endpoint != "embed":
        _check_address(endpoint, flag="--job_endpoint", service="job service")
    return options


def run_to_end(
    pipeline: beam.Pipeline, *, runner: str, report: Path, outcome: str = "nothing was published"
) -> None:
    """Runs a pipeline and waits until the engine is done; Ctrl-C ends the engine's work too.

    Args:
        pipeline: what to run.
        runner: the engine's name, as the user gave it.
        report: file for all that the engine says if it fails; an older one is removed.
        outcome: what a failure leaves behind, for the message.

    Raises:
        EngineError: if the engine fails.
        OSError: if the report cannot be written.
    """
    report.unlink(missing_ok=True)
    with _engine_errors(runner, report=report, outcome=outcome):
        result = pipeline.run()
        try:
            result.wait_until_finish()
        except KeyboardInterrupt:
            # A job on a cluster would go on, and write to a folder that is gone.
            result.cancel()
            raise


@contextmanager
def _engine_errors(runner: str, *, report: Path, outcome: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        write_text(report, "".join(traceback.format_exception(error)))
        raise EngineError(
            f"the engine {runner} failed: {_summarize(error)}; {outcome}; "
            f"all that it said is in {report}; mend that and run again"
        ) from error


def _summarize(error: Exception) -> str:
    """Gives what happened in one line, out of pages of traceback."""
    text = str(error).strip()
    # Python frames come before the words that say what happened, Java frames after them.
    starts = [match.start() for match in _ERROR_LINE.finditer(text)]
    said = text[starts[-1] :] if starts else f"{type(error).__name__}: {text}"
    return shorten(said.partition(_JAVA_FRAME)[0], _MAX_SUMMARY_LENGTH, placeholder=" …")


def _full_name(runner: str) -> str:
    """Gives the name in lower case; as Beam does, takes ``Flink`` for ``FlinkRunner``."""
    name = runner.lower()
    return name if name.endswith("runner") else f"{name}runner"


def _in_process_options(flags: Sequence[str]) -> PipelineOptions:
    num_workers = len(os.sched_getaffinity(0))
    options = PipelineOptions(
        [
            "--runner=FnApiRunner",
            # zlib and hashing release the interpreter lock, so threads are enough.
            "--direct_running_mode=multi_threading",
            f"--direct_num_workers={num_workers}",
            *flags,
        ]
    )
    _check_flags(flags, known=options.get_all_options())
    return options


def _dask_options(flags: Sequence[str]) -> PipelineOptions:
    missing = [name for name in ("dask", "distributed") if importlib.util.find_spec(name) is None]
    if missing:
        raise PreprocessingError(
            f"--runner DaskRunner needs the package {missing[0]}, which is not installed; "
            "install it with pip install 'lung-ct-segmentation[dask]'"
        )
    from apache_beam.runners.dask.dask_runner import DaskOptions

    is_cut = any(flag.startswith(("--dask_npartitions", "--dask_partition_size")) for flag in flags)
    # Beam's default puts 128 shards into one task, and so mostly all work on one worker.
    cut = () if is_cut else ("--dask_partition_size=1",)
    options = PipelineOptions([f"--runner={_DASK_CLASS}", *cut, *flags])
    _check_flags(flags, known={*options.get_all_options(), *DASK_OPTIONS})
    address = options.view_as(DaskOptions).address
    if address:
        _check_address(address, flag="--dask_client_address", service="Dask scheduler")
    return options


def _check_flags(flags: Sequence[str], *, known: Collection[str]) -> None:
    names = [flag.removeprefix("--").split("=")[0] for flag in flags if flag.startswith("-")]
    unknown = [name for name in names if name not in known and f"no_{name}" not in known]
    if unknown:
        raise PreprocessingError(
            f"Beam has no option --{unknown[0]}; expected options such as --direct_num_workers=4 "
            "after the `--`; correct it or leave it out"
        )


def _check_runner(runner: str, *, options: PipelineOptions) -> None:
    try:
        create_runner(runner)
    except ImportError as error:
        raise PreprocessingError(
            f"--runner {runner} cannot be loaded: {error}; install what it needs"
        ) from error
    except (AttributeError, ValueError) as error:
        names = ", ".join(sorted([*StandardOptions.KNOWN_RUNNER_NAMES, "DaskRunner"]))
        raise PreprocessingError(
            f"received --runner {runner}; expected one of {names}, or the full name of a class"
        ) from error
    try:
        beam.Pipeline(options=options)
    except ValueError as error:
        said = " ".join(str(error).split())
        raise PreprocessingError(
            f"--runner {runner} cannot start: {said} Give its options after the `--`"
        ) from error


def _check_address(address: str, *, flag: str, service: str) -> None:
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal() or int(port) > _MAX_PORT:
        raise PreprocessingError(
            f"received {flag}={address}; expected the host and port of the {service}, "
            "such as localhost:8099"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise PreprocessingError(
            f"no {service} answers at {flag}={address} ({error.strerror or error}); "
            "start it first, or correct the address"
        ) from error
