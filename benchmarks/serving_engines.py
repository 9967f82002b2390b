"""The served model beside the same network in ONNX Runtime and OpenVINO, on the same cores.

Ours is what a server runs: the exported graph with its checks, resizing and mask. The others get
the network alone, whose resizing they cannot convert. They are no dependencies of this project:
an engine that is not installed is left out (``pip install onnxruntime tf2onnx openvino``).
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from served_model import some_slices, write_model

from trainer.startup import import_tensorflow

import_tensorflow()

import tensorflow as tf  # noqa: E402

from trainer.model import UNet  # noqa: E402
from trainer.signature import ARRAY_SIGNATURE, IMAGE, PROBABILITY  # noqa: E402

DEPTH = 4
OURS = "ours, float32"

Call = Callable[[np.ndarray], np.ndarray]


def ours(size: int, filters: int, precision: str) -> Call:
    """The exported model in a session, as TensorFlow Serving runs it."""
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(Path(folder), image_size=size, filters=filters, precision=precision)
        session = tf.compat.v1.Session(graph=tf.Graph())
        with session.graph.as_default():
            loaded = tf.compat.v1.saved_model.loader.load(
                session, [tf.saved_model.SERVING], str(model / "1")
            )
    signature = loaded.signature_def[ARRAY_SIGNATURE.name]
    return session.make_callable(
        signature.outputs[PROBABILITY.key].name, [signature.inputs[IMAGE.key].name]
    )


def network(size: int, filters: int) -> tuple[tf.types.experimental.GenericFunction, tf.Module]:
    """The network alone, from uint8 to the probability, and what holds its weights."""
    model, module = UNet(image_size=size, filters=filters, depth=DEPTH), tf.Module()
    module.weights = [weight.value for weight in model.weights]
    specs = [tf.TensorSpec([1, size, size, 1], tf.uint8, name="image")]
    return tf.function(lambda image: tf.sigmoid(model(tf.cast(image, tf.float32))), specs), module


def onnx_runtime(size: int, filters: int) -> Call:
    """ONNX Runtime, converted by tf2onnx."""
    import onnxruntime
    import tf2onnx

    function, _ = network(size, filters)
    model, _ = tf2onnx.convert.from_function(
        function, input_signature=function.input_signature, opset=17
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return lambda image: session.run(None, {"image": image})[0]


def openvino_runtime(size: int, filters: int) -> Call:
    """OpenVINO, converted by itself, at its own choice of precision: bfloat16 where it gains."""
    import openvino

    function, module = network(size, filters)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=function.get_concrete_function())
        compiled = openvino.compile_model(openvino.convert_model(folder), "CPU")
    return lambda image: compiled([image])[0]


ENGINES: dict[str, Callable[[int, int], Call]] = {
    OURS: lambda size, filters: ours(size, filters, "float32"),
    "ours, bfloat16": lambda size, filters: ours(size, filters, "bfloat16"),
    "ONNX Runtime": onnx_runtime,
    "OpenVINO": openvino_runtime,
}


def main() -> None:
    """Reads the flags and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--filters", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    flags = parser.parse_args()
    size = flags.image_size
    kind, images = some_slices(1, size=size)
    image = images[0][np.newaxis, :, :, np.newaxis]
    calls: dict[str, Call] = {}
    for name, make in ENGINES.items():
        try:
            calls[name] = make(size, flags.filters)
        except ModuleNotFoundError as error:
            print(f"{name} is left out: {error}")
    expected = calls[OURS](image)
    milliseconds: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    difference = {}
    for round_ in range(flags.rounds + 1):
        for name, call in calls.items():
            begin, cpu_begin = time.perf_counter(), time.process_time()
            answer = call(image)
            if round_:  # the first is not counted
                milliseconds[name].append(1000 * (time.perf_counter() - begin))
                cpu[name].append(1000 * (time.process_time() - cpu_begin))
            difference[name] = float(np.abs(answer - expected).max())
    print(f"\nU-Net {size}x{size}, {flags.filters} filters, one of {kind}, {flags.rounds} rounds\n")
    print("| engine | time, ratio | ms | CPU, ms | largest difference in probability |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, times in milliseconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, milliseconds[OURS], strict=True))
        print(
            f"| {name} | {ratio:.2f} | {statistics.median(times):.0f} "
            f"| {statistics.median(cpu[name]):.0f} | {difference[name]:.1e} |"
        )


if __name__ == "__main__":
    main()
