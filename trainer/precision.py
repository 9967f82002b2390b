"""In which numbers a model computes; its weights are float32 always."""

from pathlib import Path

import tensorflow as tf

from trainer.config import AUTO

CPUINFO = Path("/proc/cpuinfo")
"""Where Linux tells what the processor can do."""

BFLOAT16_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}
"""Either, and oneDNN multiplies matrices of bfloat16 in hardware."""

POLICIES = {
    "float32": "float32",
    "tf32": "float32",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
}
"""Keras dtype policy by ``TrainerConfig.precision``."""

Capability = tuple[int, int]


def resolve_precision(asked: str, device: str) -> str:
    """Chooses what ``auto`` stands for on a device, and sets TensorFlow up for it.

    Args:
        asked: as ``TrainerConfig.precision``.
        device: name of a device that trains, such as ``GPU:0``.

    Returns:
        A key of ``POLICIES``. For ``auto``: bfloat16 on a GPU of compute capability 8.0 or a CPU
        with instructions for it, float16 on a GPU of 7.0, float32 elsewhere.

    Raises:
        ValueError: if ``tf32`` is asked for and the device has none.

    Source: NVIDIA, CUDA C++ Programming Guide, compute capabilities.
    """
    is_gpu = device.startswith("GPU")
    capability = _compute_capability() if is_gpu else (0, 0)
    if asked == "tf32" and capability < (8, 0):
        raise ValueError(
            "--precision is tf32, which GPUs of compute capability 8.0 and later have; training "
            f"runs on {device}; expected float32, bfloat16 or auto"
        )
    precision = asked
    if asked == AUTO and is_gpu:
        fast = "float16" if capability >= (7, 0) else "float32"
        precision = "bfloat16" if capability >= (8, 0) else fast
    elif asked == AUTO:
        precision = "bfloat16" if BFLOAT16_CPU_FLAGS & _cpu_flags() else "float32"
    # On by default: float32 would not be what it says.
    tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")
    return precision


def _cpu_flags() -> set[str]:
    try:
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return set()  # no Linux
    return {flag for line in lines if line.startswith("flags") for flag in line.split()}


def _compute_capability() -> Capability:
    gpus = tf.config.list_physical_devices("GPU")
    details = tf.config.experimental.get_device_details(gpus[0])
    return details.get("compute_capability", (0, 0))
