"""Memory, of the machine and of processes, in bytes."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil


def available_memory() -> int:
    """Return what can be had without swapping, as the system says."""
    return int(psutil.virtual_memory().available)


def total_memory() -> int:
    """Return what the machine has."""
    return int(psutil.virtual_memory().total)


def private_memory(process: int | None = None) -> int:
    """Return what a process, this one for None, holds for itself; 0 for one that is gone."""
    try:
        info = psutil.Process(process).memory_info()
    except psutil.Error:
        return 0
    return int(info.rss - info.shared if sys.platform == "linux" else info.rss)


def peak_memory() -> int | None:
    """Return the most that this process has held at once; None where the system doesn't tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    if sys.platform == "win32":
        return None
    import resource

    # On Linux this would count the parent's memory at the fork too; macOS, which ends here, counts in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
