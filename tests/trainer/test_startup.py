import subprocess
import sys

import pytest

from trainer import startup
from trainer.startup import ONEDNN_VARIABLE, prefer_onednn


@pytest.mark.parametrize(
    ("machine", "before", "after"),
    [
        ("x86_64", None, "1"),
        ("AMD64", None, "1"),
        ("x86_64", "0", "0"),
        ("aarch64", None, None),
    ],
)
def test_onednn_is_preferred_on_x86_where_nothing_else_is_asked(
    monkeypatch, machine, before, after
):
    monkeypatch.setattr(startup.platform, "machine", lambda: machine)
    environment = {} if before is None else {ONEDNN_VARIABLE: before}
    monkeypatch.setattr(startup.os, "environ", environment)
    prefer_onednn()
    assert environment.get(ONEDNN_VARIABLE) == after


@pytest.mark.parametrize(
    "start",
    [
        "from trainer.startup import import_tensorflow; import_tensorflow()",
        "from serving.engine import _load_library; _load_library()",
    ],
)
def test_tensorflow_is_loaded_with_onednn(start, monkeypatch):
    monkeypatch.delenv(ONEDNN_VARIABLE, raising=False)
    code = f"import os, platform; platform.machine = lambda: 'x86_64'; {start}; "
    code += f"print(os.environ['{ONEDNN_VARIABLE}'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]
