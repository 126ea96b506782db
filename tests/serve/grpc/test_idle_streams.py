"""Ten thousand idle streams: as many as there may be stay open, the others are told so, and requests are answered."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.serve.bundles import write_bundle
from tests.serve.grpc.crowd import CHANNELS
from tests.serve.processes import open_files, private, wait_until
from tests.serve.started import Started, started

from eyas.serve.limits import Limits

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
COUNT = 10_000
STREAMS = Limits().connections // 2
WATCHERS = Limits().connections // 8
FULL = {"open": STREAMS, "RESOURCE_EXHAUSTED": 1}
ROOT = Path(__file__).parents[3]


def crowd(server: Started, what: str, count: int, least: int) -> dict[str, int]:
    """Return how so many calls ended, once `least` have, see `crowd.py`."""
    command = [sys.executable, "-m", "tests.serve.grpc.crowd", server.address("gRPC"), what, str(count), str(least)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout)
    assert isinstance(ends, dict)
    return ends


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server as it is really started."""
    folder = tmp_path_factory.mktemp("idle")
    bundle = write_bundle(folder / "colours")
    with started(Path(folder), str(bundle), "--workers", "1", "--threads", "1", "--slo", "60000") as server:
        yield server


def test_ten_thousand_idle_streams_keep_nobody_out(server: Started) -> None:
    pid = server.process.pid
    memory, files = [], {*open_files(pid).values()}

    def left() -> set[str]:
        return {*open_files(pid).values()} - files

    for _ in range(2):
        assert crowd(server, "stream", COUNT, COUNT - STREAMS) == {**FULL, "RESOURCE_EXHAUSTED": COUNT - STREAMS}
        # Some the server may open once, for itself.
        assert wait_until(lambda: len(left()) <= CHANNELS // 2), f"a crowd's connections are still open: {left()}"
        assert wait_until(lambda: crowd(server, "stream", STREAMS + 1, 1) == FULL), "all places are free again"
        memory.append(private(pid))
    # An open stream holds some 60 kB. The allocator keeps a part, the same after twenty rounds: 131 to 161 MB in all.
    assert memory[1] - memory[0] < COUNT * 8 * 2**10, "the second ten thousand live where the first did"
    assert server.process.poll() is None


def test_watchers_of_health_need_no_key_and_keep_nobody_out(server: Started) -> None:
    ends = crowd(server, "watch", 2000, 2000 - WATCHERS)
    assert ends == {"open": WATCHERS, "RESOURCE_EXHAUSTED": 2000 - WATCHERS}
