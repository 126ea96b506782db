"""A short run of chaos; `benchmarks/chaos.py`, or EYAS_CHAOS_SECONDS here, makes it a long one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from tests.serve import chaos

SECONDS = float(os.environ.get("EYAS_CHAOS_SECONDS", "14"))


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_whatever_breaks_every_request_is_answered_once_and_nothing_is_left(tmp_path: Path) -> None:
    registry = chaos.make_registry(tmp_path)
    report = chaos.run(tmp_path, registry, chaos.Plan(SECONDS, warm_up=SECONDS / 4))
    assert report.faults() == [], report
    assert report.statuses[200] > 50 and len(report.versions) >= 2, report
    assert {"kill", "flip", "stop"} <= set(report.done), report
