"""How many of gRPC's calls may be under way at once, and which of them gives way to a new one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import grpc

from eyas.serve.errors import ServeError

T = TypeVar("T")
SILENCE = 1.0  # seconds without a message, after which a stream gives way to a new one
Context = grpc.aio.ServicerContext[Any, Any]


class Room:
    """So many calls may be under way at once, of all clients together.

    Streams have a room of their own, so that who opens many and is silent on them keeps no other call out; when it is
    full, the one that has been silent for the longest time gives way to a new one. gRPC's own limit
    (`maximum_concurrent_rpcs`) is not used, since it knows no such difference.

    Args:
        most: the number.
        what: what they are called in a refusal.
    """

    def __init__(self, most: int, what: str = "calls") -> None:
        self._most = max(1, most)
        self._what = what
        self._open = 0
        self._silent: dict[asyncio.Task[Any], float] = {}  # since when each says nothing, the longest first
        self._ended: set[asyncio.Task[Any]] = set()

    def take(self, context: Context) -> None:
        """Take a place until the call has ended: an answer that its client doesn't let in holds it, too.

        Raises:
            ServeError: there is none.
        """
        if self._open >= self._most and not self._make_room():
            raise self._full()
        self._open += 1
        context.add_done_callback(self._give_back)  # type: ignore[arg-type] # it comes by position

    async def hear(self, message: Awaitable[T]) -> T:
        """Return what a stream's client says; meanwhile the stream may have to give way.

        Raises:
            ServeError: it had to.
        """
        task = asyncio.current_task()
        assert task is not None
        self._silent[task] = asyncio.get_running_loop().time()
        try:
            return await message
        except asyncio.CancelledError:
            if task not in self._ended:
                raise
            task.uncancel()
            raise self._full() from None
        finally:
            self._silent.pop(task, None)
            self._ended.discard(task)

    def _make_room(self) -> bool:
        """End the stream that has been silent for the longest time, and return whether there was one."""
        late = asyncio.get_running_loop().time() - SILENCE
        task, since = next(iter(self._silent.items()), (None, 0.0))
        if task is None or since > late:
            return False
        del self._silent[task]
        self._ended.add(task)
        task.cancel()
        return True

    def _full(self) -> ServeError:
        words = f"{self._most} {self._what} are in flight, the maximum."
        return ServeError("overloaded", words, retry_after=1.0)

    def _give_back(self, _context: Any) -> None:
        self._open -= 1
