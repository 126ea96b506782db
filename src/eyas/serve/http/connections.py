"""The connections of a port: how many, whose, which of them ends when another needs its place, and who begins when.

Requests begin in turns, so that a burst of them leaves gaps in which a probe is read and answered.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

PATIENCE = 1.0  # seconds without a request or a frame, after which a connection gives its place to another
LOOKS = 20  # within that time for those who are idle: a burst of connections is not to look through all for each
PROBES = frozenset({b"/livez", b"/readyz", b"/v2/health/live", b"/v2/health/ready"})
RESERVE = 16  # one more for so many: places that only probes are answered on
AT_ONCE = 8  # of those that begin between two looks at the sockets; each costs up to a millisecond


class Connection(Protocol):
    """A connection as its place sees it."""

    def idle(self) -> float | None:
        """Return since when (on the monotonic clock) its client has asked nothing, None while it is answered."""
        ...

    def end(self) -> None:
        """Close it: another needs its place."""
        ...


@dataclass
class _Seat:
    client: str
    stream: bool = False
    spare: bool = False


@dataclass
class Places:
    """The places of a port. The last quarter is for clients that have less than half, and beyond all some for probes.

    When places are short, the stream ends that has been idle for the longest time, then the idle connection.

    Attributes:
        most: how many there are, those for probes apart.
    """

    most: int
    _seats: dict[Connection, _Seat] = field(default_factory=dict, init=False)
    _clients: Counter[str] = field(default_factory=Counter, init=False)
    _spares: int = field(default=0, init=False)
    _looked: float = field(default=-math.inf, init=False)
    _idle: list[tuple[bool, float, Connection]] = field(default_factory=list, init=False)  # as they were then

    def enter(self, connection: Connection, client: str) -> bool:
        """Take a place for a client's address, and return whether there was one; one for probes may be what is left."""
        spare = not self._room(client) and not self._end_idle(client if self._greedy(client) else None)
        if spare and self._spares >= max(2, self.most // RESERVE) and not self._end_idle(None, spare=True):
            return False
        self._seats[connection] = _Seat(client, spare=spare)
        self._clients[client] += 1
        self._spares += spare
        return True

    def spare(self, connection: Connection) -> bool:
        """Return whether the connection has only a place that probes are answered on."""
        seat = self._seats.get(connection)
        if seat is None or not seat.spare:
            return False
        if self._room(seat.client):
            seat.spare = False
            self._spares -= 1
        return seat.spare

    def stream(self, connection: Connection, following: Connection) -> None:
        """Give the place of a connection to the stream that it has become."""
        seat = self._seats.pop(connection, None)
        if seat is not None:
            seat.stream = True
            self._seats[following] = seat

    def leave(self, connection: Connection) -> None:
        """Give the place back."""
        seat = self._seats.pop(connection, None)
        if seat is not None:
            self._spares -= seat.spare
            self._clients[seat.client] -= 1
            if not self._clients[seat.client]:
                del self._clients[seat.client]

    def _room(self, client: str) -> bool:
        return len(self._seats) - self._spares < self.most and not self._greedy(client)

    def _greedy(self, client: str) -> bool:
        left = self.most - (len(self._seats) - self._spares)
        return left <= self.most // 4 and self._clients[client] >= max(1, self.most // 2)

    def _end_idle(self, client: str | None, *, spare: bool = False) -> bool:
        """End the connection that is idle for the longest time, streams first, and return whether there was one."""
        now = monotonic()
        if now - self._looked >= PATIENCE / LOOKS:
            self._looked, self._idle = now, self._all_idle(now - PATIENCE)
        for place, (_, since, connection) in enumerate(self._idle):
            seat = self._seats.get(connection)
            if (
                seat is not None
                and seat.spare is spare
                and client in (None, seat.client)
                and connection.idle() == since
            ):
                del self._idle[place]
                self.leave(connection)
                connection.end()
                return True
        return False

    def _all_idle(self, late: float) -> list[tuple[bool, float, Connection]]:
        """Return the connections that have been idle since then or longer, in the order in which they are to end."""
        found = [
            (not seat.stream, since, connection)
            for connection, seat in self._seats.items()
            if (since := connection.idle()) is not None and since <= late
        ]
        return sorted(found, key=lambda each: each[:2])


class Turns:
    """Lets `AT_ONCE` requests begin each time before the event loop looks at its sockets again; the rest wait in order.

    To be used in one running event loop.
    """

    def __init__(self) -> None:
        self._left = AT_ONCE
        self._waiting: deque[Callable[[], None]] = deque()
        self._due = False

    def free(self) -> bool:
        """Take a turn if there is one at once, and return whether there was."""
        taken = bool(self._left)
        self._left -= taken
        self._go_on()
        return taken

    def take(self, begin: Callable[[], None]) -> None:
        """Call the function, now or in its turn."""
        if self.free():
            begin()
        else:
            self._waiting.append(begin)

    def _go_on(self) -> None:
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """Begin the next ones."""
        self._due, self._left = False, AT_ONCE
        if self._waiting:
            self._go_on()
        while self._left and self._waiting:
            self._left -= 1
            self._waiting.popleft()()


class InTurns:
    """An application whose requests begin in turns; probes go before them, streams had theirs as they were opened."""

    def __init__(self, app: ASGIApp, turns: Turns) -> None:
        self._app, self._turns = app, turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["path"].encode() not in PROBES and not self._turns.free():
            turn = asyncio.Event()
            self._turns.take(turn.set)
            await turn.wait()
        await self._app(scope, receive, send)
