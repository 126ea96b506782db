"""Where gRPC's calls come in: who may, how many at once, and how long their messages may take to arrive."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from eyas.serve.errors import ServeError
from eyas.serve.service import Service

T = TypeVar("T")
PATIENCE = 1.0  # seconds that a call may wait for its message, however many others come
SILENCE = 1.0  # seconds without a message, after which a stream gives way to a new one
READING = 3.0  # seconds that a message may be read, while others wait to be
# Whom a call's bytes count for. To ask gRPC for the address of a client whose call has been reset ends the process, so
# all of its clients have one share.
CLIENT = "gRPC"
Guard = Callable[[Mapping[str, str]], str]  # metadata -> client's name; raises ServeError
Context = grpc.aio.ServicerContext[Any, Any]


class Waiting:
    """Calls whose client is to say something, the one that has waited longest first: it gives way to others."""

    def __init__(self) -> None:
        self.since: dict[asyncio.Task[Any], float] = {}
        self._ended: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        """Return how many they are."""
        return len(self.since)

    def begin(self) -> asyncio.Task[Any]:
        """Have the running call wait from now on."""
        task = asyncio.current_task()
        assert task is not None
        self.since[task] = asyncio.get_running_loop().time()
        return task

    async def hear(self, message: Awaitable[T], error: ServeError) -> T:
        """Return what the client of the running call says, or raise the error when the call had to give way."""
        task = self.begin()
        try:
            return await message
        except asyncio.CancelledError:
            if task not in self._ended:
                raise
            task.uncancel()
            raise error from None
        finally:
            self.since.pop(task, None)
            self._ended.discard(task)

    def end(self, task: asyncio.Task[Any]) -> None:
        """Have a call give way."""
        if self.since.pop(task, None) is not None:
            self._ended.add(task)
            task.cancel()

    def end_oldest(self, seconds: float) -> bool:
        """Have the one that has waited longest give way if it has for so long, and return whether it did."""
        task, since = next(iter(self.since.items()), (None, 0.0))
        if task is None or since > asyncio.get_running_loop().time() - seconds:
            return False
        self.end(task)
        return True


class Room:
    """So many calls may be under way at once, of all clients together.

    Streams have a room of their own, so that who opens many and is silent on them keeps no other call out; when it is
    full, the one that has been silent for the longest time gives way to a new one. gRPC's own limit
    (`maximum_concurrent_rpcs`) is not used, since it knows no such difference.

    Args:
        most: the number.
        what: what they are called in a refusal.
    """

    def __init__(self, most: int, what: str) -> None:
        self._most, self._what = max(1, most), what
        self._open = 0
        self._silent = Waiting()

    def take(self, context: Context) -> None:
        """Take a place until the call has ended: an answer that its client doesn't let in holds it, too.

        Raises:
            ServeError: there is none.
        """
        if self._open >= self._most and not self._silent.end_oldest(SILENCE):
            raise self._full()
        self._open += 1
        context.add_done_callback(self._give_back)  # type: ignore[arg-type] # it comes by position

    async def hear(self, message: Awaitable[T]) -> T:
        """Return what a stream's client says; meanwhile the stream may have to give way.

        Raises:
            ServeError: it had to.
        """
        return await self._silent.hear(message, self._full())

    def _full(self) -> ServeError:
        words = f"{self._most} {self._what} are in flight, the maximum."
        return ServeError("overloaded", words, retry_after=1.0)

    def _give_back(self, _context: Any) -> None:
        self._open -= 1


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
        self._waiting = Waiting()
        self._reading: dict[asyncio.Task[Any], float] = {}  # since when, the oldest first
        self._queue: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def message(self, context: Context) -> bytes:
        """Return the one message of a call.

        Raises:
            ServeError: there is none, it is too slow, or too many calls began in this moment.
        """
        if len(self._waiting) >= self._most and not self._waiting.end_oldest(PATIENCE):
            raise ServeError("overloaded", f"{self._most} calls started at the same moment.", retry_after=1.0)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._look)
        slow = ServeError("timeout", "The message took too long to arrive.")
        data = await self._waiting.hear(self._message(context), slow)
        if data is grpc.aio.EOF:
            raise ServeError("invalid", "The call has no message, or an incomplete one.")
        return bytes(data)

    async def _message(self, context: Context) -> Any:
        """Return the message when it is this call's turn to be read; who reads for too long meanwhile gives way."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        try:
            while len(self._reading) >= self._read:
                oldest, since = next(iter(self._reading.items()))
                if loop.time() - since >= READING:
                    del self._reading[oldest]
                    self._waiting.end(oldest)
                    break
                turn: asyncio.Future[None] = loop.create_future()
                self._queue.append(turn)
                timer = loop.call_at(since + READING, _wake, turn)
                try:
                    await turn
                finally:
                    timer.cancel()
            self._reading[task] = loop.time()
            return await context.read()
        finally:
            self._reading.pop(task, None)
            while self._queue and len(self._reading) < self._read:
                if _wake(self._queue.popleft()):
                    break

    def _look(self) -> None:
        while self._waiting.end_oldest(self._seconds):
            pass
        oldest = next(iter(self._waiting.since.values()), None)
        loop = asyncio.get_running_loop()
        self._timer = None if oldest is None else loop.call_at(oldest + self._seconds, self._look)


def _wake(turn: asyncio.Future[None]) -> bool:
    if turn.done():
        return False
    turn.set_result(None)
    return True


@dataclass(frozen=True)
class Admission:
    """Who may come in, and how many.

    Attributes:
        service: where large messages are parsed, and what they are held in.
        guard: lets a client in, or raises.
        calls: the room for calls of one message.
        streams: the room for streams.
        arrivals: where a call waits for its message.
    """

    service: Service
    guard: Guard
    calls: Room
    streams: Room
    arrivals: Arrivals

    def check(self, context: Context) -> None:
        """Let a client in.

        Raises:
            ServeError: it may not come in.
        """
        metadata = metadata_of(context)
        if sum(map(len, metadata)) + sum(map(len, metadata.values())) > self.service.limits.headers:
            raise ServeError("invalid", "The metadata is too large.")  # gRPC looks at those only who heard its limit
        self.guard(metadata)


def make_admission(service: Service, guard: Guard, streams: int, what: str = "streams") -> Admission:
    """Return an admission with room for so many streams."""
    limits = service.limits
    calls = limits.connections
    arrivals = Arrivals(calls, limits.body_seconds, limits.bodies // limits.body)
    return Admission(service, guard, Room(calls, "calls"), Room(streams, what), arrivals)


def metadata_of(context: Context) -> dict[str, str]:
    """Return the client's metadata, texts only; of a name that is repeated the first counts."""
    found: dict[str, str] = {}
    for name, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            found.setdefault(name.lower(), value)
    return found
