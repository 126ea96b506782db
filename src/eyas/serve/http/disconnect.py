"""Work that ends when the client goes away, so that nobody computes for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from starlette.types import Receive

from eyas.serve.errors import ServeError

T = TypeVar("T")
PATIENCE = 0.02  # seconds: work that is done by then is not worth watching over


async def while_connected(receive: Receive, work: Coroutine[None, None, T]) -> T:
    """Return what the work returns; cancel it when the client disconnects.

    Args:
        receive: the connection's; the body must have been read.
        work: what is wanted.

    Raises:
        ServeError: the client went away.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    watches: list[asyncio.Task[None]] = []
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    timer = loop.call_later(PATIENCE, lambda: watches.append(loop.create_task(watch())))
    try:
        return await work
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
        raise ServeError("cancelled", "The client disconnected.") from None
    finally:
        timer.cancel()
        for each in watches:
            each.cancel()
