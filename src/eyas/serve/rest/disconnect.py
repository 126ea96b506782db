"""Work that ends when the client goes away, so that nobody computes for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from starlette.requests import Request as Http

from eyas.serve.errors import ServeError

T = TypeVar("T")


async def while_connected(http: Http, work: Coroutine[None, None, T]) -> T:
    """Return what the work returns; cancel it when the client disconnects. The body must have been read.

    Raises:
        ServeError: the client went away.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnected(http))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ServeError("cancelled", "The client went away.")
    finally:
        for each in (task, watch):
            if not each.done():
                each.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _disconnected(http: Http) -> None:
    """Return when the client has gone."""
    while (await http.receive())["type"] != "http.disconnect":
        pass
