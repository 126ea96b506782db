"""What other processes take of the machine."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Taken:
    """What processes took: seconds of processor time so far, and bytes of memory now (shared pages by their part)."""

    cpu: float
    memory: int
    processes: int


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants; none for one that is gone."""
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    return []


def taken(pid: int) -> Taken:
    """Return what a process and its descendants took so far; their ended children count where the system tells."""
    found = family(pid)
    parts = [_taken(one) for one in found]
    return Taken(sum(cpu for cpu, _ in parts), sum(memory for _, memory in parts), len(found))


def _taken(process: psutil.Process) -> tuple[float, int]:
    cpu, memory = 0.0, 0
    with suppress(psutil.Error):
        times = process.cpu_times()
        cpu = times.user + times.system
        if sys.platform != "win32":
            cpu += times.children_user + times.children_system
        info = process.memory_full_info()
        memory = info.pss if sys.platform == "linux" else info.uss
    return cpu, memory


def state(pid: int) -> str:
    """Return what the system says that a process is doing, in words."""
    words = {
        psutil.STATUS_DISK_SLEEP: "waiting for a device or file system",
        psutil.STATUS_STOPPED: "stopped",
        psutil.STATUS_ZOMBIE: "ended",
    }
    try:
        status = psutil.Process(pid).status()
    except psutil.Error:
        return "nothing"
    return words.get(status, f"state {status}")
