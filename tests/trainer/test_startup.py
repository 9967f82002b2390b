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


def test_tensorflow_is_imported_with_onednn(monkeypatch):
    monkeypatch.delenv(ONEDNN_VARIABLE, raising=False)
    code = (
        "import os, platform; platform.machine = lambda: 'x86_64'; "
        "from trainer.startup import import_tensorflow; import_tensorflow(); "
        f"print(os.environ['{ONEDNN_VARIABLE}'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]
