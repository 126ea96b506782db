"""Memory and processor time, of this process and of others: what is held is counted, who is gone has nothing."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from eyas.machine.memory import available_memory, peak_memory, private_memory, total_memory
from eyas.machine.processes import Taken, family, state, taken

SLEEPS = "import sys; held = bytearray(64 << 20); print('ready', flush=True); sys.stdin.read()"


def test_memory_grows_with_what_is_held() -> None:
    before, peak = private_memory(), peak_memory()
    held = np.ones(100 << 20, np.uint8)
    assert private_memory() >= before + 0.9 * held.nbytes
    after = peak_memory()
    assert peak is None or (after is not None and after >= peak and after >= held.nbytes)
    assert 0 < available_memory() <= total_memory()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_another_process_is_seen_until_it_is_gone() -> None:
    command = [sys.executable, "-c", SLEEPS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        assert private_memory(process.pid) > 64 << 20 and [one.pid for one in family(process.pid)] == [process.pid]
        found = taken(process.pid)
        assert found.processes == 1 and found.memory > 64 << 20 and found.cpu > 0
    assert private_memory(process.pid) == 0 and family(process.pid) == []
    assert taken(process.pid) == Taken(0.0, 0, 0) and state(process.pid) == "nothing"
