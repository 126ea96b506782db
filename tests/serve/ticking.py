"""How long a piece of work holds up the event loop that it is done beside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any


async def longest_hold(work: Coroutine[Any, Any, Any]) -> tuple[Any, float]:
    """Return what the work returns (or raises), and the longest hold-up of the event loop, in seconds.

    They are seconds of this process' own processor time, of all its threads: one that computes without letting go of
    the interpreter counts, what else the machine does counts not.
    """
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
