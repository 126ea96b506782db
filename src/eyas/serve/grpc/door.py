"""Where gRPC's calls come in: who may, how many at once, and how long their messages may take to arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from eyas.serve.errors import ServeError
from eyas.serve.limits import Limits

PATIENCE = 1.0  # seconds that a call may wait for its message, however many others come
Guard = Callable[[Mapping[str, str]], str]  # metadata -> client's name; raises ServeError
Context = grpc.aio.ServicerContext[Any, Any]


class Room:
    """So many calls may be under way at once, of all clients together.

    Streams have a room of their own, so that who opens many and is silent on them keeps no other call out. gRPC's own
    limit (`maximum_concurrent_rpcs`) is not used, since it knows no such difference.

    Args:
        most: the number.
        what: what they are called in a refusal.
    """

    def __init__(self, most: int, what: str = "calls") -> None:
        self._most = max(1, most)
        self._what = what
        self._open = 0

    def take(self, context: Context) -> None:
        """Take a place until the call has ended: an answer that its client doesn't let in holds it, too.

        Raises:
            ServeError: there is none.
        """
        if self._open >= self._most:
            words = f"{self._most} {self._what} are under way: as many as there may be."
            raise ServeError("overloaded", words, retry_after=1.0)
        self._open += 1
        context.add_done_callback(self._give_back)  # type: ignore[arg-type] # it comes by position

    def _give_back(self, _context: Any) -> None:
        self._open -= 1


class Arrivals:
    """Calls whose message is awaited. When they are many, the one that has waited longest gives way to a new one.

    So calls that say nothing keep nobody out. gRPC itself neither counts them, nor ever ends them. One timer looks
    after all of them, since one for each would cost every call some percent.

    Args:
        most: how many there may be.
        seconds: within which a message must have arrived.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._waiting: dict[asyncio.Task[Any], float] = {}  # since when, the oldest first
        self._timer: asyncio.TimerHandle | None = None

    async def message(self, context: Context, kind: type[Message]) -> Message:
        """Return the one message of a call.

        Raises:
            ServeError: there is none, it is malformed or too slow, or too many calls began in this moment.
        """
        task = asyncio.current_task()
        assert task is not None
        self._enter(task)
        try:
            data = await context.read()
        except asyncio.CancelledError:
            if task in self._waiting:
                raise
            task.uncancel()
            raise ServeError("timeout", "The message took too long to arrive.") from None
        finally:
            self._waiting.pop(task, None)
        if data is grpc.aio.EOF:
            raise ServeError("invalid", "The call has no message, or not all of it.")
        return parsed(kind, data)

    def _enter(self, task: asyncio.Task[Any]) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if len(self._waiting) >= self._most:
            oldest, since = next(iter(self._waiting.items()))
            if now - since < PATIENCE:
                raise ServeError("overloaded", f"{self._most} calls began in this moment.", retry_after=1.0)
            self._end(oldest)
        self._waiting[task] = now
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look)

    def _end(self, task: asyncio.Task[Any]) -> None:
        del self._waiting[task]
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
    """

    guard: Guard
    calls: Room
    streams: Room
    arrivals: Arrivals
    headers: int

    def open(self, context: Context) -> None:
        """Let a client in.

        Raises:
            ServeError: it may not come in.
        """
        metadata = metadata_of(context)
        if sum(map(len, metadata)) + sum(map(len, metadata.values())) > self.headers:
            raise ServeError("invalid", "The metadata is too large.")  # gRPC looks at those only who heard its limit
        self.guard(metadata)


def make_door(guard: Guard, limits: Limits, calls: int, streams: int, what: str = "streams") -> Door:
    """Return a door with room for so many calls and streams."""
    arrivals = Arrivals(calls, limits.body_seconds)
    return Door(guard, Room(calls), Room(streams, what), arrivals, limits.headers)


def metadata_of(context: Context) -> dict[str, str]:
    """Return the client's metadata, texts only; of a name that is repeated the first counts."""
    found: dict[str, str] = {}
    for name, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            found.setdefault(name.lower(), value)
    return found


def parsed(kind: type[Message], data: bytes) -> Message:
    """Return the message in the bytes; parsed only now, after the client was let in, and with a proper refusal.

    Raises:
        ServeError: there is no such message in them.
    """
    try:
        return kind.FromString(data)
    except DecodeError:
        raise ServeError("invalid", "The message is malformed.") from None
