"""What /proc tells of processes: children, memory, open files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path


def children(pid: int) -> list[int]:
    """Return the numbers of a process's children that live."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text("ascii").split()]
    return [child for child in found if state(child) not in ("", "Z")]


def state(pid: int) -> str:
    """Return the letter of a process's state, "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def command_line(pid: int) -> list[str]:
    """Return the words that started a process, [] if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").split("\0")[:-1]
    except OSError:
        return []


def private(pid: int) -> int:
    """Return the bytes of a process's anonymous memory (what is shared with workers is not), 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def open_files(pid: int) -> dict[str, str]:
    """Return what a process has open: by the number of each file its name, or what kind of thing it is."""
    found = {}
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found[each.name] = str(each.readlink())
    return found


def shared_memories(pid: int) -> int:
    """Return how many pieces of anonymous shared memory a process has open."""
    return sum(name.startswith("/memfd:") for name in open_files(pid).values())


def wait_until(ready: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Wait until something is true, and return whether it became so."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
