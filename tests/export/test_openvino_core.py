"""OpenVINO in this process: signals still reach it after sessions came and went, and nothing is reported from forks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from eyas.artifacts.bundle import Bundle
from eyas.runtime.openvino_core import openvino_core

pytest.importorskip("openvino")

# Sessions that end in another order than the reverse of their beginnings, and then a signal on the main thread.
CODE = """
import signal, sys
from pathlib import Path
from eyas.artifacts.manifest import Manifest
from eyas.runtime.sessions.openvino import OpenVinoSession
folder = Path(sys.argv[1])
manifest = Manifest.read(folder)
sessions = [OpenVinoSession(folder, manifest, threads=1, cache=False) for _ in range(3)]
for _ in range(len(sessions)):
    sessions.pop(0).close()
signal.signal(signal.SIGUSR1, lambda *_: print("the signal came"))
signal.raise_signal(signal.SIGUSR1)
"""


def test_a_signal_does_not_kill_after_sessions_ended_in_any_order(ir_bundle: Bundle) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(ir_bundle.folder)], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "the signal came\n"), done.stderr


def test_there_is_one_core() -> None:
    assert openvino_core() is openvino_core()


# A graph is converted; whatever forks in this process or talks to the network is counted.
REPORTS = """
import os, sys, urllib.request
from pathlib import Path
import eyas.export.builders.openvino
forks = []
os.register_at_fork(before=lambda: forks.append("fork"))
urllib.request.urlopen = lambda *words, **more: forks.append("network")
import openvino
openvino.convert_model(sys.argv[1])
print(len(forks), forks)
"""


def test_importing_and_converting_is_not_reported(bundle: Bundle) -> None:
    words = [sys.executable, "-c", REPORTS, str(bundle.folder / "model.onnx")]
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=environment)
    assert done.stdout == "0 []\n", done.stderr
