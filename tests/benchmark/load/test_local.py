from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from eyas.benchmark.load import local
from eyas.benchmark.load.local import LocalServer
from eyas.errors import UserError
from eyas.machine.processes import taken

CHILD = "import sys; print('up http://127.0.0.1:1', flush=True); sys.stdin.read()"
# The child's input stays open for as long as its parent lives; `run` would close it at once.
FAMILY = "import subprocess as s, sys; s.Popen([sys.executable, '-c', sys.argv[1]], stdin=s.PIPE).wait()"


def test_a_server_is_started_asked_and_ended() -> None:
    command = (sys.executable, "-c", "import time; print('hello'); print('at http://127.0.0.1:7/'); time.sleep(60)")
    with LocalServer([], command, ready=r"at (\S+)") as server:
        assert server.url == "http://127.0.0.1:7/"
        assert server.taken().processes == 1
        assert server.taken().memory > 1 << 20
        pid = server.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_one_that_does_not_start_says_why() -> None:
    with (
        pytest.raises(UserError, match="out of luck"),
        LocalServer(["out of luck"], (sys.executable, "-c", "import sys; sys.exit(sys.argv[1])")),
    ):
        pass


LIVES_ON = "import pathlib, sys, time; time.sleep(20); pathlib.Path(sys.argv[1]).touch()"
LEAVES = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", *sys.argv[1:]])
print("up http://127.0.0.1:1", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of other processes")
def test_what_a_server_leaves_behind_is_ended_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "END_SECONDS", 1.0)
    came_to_its_end = tmp_path / "ended"
    command = (sys.executable, "-c", LEAVES, LIVES_ON, str(came_to_its_end))
    with LocalServer([], command, ready=r"up (\S+)"):
        pass
    assert not came_to_its_end.exists(), "the pipes were waited for, until the child ended by itself"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of other processes")
def test_what_a_family_takes_is_summed_up() -> None:
    with LocalServer([CHILD], (sys.executable, "-c", FAMILY), ready=r"up (\S+)") as server:
        assert server.taken().processes == 2
        os.kill(server.pid, 0)
    begin = taken(os.getpid()).cpu
    spent = time.process_time() + 0.1
    while time.process_time() < spent:
        pass
    assert taken(os.getpid()).cpu >= begin + 0.08
