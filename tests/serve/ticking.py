"""How long an event loop is held up while it works on something."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

TRIES = 6


def longest_hold(work: Callable[[], Coroutine[Any, Any, Any]], enough: float) -> tuple[Any, float]:
    """Return what the work returns (or raises), and how long it holds up the event loop at its longest, in seconds.

    They are seconds of this process' own processor time, of all its threads: one that computes without letting go of
    the interpreter counts, what else the machine does counts not. On a busy machine the loop's thread may wait for a
    core while another thread has one, which holds up nothing: what the work itself holds up it does each time, so the
    least of some tries counts, and the first that is below `enough` ends them.
    """
    least = float("inf")
    result: Any = None
    for _ in range(TRIES):
        result, hold = asyncio.run(_held(work()))
        least = min(least, hold)
        if least < enough:
            break
    return result, least


async def _held(work: Coroutine[Any, Any, Any]) -> tuple[Any, float]:
    longest, running = 0.0, True

    async def tick() -> None:
        nonlocal longest
        while running:
            before = time.process_time()
            await asyncio.sleep(0.001)
            longest = max(longest, time.process_time() - before)

    ticking = asyncio.ensure_future(tick())
    await asyncio.sleep(0.01)
    try:
        result = await work
    except Exception as error:
        result = error
    running = False
    await ticking
    return result, longest
