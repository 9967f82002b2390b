"""Slices to records: ours beside a plain loop, Beam's own writer and mere copying, in one run.

Each contender is a process of its own, and they take turns. Slices are the real ones, as often as
it takes; imports are not counted in time, but are in memory. What a contender takes for a few pairs
is its start-up; Beam's engine has one.
"""

import argparse
import io
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from slices import folders

NUM_PAIRS = 600
NUM_FEW = 8
NUM_ROUNDS = 3
SIZES = (200, 1000, 5000)
CONTENDERS = (
    "ours",
    "ours, 1 worker",
    "ours, raw",
    "plain loop",
    "WriteToTFRecord",
    "floor",
    "copy",
)
MEANINGS = {
    "ours": "`tfrecords`",
    "ours, 1 worker": "`tfrecords … -- --direct_num_workers=1`, as the loops have one thread",
    "ours, raw": "`tfrecords --encoding raw`",
    "plain loop": "Pillow, `tf.train.Example` and `tf.io.TFRecordWriter`",
    "WriteToTFRecord": "our records through Beam's own writer",
    "floor": "decode with Pillow, write the pixels as they are",
    "copy": "read the files, write their bytes, look at nothing",
}


def convert(images: Path, masks: Path, out: Path, **options: Any) -> Callable[[], None]:
    """Gives our job."""
    from preprocessing import pipeline
    from preprocessing.config import TfrecordsConfig

    config = TfrecordsConfig(images=images, masks=masks, out=out, **options)
    return lambda: pipeline.run(config) and None


def plain_loop(images: Path, masks: Path, out: Path) -> Callable[[], None]:
    """Gives what a user would write without us."""
    import tensorflow as tf

    def png(path: Path) -> bytes:
        encoded = io.BytesIO()
        Image.open(path).convert("L").save(encoded, "PNG")
        return encoded.getvalue()

    def feature(content: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[content]))

    def run() -> None:
        with tf.io.TFRecordWriter(str(out)) as writer:
            for path in sorted(images.iterdir()):
                features = {
                    "image": feature(png(path)),
                    "mask": feature(png(masks / path.name)),
                    "name": feature(path.stem.encode()),
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())

    return run


