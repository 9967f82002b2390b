"""Runs of training, as the tests start and read them: in this process and as commands."""

import csv
import os
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Self

import numpy as np

from trainer.config import TrainerConfig

PATIENCE_S = 120
"""After which a command that hangs is killed."""


def latest_arrays(run_dir: Path) -> dict[str, np.ndarray]:
    """Gives all arrays of the newest checkpoint: weights, averages, moments."""
    folder = max((run_dir / "checkpoints" / "latest").iterdir())
    arrays = {}
    for name in ("weights.npz", "training.npz"):
        with np.load(folder / name) as file:
            arrays |= {f"{name}/{key}": file[key] for key in file.files}
    return arrays


def history_of(run_dir: Path) -> list[list[float]]:
    with (run_dir / "history.csv").open() as file:
        return [[float(value) for value in row.values()] for row in csv.DictReader(file)]


def command_of(config: TrainerConfig) -> list[str]:
    """Gives the command line of a configuration."""
    defaults = TrainerConfig(data=config.data, out=config.out)
    flags = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name, value in vars(config).items()
        if name in ("data", "out") or value != getattr(defaults, name)
    ]
    return [sys.executable, "-m", "trainer", "train", *flags]


class Workers:
    """Two processes that train together on this machine, as two pods of an Indexed Job."""

    def __init__(self, config: TrainerConfig) -> None:
        pattern = free_address_pattern()
        self.processes = [
            subprocess.Popen(
                command_of(config),
                env={
                    **os.environ,
                    "NUM_WORKERS": "2",
                    "WORKER_ADDRESS": pattern,
                    "JOB_COMPLETION_INDEX": str(index),
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for index in range(2)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def end(self) -> list[tuple[int, str]]:
        """Waits for both; gives exit codes and what they said."""
        said = [process.communicate(timeout=PATIENCE_S)[0] for process in self.processes]
        codes = [process.returncode for process in self.processes]
        return list(zip(codes, said, strict=True))


def free_address_pattern() -> str:
    """Gives an address with the place of a worker in it, of which both ports are free now."""
    while True:
        base = random.SystemRandom().randrange(2000, 3200)
        try:
            for index in range(2):
                with socket.socket() as listener:
                    listener.bind(("localhost", int(f"{base}{index}")))
        except OSError:
            continue
        return f"localhost:{base}{{index}}"
