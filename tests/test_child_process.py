"""A child process: messages both ways, its errors and its death told, its end with its parent."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from eyas.child_process import Child, Ended
from eyas.errors import UserError

MODULE = """
import json, os, pathlib, signal, sys, time
from eyas.child_process import Parent, limit_memory
from eyas.errors import UserError

def do(job):
    if "code" in job:
        exec(job["code"])
    print("noise")
    return job.get("value")

if __name__ == "__main__":
    Parent().answer(do)
    pathlib.Path(__file__).with_name("ended").touch()
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that does what it is told, which this process finds and therefore the child, too."""
    (tmp_path / "told_child.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return "told_child"


def test_messages_go_both_ways_whatever_is_printed(module: str, tmp_path: Path) -> None:
    with Child(module, environment={"TOLD": "yes"}) as child:
        for value in (None, 7, "caf\udcff", [1.5, {"a": True}], "x" * (1 << 20)):
            child.send({"value": value})
            assert child.receive() == value
        child.send({"code": "job['value'] = [os.environ['TOLD'], os.getppid()]"})
        assert child.receive()[0] == "yes"
        child.close(30.0)
    assert (tmp_path / "ended").exists()  # it was not killed


@pytest.mark.parametrize(
    ("code", "error", "told"),
    [
        ("raise UserError('It is blue.', where='x', expected='red', fix='paint it')", UserError, "fix:      paint it"),
        ("import gone_with_the_wind", ModuleNotFoundError, "No module named 'gone_with_the_wind'"),
        ("1 / 0", RuntimeError, "ZeroDivisionError: division by zero"),
        ("os._exit(3)", Ended, "exit code 3"),
        ("sys.exit('out of luck.')", Ended, "^exit code 1: out of luck$"),
        ("raise MemoryError", Ended, "exit code 1: MemoryError"),
        ("time.sleep(600)", TimeoutError, "it took longer than 0.2 s"),
        pytest.param(
            "os.kill(os.getpid(), signal.SIGSEGV)", Ended, "SIGSEGV",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="signals"),
        ),
        pytest.param(
            "limit_memory(64 << 20); bytearray(256 << 20)", Ended, "MemoryError",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="only Linux can"),
        ),
    ],
)  # fmt: skip
def test_errors_and_deaths_are_told(module: str, code: str, error: type[Exception], told: str) -> None:
    with Child(module) as child:
        child.send({"value": 1})
        assert child.receive() == 1
        child.send({"code": code})
        with pytest.raises(error, match=told) as caught:
            child.receive(0.2 if error is TimeoutError else None)
        if isinstance(caught.value, ModuleNotFoundError):
            assert caught.value.name == "gone_with_the_wind"
        if error is not Ended and error is not TimeoutError:  # it goes on
            child.send({"value": 2})
            assert child.receive() == 2


def test_several_children_share_an_inbox(module: str) -> None:
    inbox: queue.SimpleQueue[tuple[Child, bytes]] = queue.SimpleQueue()
    with Child(module, inbox=inbox) as first, Child(module, inbox=inbox) as second:
        first.send({"value": "first"})
        second.send({"value": "second"})
        found: dict[Any, Child] = {}
        for child, line in (inbox.get(), inbox.get()):
            found[child.read(line)] = child
        assert found == {"first": first, "second": second}


PARENT = """
import sys
from eyas.child_process import Child
child = Child("told_child")
child.send({"code": "job['value'] = os.getpid()"})
print(child.receive(), flush=True)
child.send({"code": "time.sleep(600)"})
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills it at once")
def test_it_ends_with_its_parent_however_busy_it_is(module: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.ppid() == parent.pid
        parent.kill()
    psutil.wait_procs([child], timeout=60)
    assert not child.is_running()
