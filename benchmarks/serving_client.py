"""Slices a second from a folder to masks in another: our client beside what one writes by hand.

The model is small, so that the client counts: with a large one every way takes as long as the
model. All ways write the same masks as PNG, without cleaning, flips and overlays, and take turns.
"""

import base64
import json
import logging
import shutil
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from served_model import Server, model_of, parser_of, servers, write_slices

from serving.config import PredictConfig
from serving.predict import run

SIZE = 512
NUM_DIFFERENT = 50
OURS = "ours: 4 at a time"
REST_NUMBERS = "REST, pixels as numbers"
"""Seconds a slice, most of them in the embedded server's JSON: only where it is asked for."""
Way = Callable[[Path, Path, Server], None]


def ours(window: int, signature: str = "serving_default") -> Way:
    """``python -m serving predict``, without the start of Python."""

    def predict(slices: Path, out: Path, server: Server) -> None:
        config = PredictConfig(
            inputs=[slices],
            out=out,
            target=server.target,
            signature=signature,
            window=window,
            flips="none",
            postprocess=False,
            overlays=False,
        )
        if run(config).failed:
            sys.exit("a slice has failed")

    return predict


def plain_grpc(slices: Path, out: Path, server: Server) -> None:
    """The loop of TensorFlow Serving's own examples."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    out.mkdir()
    with grpc.insecure_channel(server.target) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for path in sorted(slices.iterdir()):
            image = np.asarray(Image.open(path))[np.newaxis, ..., np.newaxis]
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "lung_unet"
            request.inputs["image"].CopyFrom(tf.make_tensor_proto(image))
            request.output_filter.append("predicted_mask")
            answer = stub.Predict(request, 30)
            mask = tf.make_ndarray(answer.outputs["predicted_mask"])[0, ..., 0]
            save(mask, out / f"{path.stem}.png")


def rest_numbers(slices: Path, out: Path, server: Server) -> None:
    """REST with pixels as numbers."""
    out.mkdir()
    for path in sorted(slices.iterdir()):
        image = np.asarray(Image.open(path))[..., np.newaxis]
        answer = post(server, {"instances": [{"image": image.tolist()}]})
        mask = np.array(answer["predictions"][0]["predicted_mask"], np.uint8)[..., 0]
        save(mask, out / f"{path.stem}.png")


def rest_files(slices: Path, out: Path, server: Server) -> None:
    """REST with files as base64."""
    out.mkdir()
    for path in sorted(slices.iterdir()):
        content = base64.b64encode(path.read_bytes()).decode()
        request = {"signature_name": "encoded", "instances": [{"b64": content}]}
        answer = post(server, request)["predictions"][0]
        (out / f"{path.stem}.png").write_bytes(base64.b64decode(answer["b64"]))


WAYS: dict[str, Way] = {
    OURS: ours(4),
    "ours: 1 at a time": ours(1),
    "ours: 4 at a time, files": ours(4, "encoded"),
    "plain stubs, one at a time": plain_grpc,
    "REST, files as base64": rest_files,
    REST_NUMBERS: rest_numbers,
}


def post(server: Server, request: dict) -> dict:
    """Calls ``:predict``."""
    url = f"http://127.0.0.1:{server.rest_port}/v1/models/lung_unet:predict"
    with urllib.request.urlopen(url, json.dumps(request).encode(), timeout=30) as response:
        return json.load(response)


def save(mask: np.ndarray, path: Path) -> None:
    """Writes a mask."""
    Image.fromarray(mask * np.uint8(255)).save(path)


def main() -> None:
    """Reads the flags and measures."""
    parser = parser_of(__doc__, image_size=128, filters=8)
    parser.add_argument("--slices", type=int, default=500)
    usual = [way for way in WAYS if way != REST_NUMBERS]
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=usual)
    flags = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = model_of(flags, folder)
        slices = folder / "slices"
        kind = write_slices(slices, flags.slices, different=NUM_DIFFERENT, size=SIZE)
        seconds: dict[str, list[float]] = {way: [] for way in flags.ways}
        masks: dict[str, bytes] = {}
        with servers(model, rest=True) as (server,):
            for _ in range(flags.rounds):
                for way in flags.ways:
                    out = folder / "out"
                    start = time.perf_counter()
                    WAYS[way](slices, out, server)
                    seconds[way].append(time.perf_counter() - start)
                    print(f"{way}: {seconds[way][-1]:.1f} s", file=sys.stderr, flush=True)
                    masks[way] = b"".join(
                        np.asarray(Image.open(path)).tobytes()
                        for path in sorted(out.rglob("*.png"))
                    )
                    shutil.rmtree(out)
    if len(set(masks.values())) > 1:
        sys.exit("the ways give different masks")
    first = flags.ways[0]
    network = f"U-Net {flags.image_size}x{flags.image_size}, {flags.filters} filters"
    print(f"\n{flags.slices} slices of {SIZE}x{SIZE} as BMP ({kind}); {flags.model or network}; "
          f"{flags.rounds} rounds\n")  # fmt: skip
    print(f"| way | {first} is faster by | slices/s |\n| --- | ---: | ---: |")
    for way, times in seconds.items():
        ratio = statistics.median(b / a for a, b in zip(seconds[first], times, strict=True))
        print(f"| {way} | {ratio:.2f} | {flags.slices / statistics.median(times):.1f} |")


if __name__ == "__main__":
    main()
