"""Slices, a model with random weights, and servers over it, for the benchmarks of serving."""

import argparse
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from slices import default_folders

from preprocessing.phantoms.teaching import draw_teaching_slices
from serving.client import SegmentationClient
from serving.endpoint import Endpoint

ROOT = Path(__file__).parents[1]


def some_slices(count: int, *, size: int) -> tuple[str, list[np.ndarray]]:
    """Gives slices of one size: real ones where the tests find them, else phantoms.

    Args:
        count: how many; real ones are taken from all over the folder.
        size: height and width in pixels; real slices of another size are left out.

    Returns:
        What they are, and uint8 arrays [size, size].
    """
    paths = sorted(default_folders()[0].glob("*.bmp"))
    real = [np.asarray(Image.open(path).convert("L")) for path in paths]
    real = [image for image in real if image.shape == (size, size)]
    if len(real) >= count:
        return "real slices", [real[index * len(real) // count] for index in range(count)]
    drawn = draw_teaching_slices(num_slices=count, image_size=size, seed=0)
    return "phantoms", list(drawn[:, 0, :, :, 0])


def write_model(folder: Path, *, image_size: int, filters: int, precision: str = "float32") -> Path:
    """Writes a U-Net of the reference recipe as version 1 of a model.

    Args:
        folder: of the model.
        image_size: height and width that it works at, in pixels.
        filters: of the first level.
        precision: a key of ``trainer.precision.POLICIES``.

    Returns:
        The folder of the model.
    """
    from trainer.startup import import_tensorflow

    import_tensorflow()
    from trainer.export import ServedModel
    from trainer.model import UNet
    from trainer.precision import POLICIES
    from trainer.warm_up_requests import write_warm_up_requests

    depth = min(4, image_size.bit_length() - 4)
    model = UNet(
        image_size=image_size, filters=filters, depth=depth, dtype_policy=POLICIES[precision]
    )
    ServedModel(model).save(folder / "1")
    write_warm_up_requests(folder / "1", [1])
    return folder


def parser_of(description: str | None, *, image_size: int, filters: int) -> argparse.ArgumentParser:
    """Gives a parser with the flags of the model and of the rounds.

    Args:
        description: of the benchmark.
        image_size: that the model works at, by default.
        filters: of the first level, by default.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--image-size", type=int, default=image_size, help="that the model works at"
    )
    parser.add_argument("--filters", type=int, default=filters)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, help="folder of a trained one (default: a new one)")
    return parser


def model_of(flags: argparse.Namespace, folder: Path) -> Path:
    """Gives the folder of the model that the flags of `parser_of` ask for, written if it is new."""
    if flags.model is not None:
        return flags.model
    return write_model(folder / "model", image_size=flags.image_size, filters=flags.filters)


def write_slices(folder: Path, count: int, *, different: int, size: int) -> str:
    """Writes slices as BMP files, some again and again, and says what they are.

    Args:
        folder: where to; is made.
        count: of files.
        different: of slices.
        size: height and width in pixels.
    """
    folder.mkdir()
    kind, images = some_slices(different, size=size)
    for index in range(count):
        Image.fromarray(images[index % different]).save(folder / f"z{index:03}.bmp")
    return kind


class Server:
    """A server in a process of its own."""

    def __init__(
        self, model_base_path: Path, *, poll_wait_s: float = 0, rest: bool = False
    ) -> None:
        """Starts it and waits until it answers.

        Args:
            model_base_path: folder of the model.
            poll_wait_s: seconds between two looks for new versions; 0 looks once.
            rest: listens for REST too.
        """
        self.target = f"127.0.0.1:{free_port()}"
        self.rest_port = free_port() if rest else 0
        self._command = [sys.executable, "-m", "serving", "serve"]
        self._command += ["--model_base_path", str(model_base_path)]
        self._command += ["--port", self.target.rpartition(":")[2]]
        self._command += ["--rest_api_port", str(self.rest_port)]
        self._command += ["--file_system_poll_wait_seconds", str(poll_wait_s)]
        self.start()

    def start(self) -> None:
        """Starts it, also again at the same port."""
        self.process = subprocess.Popen(
            self._command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.wait()

    def wait(self) -> None:
        """Waits until it answers."""
        endpoint = Endpoint(self.target, wait_for_ready=True, timeout_s=120)
        with SegmentationClient(endpoint) as client:
            client.predict(np.zeros((32, 32), np.uint8))

    def kill(self) -> None:
        """Ends it as an accident does."""
        self.process.kill()
        self.process.wait()

    def cpu_seconds(self) -> float:
        """Gives the CPU time that it has used."""
        content = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8")
        fields = content.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self) -> float:
        """Gives its resident memory."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="utf-8").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def servers(model_base_path: Path, count: int = 1, **settings: float) -> Iterator[Sequence[Server]]:
    """Runs servers over one model, and ends them."""
    running: list[Server] = []
    try:
        for _ in range(count):
            running.append(Server(model_base_path, **settings))
        yield running
    finally:
        for server in running:
            server.kill()


def free_port() -> int:
    """Gives a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
