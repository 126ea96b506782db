"""The cores that count: affinity and the quotas of control groups, in both versions of the interface."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eyas.machine import cores
from eyas.machine.cores import usable_cores

V2 = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/cpu,cpuacct"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        (None, {}, 8),
        (None, {f"{V2}/cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {f"{V2}/cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {f"{V2}/cpu.max": "50000 100000\n"}, 1),
        ("0::/a/b\n", {f"{V2}/a/cpu.max": "300000 100000", f"{V2}/a/b/cpu.max": "max 100000"}, 3),
        ("0::/a/b\n", {f"{V2}/a/cpu.max": "300000 100000", f"{V2}/a/b/cpu.max": "200000 100000"}, 2),
        ("0::/../../outside\n", {f"{V2}/cpu.max": "400000 100000"}, 4),
        ("4:cpu,cpuacct:/docker/1\n2:memory:/x\n",
         {f"{V1}/cpu.cfs_quota_us": "150000\n", f"{V1}/cpu.cfs_period_us": "100000\n"}, 1),
        ("4:cpu,cpuacct:/job\n",
         {f"{V1}/job/cpu.cfs_quota_us": "-1\n", f"{V1}/job/cpu.cfs_period_us": "100000\n"}, 8),
        ("1:cpuset:/\n0::/\n", {"sys/fs/cgroup/cpuset/cpu.cfs_quota_us": "1", f"{V2}/cpu.max": "nonsense"}, 8),
    ],
)  # fmt: skip
def test_the_least_of_affinity_and_quotas_counts(
    groups: str | None, files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for name, text in files.items() | ({("proc/self/cgroup", groups)} if groups is not None else set()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == expected


def test_this_machine_has_some() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
