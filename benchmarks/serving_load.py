"""Many requests while versions change and a server dies: does one fail, does memory grow?

Two servers over one model; clients spread their calls over both. Every few seconds the next
version of the model appears and the oldest goes; now and then one server is killed and started
again. The exit code is 1 if a request failed.
"""

import argparse
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
from served_model import Server, servers, some_slices, write_model

from serving.client import SegmentationClient
from serving.errors import CallError

KEPT_VERSIONS = 2
NUM_DIFFERENT = 20
SIZE = 512


def main() -> None:
    """Reads the flags, runs the load, and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--swap-s", type=float, default=5, help="seconds between two versions")
    parser.add_argument("--kill-s", type=float, default=20, help="seconds between two kills")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        kind, images = some_slices(NUM_DIFFERENT, size=SIZE)
        model = write_model(Path(name) / "model", image_size=64, filters=8)
        with servers(model, 2, poll_wait_s=1) as (steady, mortal):
            target = f"ipv4:{steady.target},{mortal.target}"
            load = Load(target, images, flags.requests, flags.clients)
            load.start()
            kills = Kills(mortal, flags.kill_s)
            memory: list[tuple[int, float]] = []
            version, next_swap, next_look = 1, flags.swap_s, 0
            start = time.perf_counter()
            while load.is_running():
                now = time.perf_counter() - start
                if now >= next_swap:
                    version += 1
                    publish(model, version)
                    next_swap = now + flags.swap_s
                if load.num_done >= next_look:
                    memory.append((load.num_done, steady.memory_mib()))
                    next_look += flags.requests // 10
                time.sleep(0.05)
            seconds = time.perf_counter() - start
            kills.stop()
            memory.append((load.num_done, steady.memory_mib()))
    print(
        f"\n{load.num_done} requests of {kind} by {flags.clients} clients in {seconds:.0f} s; "
        f"{version - 1} new versions, {len(load.versions)} versions answered; {kills.count} kills\n"
    )
    print(f"failed: {sum(load.failures.values())}")
    for failure, count in load.failures.most_common(5):
        print(f"  {count}: {failure}")
    p50, p99 = np.percentile(load.milliseconds, [50, 99])
    print(f"milliseconds: p50 {p50:.1f}, p99 {p99:.1f}, longest {max(load.milliseconds):.0f}")
    print("\n| requests | memory of the server that lives on, MiB |\n| ---: | ---: |")
    for done, mib in memory:
        print(f"| {done} | {mib:.0f} |")
    sys.exit(bool(load.failures))


class Kills:
    """Kills a server again and again, and starts it a second later."""

    def __init__(self, server: Server, pause_s: float) -> None:
        """Begins.

        Args:
            server: which.
            pause_s: seconds that it lives.
        """
        self.count = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(server, pause_s))
        self._thread.start()

    def stop(self) -> None:
        """Leaves the server running."""
        self._stopped.set()
        self._thread.join()

    def _work(self, server: Server, pause_s: float) -> None:
        while not self._stopped.wait(pause_s):
            server.kill()
            time.sleep(1)
            server.start()
            self.count += 1


class Load:
    """Clients that call as fast as they are answered, until all requests are made."""

    def __init__(
        self, target: str, images: list[np.ndarray], num_requests: int, num_clients: int
    ) -> None:
        """Prepares the clients.

        Args:
            target: of the servers.
            images: what is asked for, in turn.
            num_requests: in all.
            num_clients: each with a channel of its own.
        """
        self.failures: Counter[str] = Counter()
        self.milliseconds: list[float] = []
        self.versions: set[int] = set()
        self._images = images
        self._left = iter(range(num_requests))
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, args=(target,)) for _ in range(num_clients)
        ]

    @property
    def num_done(self) -> int:
        """Requests that were answered or have failed."""
        return len(self.milliseconds)

    def start(self) -> None:
        """Begins."""
        for thread in self._threads:
            thread.start()

    def is_running(self) -> bool:
        """Tells whether requests are left."""
        return any(thread.is_alive() for thread in self._threads)

    def _work(self, target: str) -> None:
        with SegmentationClient(target) as client:
            while True:
                with self._lock:
                    index = next(self._left, None)
                if index is None:
                    return
                begin = time.perf_counter()
                try:
                    client.predict(self._images[index % len(self._images)])
                    self.versions.add(client.answered_version)
                except CallError as error:
                    self.failures[f"{type(error).__name__}: {error}"] += 1
                self.milliseconds.append(1000 * (time.perf_counter() - begin))


def publish(model: Path, version: int) -> None:
    """Adds the next version at once and whole, and removes what is older than the last ones."""
    aside = model.parent / "aside"
    shutil.copytree(model / str(version - 1), aside)
    aside.rename(model / str(version))
    old = version - KEPT_VERSIONS
    if old >= 1:
        shutil.rmtree(model / str(old))


if __name__ == "__main__":
    main()
