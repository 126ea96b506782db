"""What a child process sets for itself, and what its parent reads of it: it dies with it, and its memory is bounded."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_SET_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG
ADDRESS_SPACE = 0


def die_with(parent: int) -> None:
    """Let the kernel kill this process when the thread that started it ends; end now if that has happened already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def pages(process: int | str = "self") -> tuple[int, ...]:
    """Return what /proc says of a process in bytes: address space, resident, of that shared; zeros where it can't."""
    try:
        words = Path(f"/proc/{process}/statm").read_bytes().split()
    except OSError:
        return 0, 0, 0
    size = os.sysconf("SC_PAGE_SIZE")
    return tuple(int(word) * size for word in words[:3])


def private_memory(process: int | str = "self") -> int:
    """Return the bytes that a process holds for itself, 0 where that can't be read."""
    _, resident, shared = pages(process)
    return resident - shared


def limit_memory(more: int) -> None:
    """Refuse this process `more` bytes beyond what it has now: allocations fail, and the machine goes on."""
    if sys.platform == "linux" and more:
        import resource

        limit = pages()[ADDRESS_SPACE] + more
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))
