"""The bytes of requests that the server holds at once, of all protocols and clients together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from eyas.serve.errors import ServeError

PATIENCE = 1.0  # seconds without a byte, after which a body that is still arriving gives way when bytes are short


@dataclass
class Budget:
    """So many bytes may be held at once, and half of them for one client.

    When they are short, the body that has stood still for the longest time gives way; where none does, the new bytes
    are refused.

    Attributes:
        most: the number.
    """

    most: int
    used: int = field(default=0, init=False)
    _clients: Counter[str] = field(default_factory=Counter, init=False)
    _arriving: dict[Reservation, None] = field(default_factory=dict, init=False)

    def hold(self, client: str, end: Callable[[], None] | None = None) -> Reservation:
        """Return what will hold bytes of a client.

        `end` ends what is still arriving, so that its bytes are given back soon; None where that can't be.
        """
        return Reservation(self, client, end)

    def _take(self, held: Reservation, count: int) -> None:
        while self.used + count > self.most or self._clients[held.client] + count > max(1, self.most // 2):
            whose = None if self.used + count > self.most else held.client
            if not self._make_room(held, whose):
                raise ServeError(
                    "unavailable", "The server already holds the maximum number of request bytes.", retry_after=1.0
                )
        self.used += count
        self._clients[held.client] += count

    def _make_room(self, asking: Reservation, whose: str | None) -> bool:
        """End the body that has stood still for the longest time, and return whether there was one."""
        late = monotonic() - PATIENCE
        standing = [
            each
            for each in self._arriving
            if each is not asking and each.last <= late and whose in (None, each.client) and each.size
        ]
        if not standing:
            return False
        slowest = min(standing, key=lambda each: each.last)
        end = slowest.end
        assert end is not None
        slowest.close()
        end()
        return True


class Reservation:
    """The bytes of one request, held until it is closed (`contextlib.closing`).

    Attributes:
        size: how many they are.
        last: when the last ones came, on the monotonic clock.
    """

    __slots__ = ("_budget", "client", "end", "last", "size")

    def __init__(self, budget: Budget, client: str, end: Callable[[], None] | None) -> None:
        self._budget, self.client, self.end = budget, client, end
        self.size, self.last = 0, 0.0

    def take(self, count: int, *, more: bool = False) -> None:
        """Hold so many bytes more; `more` says whether others of the same body are still to come.

        Raises:
            ServeError: they can't be had.
        """
        self._budget._take(self, count)
        self.size += count
        if more and self.end is not None:
            self.last = monotonic()
            self._budget._arriving[self] = None
        elif self.last:
            self.arrived()

    def give(self, count: int) -> None:
        """Give back some of the bytes."""
        count = min(count, self.size)
        self.size -= count
        self._budget.used -= count
        clients = self._budget._clients
        clients[self.client] -= count
        if not clients[self.client]:
            del clients[self.client]

    def arrived(self) -> None:
        """Take note that the body is complete: it gives way to nobody."""
        self.last = 0.0
        self._budget._arriving.pop(self, None)

    def close(self) -> None:
        """Give back all bytes."""
        self.arrived()
        self.give(self.size)
        self.end = None
