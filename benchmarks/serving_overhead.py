"""What the embedded server costs beside calling the model in the same process.

A call in the process and a call over gRPC take turns, so both see the same machine. The server is a
process of its own; its CPU time and the client's are told apart. Requests a second are measured
with several clients at once, beside as many threads that call the model themselves.
"""

import argparse
import io
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from PIL import Image
from served_model import Server, servers, some_slices, write_model

from serving.client import SegmentationClient
from serving.endpoint import PREDICT
from trainer.startup import import_tensorflow

import_tensorflow()

import tensorflow as tf  # noqa: E402

from serving.protos import predict_pb2  # noqa: E402

SIZE = 512
NUM_SLICES = 9
"""Of which the middle one is sent: it shows lungs."""
KINDS = {
    "uint8": ("serving_default", "image", "predicted_mask"),
    "PNG": ("encoded", "image_bytes", "predicted_mask_bytes"),
    "float32": ("scaled", "image", "predicted_mask"),
}
"""Signature, its input, and the output that is asked for."""

Call = Callable[[], object]


def main() -> None:
    """Reads the flags and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--filters", type=int, default=16)
    parser.add_argument("--calls", type=int, default=100, help="of each kind, each way")
    parser.add_argument("--seconds", type=float, default=15, help="of each measure of throughput")
    parser.add_argument("--rounds", type=int, default=3, help="of throughput")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(Path(folder) / "model", image_size=SIZE, filters=flags.filters)
        kind, images = some_slices(NUM_SLICES, size=SIZE)
        image = images[NUM_SLICES // 2]
        inputs = {
            "uint8": image[np.newaxis, ..., np.newaxis],
            "PNG": np.array([png_of(image)], object),
            "float32": image[np.newaxis, ..., np.newaxis] / np.float32(255),
        }
        direct = calls_in_process(model / "1", inputs)
        with servers(model) as (server,), SegmentationClient(server.target) as client:
            print(
                f"\nU-Net {SIZE}x{SIZE}, {flags.filters} filters; {kind}, {flags.calls} "
                "calls each way\n"
            )
            measure_overhead(direct, calls_over_grpc(server, inputs), server, flags.calls)
            remote = lambda: client.predict(image)  # noqa: E731
            measure_throughput(direct["uint8"], remote, flags)


def png_of(image: np.ndarray) -> bytes:
    """Encodes a slice."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def calls_in_process(version: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, Call]:
    """Loads the model into a session, as TensorFlow Serving does."""
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        loaded = tf.compat.v1.saved_model.loader.load(
            session, [tf.saved_model.SERVING], str(version)
        )

    def call_of(kind: str) -> Call:
        name, key, output = KINDS[kind]
        signature = loaded.signature_def[name]
        run = session.make_callable(signature.outputs[output].name, [signature.inputs[key].name])
        value = inputs[kind]
        return lambda: run(value)

    return {kind: call_of(kind) for kind in KINDS}


def calls_over_grpc(server: Server, inputs: Mapping[str, np.ndarray]) -> dict[str, Call]:
    """Sends requests that are made already; the answer stays bytes, so the client costs little."""
    channel = grpc.insecure_channel(
        server.target, [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
    )
    predict: Any = channel.unary_unary(PREDICT)

    def call_of(kind: str) -> Call:
        name, key, output = KINDS[kind]
        request = predict_pb2.PredictRequest(output_filter=[output])
        request.model_spec.name, request.model_spec.signature_name = "lung_unet", name
        request.inputs[key].CopyFrom(tf.make_tensor_proto(inputs[kind]))
        data = request.SerializeToString()
        return lambda: predict(data)

    return {kind: call_of(kind) for kind in KINDS}


def measure_overhead(
    direct: Mapping[str, Call], remote: Mapping[str, Call], server: Server, num_calls: int
) -> None:
    """Prints latency and CPU time of both ways, for each kind of input."""
    print("| input | p50, ratio | p99, ratio | CPU of the server, ratio | in process: p50, ms "
          "| p99, ms | CPU, ms | over gRPC: p50, ms | p99, ms | CPU of the server, ms "
          "| CPU of the client, ms |")  # fmt: skip
    print("| --- |" + " ---: |" * 10)
    for kind in KINDS:
        for _ in range(3):
            direct[kind]()
            remote[kind]()
        here, there = [], []
        cpu_here = cpu_client = 0.0
        server_before = server.cpu_seconds()
        for _ in range(num_calls):
            cpu, start = time.process_time(), time.perf_counter()
            direct[kind]()
            here.append(1000 * (time.perf_counter() - start))
            cpu_here += time.process_time() - cpu
            cpu, start = time.process_time(), time.perf_counter()
            remote[kind]()
            there.append(1000 * (time.perf_counter() - start))
            cpu_client += time.process_time() - cpu
        cpu_server = server.cpu_seconds() - server_before
        cells = [
            *(percentile(there, share) / percentile(here, share) for share in (50, 99)),
            cpu_server / cpu_here,
        ]
        figures = [
            *(percentile(here, share) for share in (50, 99)),
            1000 * cpu_here / num_calls,
            *(percentile(there, share) for share in (50, 99)),
            1000 * cpu_server / num_calls,
            1000 * cpu_client / num_calls,
        ]
        line = [f"{cell:.3f}" for cell in cells] + [f"{figure:.1f}" for figure in figures]
        print(f"| {kind} | {' | '.join(line)} |", flush=True)


def measure_throughput(direct: Call, remote: Call, flags: argparse.Namespace) -> None:
    """Prints requests a second with several callers, over gRPC and in the process."""
    print("\n| callers | over gRPC, share of in process | requests/s in process | over gRPC |")
    print("| ---: | ---: | ---: | ---: |")
    for num_callers in (1, 4, 16):
        rates: tuple[list[float], list[float]] = ([], [])
        for _ in range(flags.rounds):
            for way, rate in zip((direct, remote), rates, strict=True):
                rate.append(requests_a_second(way, num_callers, flags.seconds))
        share = statistics.median(there / here for here, there in zip(*rates, strict=True))
        here, there = (statistics.median(rate) for rate in rates)
        print(f"| {num_callers} | {share:.3f} | {here:.2f} | {there:.2f} |", flush=True)


def requests_a_second(call: Call, num_callers: int, seconds: float) -> float:
    """Calls from several threads until the time is up; each ends the call that it has begun."""
    start = time.perf_counter()
    counts = [0] * num_callers

    def work(index: int) -> None:
        while time.perf_counter() - start < seconds:
            call()
            counts[index] += 1

    threads = [threading.Thread(target=work, args=(index,)) for index in range(num_callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


def percentile(values: list[float], share: int) -> float:
    """Gives a percentile."""
    return float(np.percentile(values, share))


if __name__ == "__main__":
    main()
