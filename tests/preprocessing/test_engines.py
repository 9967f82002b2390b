"""The same job on every engine that can run on one machine, through the command that a user types.

Workers get a ``sitecustomize`` that notes which process gave each shard its name.
"""

import argparse
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from preprocessing import engines
from preprocessing.config import TfrecordsConfig
from preprocessing.engines import beam_options, run_to_end
from preprocessing.errors import EngineError, PreprocessingError
from preprocessing.pipeline import run

ROOT = Path(__file__).parents[2]
TIME_LIMIT_S = 60
START_LIMIT_S = 30

NOTE_WRITERS = """
import os, sys

def note(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith(".tfrecord"):
        out, shard = os.path.split(arguments[1])
        name = f"{os.path.basename(out)} {os.getpid()} {shard}"
        open(os.path.join(os.environ["WRITERS"], name), "w").close()

sys.addaudithook(note)
"""

DASK_CLUSTER = """
import os, sys, time

from distributed import LocalCluster

with LocalCluster(
    n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
    local_directory=os.path.dirname(sys.argv[1]),
) as cluster:
    with open(f"{sys.argv[1]}.partial", "w") as file:
        file.write(cluster.scheduler_address)
    os.rename(f"{sys.argv[1]}.partial", sys.argv[1])
    time.sleep(3600)
"""

# A write beyond the limit fails as on a full disk; the short reason of the failure still fits.
WITH_LITTLE_ROOM = """
import os, resource, sys

resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@dataclass(frozen=True, kw_only=True)
class Done:
    pid: int
    status: int
    stdout: str
    stderr: str


class Bench:
    """Starts the command and what its engines need; ends all of it, children too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writers = folder / "writers"
        self.writers.mkdir()
        (folder / "sitecustomize.py").write_text(NOTE_WRITERS)
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # the pool runs `python`
            "PYTHONPATH": f"{folder}:{ROOT}",
            "WRITERS": str(self.writers),
        }

    @contextmanager
    def start(self, *arguments, **pipes):
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            **pipes,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):  # it has ended, and left no child behind
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    @contextmanager
    def serve(self, *arguments, until):
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with self.start(*arguments, **pipes) as process:
            deadline = time.monotonic() + START_LIMIT_S
            while not until():
                assert process.poll() is None, f"{arguments} ended with {process.returncode}"
                assert time.monotonic() < deadline, f"{arguments} does not answer"
                time.sleep(0.1)
            yield process

    def tfrecords(self, *, images, masks, out, more=(), before=()):
        arguments = [*before, "-m", "preprocessing", "tfrecords", "--images", images]
        arguments += ["--masks", masks, "--out", out, "--num-shards", 5]
        arguments += ["--max-refused-fraction", 0.1, *more]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with self.start(*arguments, **pipes) as process:
            stdout, stderr = process.communicate(timeout=TIME_LIMIT_S)
            return Done(pid=process.pid, status=process.returncode, stdout=stdout, stderr=stderr)

    def writers_of(self, out):
        """Gives the processes that wrote the shards of a dataset."""
        names = [path.name.split(" ") for path in self.writers.iterdir()]
        return {int(pid) for staging, pid, _ in names if staging == f".{out.name}.staging"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def bad_pairs(empty_pairs):
    """Forty slices of ten patients, of which two are refused."""
    empty_pairs.add_patients(num_patients=10)
    (empty_pairs.masks / "P0_z000.bmp").write_bytes(b"")
    (empty_pairs.images / "P1_z000.bmp").write_bytes(b"BM")
    return empty_pairs


@pytest.fixture(scope="module")
def dask_flags(bench):
    """A cluster of two worker processes."""
    path = bench.folder / "scheduler"
    with bench.serve("-c", DASK_CLUSTER, path, until=path.exists):
        yield ["--runner", "DaskRunner", "--", f"--dask_client_address={path.read_text()}"]


@pytest.fixture(scope="module")
def job_service(bench):
    """Beam's own job service, in the place of Flink's or Spark's."""
    path = bench.folder / "port"
    module = "apache_beam.runners.portability.local_job_service_main"
    with bench.serve("-m", module, "--port_file", path, until=path.exists):
        yield f"localhost:{path.read_text()}"


def portable_flags(job_service, pool_port):
    return [
        *("--runner", "PortableRunner", "--", f"--job_endpoint={job_service}"),
        *("--environment_type=EXTERNAL", f"--environment_config=localhost:{pool_port}"),
    ]


@contextmanager
def worker_pool(bench, *before):
    """Starts what runs beside each TaskManager of Flink, and gives its port."""
    port = free_port()
    command = (*before, "-m", "apache_beam.runners.worker.worker_pool_main")
    with bench.serve(*command, "--service_port", port, until=lambda: answers(port)):
        yield port


def free_port():
    with closing(socket.socket()) as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def answers(port):
    with closing(socket.socket()) as client:
        return client.connect_ex(("localhost", port)) == 0


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def make_config(pairs, **changes):
    folders = {"images": pairs.images, "masks": pairs.masks, "out": pairs.out}
    return TfrecordsConfig(**folders | {"num_shards": 5, "max_refused_fraction": 0.1} | changes)


def convert(bench, pairs, *more, name):
    """Runs the command, compares its dataset with this process's, and gives the writers."""
    out = pairs.out.with_name(name)
    done = bench.tfrecords(images=pairs.images, masks=pairs.masks, out=out, more=more)
    assert done.status == 0, done.stderr
    run(make_config(pairs))
    expected = hashes(pairs.out)
    assert len([name for name in expected if name.startswith("train-")]) == 5
    assert sorted(expected)[0] == "dataset.json"
    assert hashes(out) == expected
    assert ": 38 pairs, 2 refused;" in done.stdout
    return bench.writers_of(out) - {done.pid}, done


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["in_memory", "multi_threading"])
def test_engine_in_this_process_writes_the_same_bytes(bench, bad_pairs, mode):
    flags = ["--", f"--direct_running_mode={mode}", "--direct_num_workers=1"]
    others, done = convert(bench, bad_pairs, *flags, name=mode)
    assert others == set()
    assert bench.writers_of(bad_pairs.out.with_name(mode)) == {done.pid}


