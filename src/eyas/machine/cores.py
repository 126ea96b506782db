"""The cores that this process may really use, which are often fewer than the machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

SYSTEM = Path("/")  # where /proc and /sys lie


def usable_cores(system: Path = SYSTEM) -> int:
    """Return how many cores this process may use: its affinity, and the quotas of the Linux control groups it is in."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity
        cores = os.cpu_count() or 1
    return max(1, min([cores, *(int(quota) for quota in _quotas(system))]))


def _quotas(system: Path) -> Iterator[float]:
    """Yield how many cores each control group around this process may use, in both versions of the interface.

    A container sees its own group at the top, whatever /proc says of its path outside.
    """
    for line in _read(system / "proc/self/cgroup").splitlines() or ["0::/"]:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = system / "sys/fs/cgroup" / controllers
        places = PurePosixPath(path.lstrip("/"))
        for folder in [group / places, *(group / parent for parent in places.parents), group]:
            if controllers:
                quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
            else:
                quota, _, period = _read(folder / "cpu.max").partition(" ")
            if quota.strip().isdigit() and int(quota) and period.strip().isdigit():
                yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
