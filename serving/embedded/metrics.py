"""Metrics under TensorFlow Serving's own names, as Prometheus reads them.

Source: tensorflow_serving/servables/tensorflow/util.cc, util/prometheus_exporter.cc.
"""

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate

from serving.status import StatusError

DEFAULT_PATH = "/monitoring/prometheus/metrics"

_COUNT = ":tensorflow:serving:request_count"
_LATENCY = ":tensorflow:serving:request_latency"
_LOADS = ":tensorflow:cc:saved_model:load_attempt_count"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_LIMITS_US = [10 * 1.8**power for power in range(33)]


class Metrics:
    """Counts requests and loads. May be shared between threads."""

    def __init__(self) -> None:
        """Counts from zero."""
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str]] = Counter()
        self._loads: Counter[tuple[str, str]] = Counter()
        self._buckets: dict[tuple[str, str, str], list[int]] = {}
        self._sums_us: Counter[tuple[str, str, str]] = Counter()

    @contextmanager
    def request(self, api: str, entrypoint: str, model_name: str) -> Iterator[None]:
        """Times a request, and counts it with what came of it.

        Args:
            api: such as ``Predict``.
            entrypoint: ``GRPC`` or ``REST``.
            model_name: that was asked for.
        """
        start_s, status = time.perf_counter(), "OK"
        try:
            yield
        except StatusError as error:
            status = error.code.name
            raise
        finally:
            elapsed_us = round(1e6 * (time.perf_counter() - start_s))
            key = (model_name, api, entrypoint)
            with self._lock:
                self._requests[model_name, status] += 1
                if status == "OK":
                    counts = self._buckets.setdefault(key, [0] * (len(_LIMITS_US) + 1))
                    counts[bisect_left(_LIMITS_US, elapsed_us)] += 1
                    self._sums_us[key] += elapsed_us

    def load(self, folder: str, *, succeeded: bool) -> None:
        """Counts a load of a version."""
        with self._lock:
            self._loads[folder, "success" if succeeded else "fail"] += 1

    def page(self) -> str:
        """Gives all figures as text."""
        with self._lock:
            lines = [f"# TYPE {_LOADS} counter"]
            for (folder, status), count in sorted(self._loads.items()):
                lines.append(f"{_LOADS}{_labels(model_path=folder, status=status)} {count}")
            lines.append(f"# TYPE {_COUNT} counter")
            for (model_name, status), count in sorted(self._requests.items()):
                lines.append(f"{_COUNT}{_labels(model_name=model_name, status=status)} {count}")
            lines.append(f"# TYPE {_LATENCY} histogram")
            for key, counts in sorted(self._buckets.items()):
                named = dict(zip(("model_name", "API", "entrypoint"), key, strict=True))
                limits = [*(f"{limit:g}" for limit in _LIMITS_US), "+Inf"]
                for limit, below in zip(limits, accumulate(counts), strict=True):
                    lines.append(f"{_LATENCY}_bucket{_labels(**named, le=limit)} {below}")
                lines.append(f"{_LATENCY}_sum{_labels(**named)} {self._sums_us[key]}")
                lines.append(f"{_LATENCY}_count{_labels(**named)} {sum(counts)}")
        return "\n".join(lines) + "\n"


def _labels(**values: str) -> str:
    quoted = (f'{name}="{value.translate(_ESCAPES)}"' for name, value in values.items())
    return "{" + ",".join(quoted) + "}"