@pytest.mark.slow
def test_worker_processes_write_the_same_bytes(bench, bad_pairs):
    flags = ["--", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    others, _ = convert(bench, bad_pairs, *flags, name="multi_processing")
    assert len(others) == 2


@pytest.mark.slow
def test_dask_cluster_writes_the_same_bytes(bench, bad_pairs, dask_flags):
    others, done = convert(bench, bad_pairs, *dask_flags, name="dask")
    assert len(others) == 2
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["INFO"] * 3


@pytest.mark.slow
def test_external_worker_pool_writes_the_same_bytes(bench, bad_pairs, job_service):
    with worker_pool(bench) as port:
        flags = portable_flags(job_service, port)
        others, done = convert(bench, bad_pairs, *flags, name="portable")
        assert len(others) == 1
        assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["INFO"] * 3


@pytest.mark.slow
def test_real_slices_on_a_dask_cluster_are_the_same(bench, lctsc, tmp_path, dask_flags):
    folders = {"images": lctsc / "images", "masks": lctsc / "masks"}
    done = bench.tfrecords(**folders, out=tmp_path / "real", more=dask_flags)
    assert done.status == 0, done.stderr
    config = TfrecordsConfig(
        **folders, out=tmp_path / "again", num_shards=5, max_refused_fraction=0.1
    )
    run(config)
    assert hashes(tmp_path / "real") == hashes(tmp_path / "again")
    assert len(bench.writers_of(tmp_path / "real") - {done.pid}) == 2


def assert_no_room_is_told(done, pairs):
    assert done.status == 1
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(told) == 1
    assert told[0].startswith("error: cannot write train-00000-of-00005.tfrecord in ")
    assert told[0].endswith("File too large; make room or choose another --out, then run again")
    assert sorted(os.listdir(pairs.out.parent)) == ["images", "masks"]


@pytest.mark.slow
def test_full_disk_in_a_worker_process_is_one_clear_line(bench, bad_pairs):
    done = bench.tfrecords(
        images=bad_pairs.images,
        masks=bad_pairs.masks,
        out=bad_pairs.out,
        before=["-c", WITH_LITTLE_ROOM],
        more=["--", "--direct_running_mode=multi_processing", "--direct_num_workers=2"],
    )
    assert_no_room_is_told(done, bad_pairs)


@pytest.mark.slow
def test_full_disk_in_an_external_worker_is_one_clear_line(bench, bad_pairs, job_service):
    with worker_pool(bench, "-c", WITH_LITTLE_ROOM) as port:
        done = bench.tfrecords(
            images=bad_pairs.images,
            masks=bad_pairs.masks,
            out=bad_pairs.out,
            more=portable_flags(job_service, port),
        )
    assert_no_room_is_told(done, bad_pairs)


@pytest.mark.slow
def test_missing_worker_pool_is_one_line_and_a_report(bench, bad_pairs, job_service):
    done = bench.tfrecords(
        images=bad_pairs.images,
        masks=bad_pairs.masks,
        out=bad_pairs.out,
        more=portable_flags(job_service, free_port()),
    )
    assert done.status == 1
    report = bad_pairs.out.with_name("dataset.engine.txt")
    *_, line = done.stderr.splitlines()
    assert line.startswith("error: the engine PortableRunner failed: grpc._channel._Inactive")
    assert "Connection refused" in line
    assert line.endswith(f"all that it said is in {report}; mend that and run again")
    assert "Traceback (most recent call last)" in report.read_text()


def options_of(**changes):
    config = TfrecordsConfig(images=Path("i"), masks=Path("m"), out=Path("o"), **changes)
    return beam_options(config)


@pytest.mark.parametrize("runner", ["FnApiRunner", "DirectRunner", "direct", "FNAPI"])
def test_engine_in_this_process_is_never_the_one_that_downloads_a_program(runner):
    options = options_of(runner=runner, beam_options=("--direct_num_workers=3",)).get_all_options()
    assert options["runner"] == "FnApiRunner"
    assert options["direct_running_mode"] == "multi_threading"
    assert options["direct_num_workers"] == 3


@pytest.mark.parametrize("runner", ["DaskRunner", "dask", engines._DASK_CLASS])
def test_short_name_is_enough_for_dask_and_each_shard_is_a_task(runner):
    options = options_of(runner=runner).get_all_options()
    assert options["runner"] == "apache_beam.runners.dask.dask_runner.DaskRunner"
    assert (options["partition_size"], options["npartitions"]) == (1, None)
    cut = options_of(runner=runner, beam_options=("--dask_npartitions=2",)).get_all_options()
    assert (cut["partition_size"], cut["npartitions"]) == (None, 2)


def test_names_of_the_options_of_dask_are_those_of_beam():
    from apache_beam.runners.dask.dask_runner import DaskOptions

    parser = argparse.ArgumentParser(add_help=False)
    DaskOptions._add_argparse_args(parser)
    flags = [flag for action in parser._actions for flag in action.option_strings]
    assert sorted(flags) == [f"--{name}" for name in engines.DASK_OPTIONS]


def test_options_for_another_engine_are_handed_on():
    options = options_of(runner="FlinkRunner", beam_options=("--flink_master=host:8081",))
    known = options.get_all_options()
    assert (known["runner"], known["flink_master"]) == ("FlinkRunner", "host:8081")


@pytest.mark.parametrize(
    ("runner", "flags", "message"),
    [
        ("FnApiRunner", ["--direct_num_wrokers=2"], "Beam has no option --direct_num_wrokers; exp"),
        ("DaskRunner", ["--dask_adress=a:1"], "Beam has no option --dask_adress; expected options"),
        ("FnApiRunner", ["--no_wait_until_finish"], "received --no_wait_until_finish; expected to"),
        ("Dusk", [], "received --runner Dusk; expected one of .*DaskRunner.*, or the full name of"),
        ("beam.Dusk", [], "--runner beam.Dusk cannot be loaded: No module named 'beam'; install w"),
        ("preprocessing.spec.Dusk", [], "received --runner preprocessing.spec.Dusk; expected one"),
        ("DataflowRunner", [], "--runner DataflowRunner cannot start: .*Missing required option:"),
        ("PortableRunner", ["--job_endpoint=host"], "received --job_endpoint=host; expected the"),
        ("Portable", ["--job_endpoint=a:65536"], "received --job_endpoint=a:65536; expected the h"),
    ],
)
def test_engine_that_cannot_work_is_told_before_anything_is_read(runner, flags, message):
    with pytest.raises(PreprocessingError, match=message):
        options_of(runner=runner, beam_options=tuple(flags))


@pytest.mark.parametrize(
    ("runner", "flag", "service"),
    [
        ("PortableRunner", "--job_endpoint=localhost:{}", "job service"),
        ("FlinkRunner", "--job_endpoint=localhost:{}", "job service"),
        ("DaskRunner", "--dask_client_address=tcp://localhost:{}", "Dask scheduler"),
    ],
)
def test_engine_that_does_not_answer_is_told_at_once(runner, flag, service):
    flag = flag.format(free_port())
    with pytest.raises(
        PreprocessingError,
        match=rf"no {service} answers at {flag} \(Connection refused\); start it first, or correct",
    ):
        options_of(runner=runner, beam_options=(flag,))


def test_missing_dask_is_told_with_the_line_that_installs_it(monkeypatch):
    find_spec = engines.importlib.util.find_spec
    monkeypatch.setattr(
        engines.importlib.util,
        "find_spec",
        lambda name: None if name == "distributed" else find_spec(name),
    )
    with pytest.raises(
        PreprocessingError,
        match=r"needs the package distributed, which is not installed; install it with pip install "
        r"'lung-ct-segmentation\[dask\]'",
    ):
        options_of(runner="DaskRunner")


class FakePipeline:
    """A pipeline of which the engine fails, or waits until somebody presses Ctrl-C."""

    def __init__(self, error):
        self.error = error
        self.is_canceled = False

    def run(self):
        return self

    def wait_until_finish(self):
        raise self.error

    def cancel(self):
        self.is_canceled = True


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("", "RuntimeError:"),
        ("no room\nfor  it", "RuntimeError: no room for it"),
        (
            "Traceback:\n  raise\na.BadError: first\nb.WorseError: last [while]",
            "b.WorseError: last",
        ),
        ("job 1: a.b.IOException: gone\n\tat a.b(C.java:1)", "RuntimeError: job 1: a.b.IOExcep"),
        ("x\njava.io.IOException: gone\n\tat a.b(C.java:1)", "java.io.IOException: gone; nothing"),
        ("a" * 400, "RuntimeError: …; nothing was"),
    ],
)
def test_failed_engine_is_told_in_one_line_and_reported_in_full(tmp_path, said, expected):
    report = tmp_path / "dataset.engine.txt"
    with pytest.raises(EngineError) as caught:
        run_to_end(FakePipeline(RuntimeError(said)), runner="FlinkRunner", report=report)
    line = str(caught.value)
    assert line.startswith(f"the engine FlinkRunner failed: {expected}")
    assert line.endswith(
        f"; nothing was published; all that it said is in {report}; mend that and run again"
    )
    assert "\n" not in line
    assert said in report.read_text()


def test_interrupt_ends_the_work_of_the_engine_too(tmp_path):
    pipeline = FakePipeline(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run_to_end(pipeline, runner="FlinkRunner", report=tmp_path / "report")
    assert pipeline.is_canceled
    assert not (tmp_path / "report").exists()
