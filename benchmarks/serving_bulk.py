"""Slices a second of the bulk job beside the client's, over the same folder and model.

The client writes a PNG for each mask, the bulk job run lengths in shards; neither draws overlays,
both clean masks and average flips, as they do by default. All share the cores of this machine.
"""

import logging
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from served_model import Server, model_of, parser_of, servers, write_slices

from serving import predict
from serving.bulk import job
from serving.config import BulkConfig, PredictConfig

SIZE = 512
NUM_DIFFERENT = 50
CLIENT = "client, 4 at a time"


def client(slices: Path, out: Path, server: Server, model: Path) -> int:
    """``python -m serving predict``, without the start of Python."""
    config = PredictConfig(inputs=[slices], out=out, target=server.target, overlays=False)
    return predict.run(config).num_masks


def bulk_endpoint(slices: Path, out: Path, server: Server, model: Path) -> int:
    """``python -m serving bulk --target``, without the start of Python."""
    config = BulkConfig(inputs=str(slices), out=str(out), target=server.target, **SHARDS)
    return job.run(config).num_results


def bulk_model(slices: Path, out: Path, server: Server, model: Path) -> int:
    """``python -m serving bulk --model``, without the start of Python."""
    config = BulkConfig(inputs=str(slices), out=str(out), model=str(model), **SHARDS)
    return job.run(config).num_results


SHARDS = {"slices_per_shard": 50}
WAYS: dict[str, Callable[[Path, Path, Server, Path], int]] = {
    CLIENT: client,
    "bulk, endpoint": bulk_endpoint,
    "bulk, model in the worker": bulk_model,
}


def main() -> None:
    """Reads the flags and measures."""
    parser = parser_of(__doc__, image_size=128, filters=16)
    parser.add_argument("--slices", type=int, default=500)
    flags = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = model_of(flags, folder)
        slices = folder / "slices"
        kind = write_slices(slices, flags.slices, different=NUM_DIFFERENT, size=SIZE)
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        with servers(model) as (server,):
            for _ in range(flags.rounds):
                for way, run in WAYS.items():
                    out = folder / "out"
                    start = time.perf_counter()
                    if run(slices, out, server, model) != flags.slices:
                        sys.exit(f"{way}: a slice has no mask")
                    seconds[way].append(time.perf_counter() - start)
                    print(f"{way}: {seconds[way][-1]:.1f} s", file=sys.stderr, flush=True)
                    shutil.rmtree(out)
    print(f"\n{flags.slices} slices of {SIZE}x{SIZE} as BMP ({kind}); {flags.model or 'a new'} "
          f"model; {flags.rounds} rounds\n")  # fmt: skip
    print("| way | slices/s, ratio | slices/s |\n| --- | ---: | ---: |")
    for way, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds[CLIENT], times, strict=True))
        print(f"| {way} | {ratio:.2f} | {flags.slices / statistics.median(times):.1f} |")


if __name__ == "__main__":
    main()
