"""The last requests are known, older ones are not, and no number of them takes more memory."""

from __future__ import annotations

import tracemalloc

from eyas.serve.observe import recent_ids as module
from eyas.serve.observe.recent_ids import Recent


def test_the_last_are_known_and_older_ones_forgotten() -> None:
    recent = Recent(3)
    for name in "abcd":
        recent.add(name)
    assert [name in recent for name in "abcde"] == [False, True, True, True, False]
    assert "" not in Recent(3)


def test_many_requests_take_no_more_memory_than_one() -> None:
    recent = Recent(10_000)
    tracemalloc.start()
    try:
        for number in range(100_000):
            recent.add(f"request {number}")
        # Only what this module took: other tests of the same process may have left threads that allocate.
        taken = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, module.__file__)])
    finally:
        tracemalloc.stop()
    assert sum(each.size for each in taken.traces) < 5_000
    assert "request 99999" in recent and "request 5" not in recent