def beam_writer(images: Path, masks: Path, out: Path) -> Callable[[], None]:
    """Gives a Beam job that makes our records and lets Beam write them."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    from preprocessing.images.reading import read_mask, read_slice
    from preprocessing.records import encode_example

    def encode(path: Path) -> bytes:
        return encode_example(
            image=read_slice(path),
            mask=read_mask(masks / path.name),
            slice_id=path.stem,
            patient_id="",
        )

    options = [
        "--runner=FnApiRunner",
        "--direct_running_mode=multi_threading",
        f"--direct_num_workers={len(os.sched_getaffinity(0))}",
    ]

    def run() -> None:
        with beam.Pipeline(options=PipelineOptions(options)) as pipeline:
            _ = (
                pipeline
                | beam.Create(sorted(images.iterdir()))
                | beam.Reshuffle()
                | beam.Map(encode)
                | beam.io.WriteToTFRecord(str(out), num_shards=4)
            )

    return run


def floor(images: Path, masks: Path, out: Path) -> Callable[[], None]:
    """Gives what any converter has to do."""

    def run() -> None:
        with out.open("wb") as file:
            for path in sorted(images.iterdir()):
                file.write(np.asarray(Image.open(path)).tobytes())
                file.write(np.asarray(Image.open(masks / path.name)).tobytes())
            os.fsync(file.fileno())

    return run


def copy(images: Path, masks: Path, out: Path) -> Callable[[], None]:
    """Gives what a disk and its cache take."""

    def run() -> None:
        with out.open("wb") as file:
            for path in sorted(images.iterdir()):
                file.write(path.read_bytes())
                file.write((masks / path.name).read_bytes())
            os.fsync(file.fileno())

    return run


def run_contender(name: str, folder: Path) -> None:
    """Runs one contender in this process and prints its figures."""
    logging.disable(logging.CRITICAL)
    arguments = (folder / "images", folder / "masks", folder / "out")
    work = {
        "ours": lambda: convert(*arguments),
        "ours, 1 worker": lambda: convert(*arguments, beam_options=("--direct_num_workers=1",)),
        "ours, raw": lambda: convert(*arguments, encoding="raw"),
        "plain loop": lambda: plain_loop(*arguments),
        "WriteToTFRecord": lambda: beam_writer(*arguments),
        "floor": lambda: floor(*arguments),
        "copy": lambda: copy(*arguments),
    }[name]()
    start, start_cpu = time.perf_counter(), time.process_time()
    work()
    figures = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - start_cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(figures))


def measure(name: str, folder: Path) -> dict[str, float]:
    """Runs one contender in a process of its own; its output is counted and removed."""
    command = [sys.executable, __file__, "--contender", name, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    figures = json.loads(done.stdout.splitlines()[-1])
    outputs = [*folder.glob("out*"), *folder.glob("out/*")]
    files = [path for path in outputs if path.is_file()]
    figures["bytes"] = sum(path.stat().st_size for path in files)
    for path in files:
        path.unlink()
    for path in folder.glob("out*"):
        path.rmdir()
    return figures


def link_pairs(images: Path, masks: Path, folder: Path, *, num_pairs: int) -> None:
    """Fills a folder with links to real pairs, as often as it takes."""
    paths = sorted(images.iterdir())
    for role in ("images", "masks"):
        (folder / role).mkdir(parents=True)
    for index in range(num_pairs):
        path = paths[index % len(paths)]
        # Few slices would all be of one patient.
        name = f"C{index // len(paths)}-{index % 4 if num_pairs < len(paths) else ''}{path.name}"
        (folder / "images" / name).symlink_to(path.resolve())
        (folder / "masks" / name).symlink_to((masks / path.name).resolve())


def compare(folder: Path, few: Path) -> None:
    """Prints all contenders side by side."""
    rounds = defaultdict(list)
    for _ in range(NUM_ROUNDS):
        for name in MEANINGS:
            found = measure(name, folder)
            found["start_cpu"] = measure(name, few)["cpu_seconds"]
            found["pair_cpu"] = (found["cpu_seconds"] - found["start_cpu"]) / (NUM_PAIRS - NUM_FEW)
            rounds[name].append(found)
    medians = {
        name: {key: statistics.median(each[key] for each in found) for key in found[0]}
        for name, found in rounds.items()
    }
    ours = medians["ours"]
    print(f"\n{NUM_PAIRS} pairs, medians of {NUM_ROUNDS} rounds; CPU and time against ours\n")
    print("| contender | CPU | CPU beyond start-up | time | CPU ms a pair ", end="")
    print("| beyond start-up | start-up, CPU s | pairs/s | peak MiB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, found in medians.items():
        print(
            f"| {name}: {MEANINGS[name]} | {found['cpu_seconds'] / ours['cpu_seconds']:.2f} "
            f"| {found['pair_cpu'] / ours['pair_cpu']:.2f} "
            f"| {found['seconds'] / ours['seconds']:.2f} "
            f"| {1000 * found['cpu_seconds'] / NUM_PAIRS:.2f} | {1000 * found['pair_cpu']:.2f} "
            f"| {found['start_cpu']:.2f} | {NUM_PAIRS / found['seconds']:.0f} "
            f"| {found['peak_mib']:.0f} |"
        )
    print("\n| bytes a pair | against Pillow's PNG | KiB |\n| --- | ---: | ---: |")
    names = {"ours": "ours", "plain loop": "Pillow's PNG", "ours, raw": "ours, raw", "copy": "BMP"}
    for name, shown in names.items():
        size = medians[name]["bytes"]
        against = size / medians["plain loop"]["bytes"]
        print(f"| {shown} | {against:.3f} | {size / NUM_PAIRS / 1024:.1f} |")


def grow(images: Path, masks: Path, folder: Path) -> None:
    """Prints how time and memory of our job grow."""
    print("\n| pairs | CPU a pair, against the first | peak memory, against the first ", end="")
    print("| seconds | CPU ms a pair | peak MiB |\n| ---: | ---: | ---: | ---: | ---: | ---: |")
    first: dict[str, float] = {}
    for num_pairs in SIZES:
        link_pairs(images, masks, folder / str(num_pairs), num_pairs=num_pairs)
        found = measure("ours", folder / str(num_pairs))
        found["cpu_ms"] = 1000 * found["cpu_seconds"] / num_pairs
        first = first or found
        print(
            f"| {num_pairs} | {found['cpu_ms'] / first['cpu_ms']:.2f} "
            f"| {found['peak_mib'] / first['peak_mib']:.2f} | {found['seconds']:.1f} "
            f"| {found['cpu_ms']:.2f} | {found['peak_mib']:.0f} |"
        )


def main() -> None:
    """Measures all, or runs one contender for a measuring process."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--contender")
    parser.add_argument("--folder", type=Path)
    found, others = parser.parse_known_args()
    if found.contender:
        run_contender(found.contender, found.folder)
        return
    images, masks = folders(__doc__, arguments=others)
    with tempfile.TemporaryDirectory() as scratch:
        link_pairs(images, masks, Path(scratch) / "pairs", num_pairs=NUM_PAIRS)
        link_pairs(images, masks, Path(scratch) / "few", num_pairs=NUM_FEW)
        compare(Path(scratch) / "pairs", Path(scratch) / "few")
        grow(images, masks, Path(scratch))


if __name__ == "__main__":
    main()
