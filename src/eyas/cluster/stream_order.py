"""Frames of a stream take turns: one is under way, the newest waits, and what waited before it is passed over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from eyas.serve.errors import ServeError


class StreamTurns:
    """Keeps the answers of a stream in the order of its frames, wherever they are worked on. Lives in one loop."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[None] | None] = {}  # stream under way -> who is next

    @contextlib.asynccontextmanager
    async def turn(self, stream: str) -> AsyncIterator[None]:
        """Wait for the stream's turn, and hold it within the block; "" is no stream and waits for nothing.

        Raises:
            ServeError: a newer frame took this one's place while it waited.
        """
        if not stream:
            yield
            return
        if stream in self._waiting:
            await self._queue(stream)
        else:
            self._waiting[stream] = None
        try:
            yield
        finally:
            self._pass_on(stream)

    async def _queue(self, stream: str) -> None:
        """Be the next one, in the place of who was."""
        older = self._waiting[stream]
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[stream] = mine
        if older is not None and not older.done():
            older.set_exception(ServeError("cancelled", "A newer frame of the stream replaced this one."))
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled() and mine.exception() is None:
                self._pass_on(stream)  # the turn had been given just now
            elif self._waiting.get(stream) is mine:
                self._waiting[stream] = None
            raise

    def _pass_on(self, stream: str) -> None:
        """Give the turn to the next one, if there is one."""
        following = self._waiting[stream]
        if following is not None and not following.done():
            self._waiting[stream] = None
            following.set_result(None)
        else:
            del self._waiting[stream]
