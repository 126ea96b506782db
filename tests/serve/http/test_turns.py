"""Requests that begin in turns."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from eyas.serve.http.turns import AT_ONCE, InTurns, Turns


def test_so_many_begin_each_time_that_the_loop_looks_at_its_sockets() -> None:
    async def check() -> list[tuple[int, ...]]:
        turns, begun, seen = Turns(), [], []
        for number in range(3 * AT_ONCE + 1):
            turns.take(lambda number=number: begun.append(number))  # type: ignore[misc]
        while len(begun) < 3 * AT_ONCE + 1:
            seen.append(tuple(begun))
            await asyncio.sleep(0)
        return [*seen, tuple(begun)]

    seen = asyncio.run(check())
    assert seen[-1] == tuple(range(3 * AT_ONCE + 1)), "in order, and all of them"
    steps = [len(later) - len(before) for before, later in itertools.pairwise(seen)]
    assert len(seen[0]) == AT_ONCE
    assert max(steps) == AT_ONCE


def test_a_probe_waits_for_none_of_them() -> None:
    ended: list[str] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        ended.append(scope["path"])

    async def check() -> None:
        whole = InTurns(app, Turns())
        paths = ["/v1/detect"] * (4 * AT_ONCE) + ["/livez"]
        await asyncio.gather(*(whole({"type": "http", "path": path}, None, None) for path in paths))  # type: ignore[arg-type]

    asyncio.run(check())
    assert ended.index("/livez") == AT_ONCE
    assert len(ended) == 4 * AT_ONCE + 1
