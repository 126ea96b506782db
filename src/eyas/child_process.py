"""What a child process sets for itself, and what its parent reads of it: it dies with it, and its memory is bounded."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

import psutil

_SET_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG


def die_with(parent: int) -> None:
    """Let the kernel kill this process when the thread that started it ends; end now if that has happened already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def address_space(process: int | None = None) -> int:
    """Return the bytes that a process, this one for None, has addresses for; 0 where that can't be read."""
    try:
        return int(psutil.Process(process).memory_info().vms)
    except (psutil.Error, OSError):
        return 0


def limit_memory(more: int, seconds: int | None = None) -> None:
    """Refuse this process `more` bytes, 0 for any number, and `seconds` of computing beyond what it has taken by now.

    Allocations fail then and the machine goes on; the system ends a process that computes for longer. Only Linux can.
    """
    held = address_space() if more else 0
    if sys.platform == "linux" and held:
        import resource

        limits = {resource.RLIMIT_AS: held + more}
        if seconds is not None:
            used = resource.getrusage(resource.RUSAGE_SELF)
            limits[resource.RLIMIT_CPU] = int(used.ru_utime + used.ru_stime) + 1 + seconds
        for kind, most in limits.items():
            hard = resource.getrlimit(kind)[1]
            resource.setrlimit(kind, (most if hard < 0 else min(most, hard), hard))
