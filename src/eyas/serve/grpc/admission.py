"""Where gRPC's calls come in: who may, how many at once, and how long their messages may take to arrive."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from eyas.serve.budget import Budget
from eyas.serve.desk import Desk
from eyas.serve.errors import ServeError
from eyas.serve.grpc.rooms import Room
from eyas.serve.limits import Limits

PATIENCE = 1.0  # seconds that a call may wait for its message, however many others come
# Whom a call's bytes count for. To ask gRPC for the address of a client whose call has been reset ends the process, so
# all of its clients have one share.
CLIENT = "gRPC"
READING = 3.0  # seconds that it may be read, while others wait to be
Guard = Callable[[Mapping[str, str]], str]  # metadata -> client's name; raises ServeError
Context = grpc.aio.ServicerContext[Any, Any]


class Arrivals:
    """Calls whose message is awaited. When they are many, the one that has waited longest gives way to a new one.

    So calls that say nothing keep nobody out. gRPC itself neither counts them, nor ever ends them. One timer looks
    after all of them, since one for each would cost every call some percent.

    Only some messages are read at the same time, since nobody knows how much of one gRPC holds already. The others stay
    with their clients, but for what HTTP/2 lets through unread.

    Args:
        most: how many there may be.
        seconds: within which a message must have arrived.
        read: how many are read at the same time.
    """

    def __init__(self, most: int, seconds: float, read: int) -> None:
        self._most, self._seconds, self._read = most, seconds, max(1, read)
        self._reading: dict[asyncio.Task[Any], float] = {}  # since when, the oldest first
        self._queue: deque[asyncio.Future[None]] = deque()
        self._waiting: dict[asyncio.Task[Any], float] = {}  # since when, the oldest first
        self._timer: asyncio.TimerHandle | None = None

    async def message(self, context: Context) -> bytes:
        """Return the one message of a call.

        Raises:
            ServeError: there is none, it is too slow, or too many calls began in this moment.
        """
        task = asyncio.current_task()
        assert task is not None
        self._enter(task)
        try:
            if len(self._reading) >= self._read:
                await self._turn()
            self._reading[task] = asyncio.get_running_loop().time()
            data = await context.read()
        except asyncio.CancelledError:
            if task in self._waiting:
                raise
            task.uncancel()
            raise ServeError("timeout", "The message took too long to arrive.") from None
        finally:
            self._waiting.pop(task, None)
            self._reading.pop(task, None)
            self._next()
        if data is grpc.aio.EOF:
            raise ServeError("invalid", "The call has no message, or an incomplete one.")
        return bytes(data)

    async def _turn(self) -> None:
        """Wait until a message may be read; who reads for too long while others wait gives way."""
        loop = asyncio.get_running_loop()
        while len(self._reading) >= self._read:
            oldest, since = next(iter(self._reading.items()))
            if loop.time() - since >= READING:
                self._end(oldest)
                return
            turn: asyncio.Future[None] = loop.create_future()
            self._queue.append(turn)
            timer = loop.call_at(since + READING, _wake, turn)
            try:
                await turn
            finally:
                timer.cancel()

    def _next(self) -> None:
        while self._queue and len(self._reading) < self._read:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _enter(self, task: asyncio.Task[Any]) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if len(self._waiting) >= self._most:
            oldest, since = next(iter(self._waiting.items()))
            if now - since < PATIENCE:
                raise ServeError("overloaded", f"{self._most} calls started at the same moment.", retry_after=1.0)
            self._end(oldest)
        self._waiting[task] = now
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look)

    def _end(self, task: asyncio.Task[Any]) -> None:
        del self._waiting[task]
        self._reading.pop(task, None)
        task.cancel()

    def _look(self) -> None:
        """End those that have waited too long, and look again when the next would have."""
        loop = asyncio.get_running_loop()
        late = loop.time() - self._seconds
        for task in [task for task, since in self._waiting.items() if since <= late]:
            self._end(task)
        oldest = next(iter(self._waiting.values()), None)
        self._timer = None if oldest is None else loop.call_at(oldest + self._seconds, self._look)


@dataclass(frozen=True)
class Door:
    """Who may come in, and how many.

    Attributes:
        guard: lets a client in, or raises.
        calls: the room for calls of one message.
        streams: the room for streams.
        arrivals: where a call waits for its message.
        headers: most bytes of its metadata.
        desk: where large messages are parsed.
        budget: what messages are held in.
    """

    guard: Guard
    calls: Room
    streams: Room
    arrivals: Arrivals
    headers: int
    desk: Desk
    budget: Budget

    def open(self, context: Context) -> None:
        """Let a client in.

        Raises:
            ServeError: it may not come in.
        """
        metadata = metadata_of(context)
        if sum(map(len, metadata)) + sum(map(len, metadata.values())) > self.headers:
            raise ServeError("invalid", "The metadata is too large.")  # gRPC looks at those only who heard its limit
        self.guard(metadata)


def _wake(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


def make_door(
    guard: Guard, limits: Limits, calls: int, streams: int, desk: Desk, budget: Budget, what: str = "streams"
) -> Door:
    """Return a door with room for so many calls and streams."""
    arrivals = Arrivals(calls, limits.body_seconds, limits.bodies // limits.body)
    return Door(guard, Room(calls), Room(streams, what), arrivals, limits.headers, desk, budget)


def metadata_of(context: Context) -> dict[str, str]:
    """Return the client's metadata, texts only; of a name that is repeated the first counts."""
    found: dict[str, str] = {}
    for name, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            found.setdefault(name.lower(), value)
    return found
