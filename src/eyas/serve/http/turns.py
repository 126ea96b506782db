"""Requests that begin in turns, so that a burst of them leaves gaps in which a probe is read and answered."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from eyas.serve.http.places import PROBES

AT_ONCE = 8  # of those that begin between two looks at the sockets; each costs up to a millisecond


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
        """Have the next ones begin when the loop has looked at its sockets."""
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
    """An application whose requests begin in turns; probes go before them, and streams had theirs as they were opened.

    Args:
        app: the application.
        turns: the port's.
    """

    def __init__(self, app: ASGIApp, turns: Turns) -> None:
        self._app, self._turns = app, turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["path"].encode() not in PROBES and not self._turns.free():
            turn = asyncio.Event()
            self._turns.take(turn.set)
            await turn.wait()
        await self._app(scope, receive, send)
