import pytest
import tensorflow as tf

from trainer import precision
from trainer.precision import POLICIES, resolve_precision


@pytest.fixture(autouse=True)
def tf32_as_before():
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    yield
    tf.config.experimental.enable_tensor_float_32_execution(before)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx512f avx512_bf16", "bfloat16"),
        ("fpu amx_bf16 amx_tile", "bfloat16"),
        ("fpu avx512f", "float32"),
    ],
)
def test_auto_on_a_cpu_is_what_it_has_instructions_for(tmp_path, monkeypatch, flags, expected):
    monkeypatch.setattr(precision, "CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert resolve_precision("auto", "CPU") == expected


def test_auto_without_cpuinfo_is_float32(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "CPUINFO", tmp_path / "none")
    assert resolve_precision("auto", "CPU") == "float32"


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((6, 1), "float32"), ((7, 0), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16")],
)
def test_auto_on_a_gpu_is_what_its_generation_is_fast_in(monkeypatch, capability, expected):
    monkeypatch.setattr(precision, "_compute_capability", lambda: capability)
    assert resolve_precision("auto", "GPU") == expected


def test_what_is_asked_for_is_taken():
    for asked in ("float32", "bfloat16", "float16"):
        assert resolve_precision(asked, "CPU") == asked


def test_float32_is_no_tf32(monkeypatch):
    monkeypatch.setattr(precision, "_compute_capability", lambda: (9, 0))
    for asked, enabled in (("tf32", True), ("float32", False)):
        resolve_precision(asked, "GPU")
        assert tf.config.experimental.tensor_float_32_execution_enabled() == enabled


def test_tf32_without_the_hardware_is_refused(monkeypatch):
    with pytest.raises(
        ValueError, match="--precision is tf32, which GPUs .* runs on CPU; expected"
    ):
        resolve_precision("tf32", "CPU")
    monkeypatch.setattr(precision, "_compute_capability", lambda: (7, 5))
    with pytest.raises(ValueError, match="compute capability 8.0 and later"):
        resolve_precision("tf32", "GPU")


def test_each_precision_has_a_policy():
    assert set(POLICIES) == {"float32", "tf32", "bfloat16", "float16"}
