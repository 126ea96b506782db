"""Waiting items: one line for each lane of a model version."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from eyas.serve.scheduler.types import Item, Lane

if TYPE_CHECKING:
    from eyas.serve.scheduler.model import ServedModel


class QueueEntry:
    """One admitted item until it ends. The scheduler alone changes it.

    Attributes:
        item: the item; a newer frame of the same stream takes its place here.
        line: where it waits or waited.
        arrived, deadline, expected: clock times; `expected` is when it should be done.
        number: counts admissions, to tell apart the items that were in this place.
        waiting: True from admission to dispatch or end.
        parked: waits outside of its line, for an earlier frame of its stream to be answered.
        promised: was admitted because a worker had nothing to do, so no prediction may drop it.
        attempts: how often it was dispatched.
    """

    __slots__ = (
        "arrived",
        "attempts",
        "deadline",
        "expected",
        "item",
        "line",
        "number",
        "parked",
        "promised",
        "waiting",
    )

    def __init__(self, item: Item, line: Line, arrived: float, deadline: float, expected: float) -> None:
        self.item = item
        self.line = line
        self.arrived = arrived
        self.deadline = deadline
        self.expected = expected
        self.promised = expected > deadline
        self.number = 0
        self.waiting = True
        self.parked = False
        self.attempts = 0


class Line:
    """The waiting items of one lane of one model, oldest first.

    Who ends while waiting is only counted out, and skipped when its turn comes: cancelling costs no search.

    Attributes:
        model: whose items they are.
        lane: its lane.
        weight: its share while others wait as well.
        size: how many really wait.
        virtual: the service that it had, in seconds over weight (start-time fair queueing).
        load: what it takes of the workers lately, in busy seconds a second.
    """

    __slots__ = ("_entries", "lane", "load", "model", "size", "virtual", "weight")

    def __init__(self, model: ServedModel, lane: Lane, weight: float) -> None:
        self.model = model
        self.lane = lane
        self.weight = weight
        self.size = 0
        self.virtual = 0.0
        self.load = Decaying()
        self._entries: deque[QueueEntry] = deque()

    def push(self, entry: QueueEntry, *, front: bool = False) -> None:
        """Add an entry at the end, or at the head when it is to be run again."""
        if front:
            self._entries.appendleft(entry)
        else:
            self._entries.append(entry)
        self.size += 1
        self.model.waiting += 1

    def head(self) -> QueueEntry | None:
        """Return the oldest waiting entry; None when nobody waits."""
        entries = self._entries
        while entries and not entries[0].waiting:
            entries.popleft()
        return entries[0] if entries else None

    def pop(self) -> None:
        """Take out the entry that `head` returned."""
        self._entries.popleft()
        self.size -= 1
        self.model.waiting -= 1

    def forget(self) -> None:
        """Count out one entry that no longer waits, whose `waiting` is already False."""
        self.size -= 1
        self.model.waiting -= 1
        if len(self._entries) > 2 * self.size + 64:  # mostly ghosts
            self._entries = deque(entry for entry in self._entries if entry.waiting)


class Decaying:
    """A sum that forgets exponentially: after `SECONDS` 1/e of an amount is left."""

    __slots__ = ("_at", "_value")
    SECONDS = 2.0

    def __init__(self) -> None:
        self._value = 0.0
        self._at = 0.0

    def add(self, now: float, amount: float) -> None:
        """Add an amount."""
        self._value = self._left(now) + amount
        self._at = max(now, self._at)

    def rate(self, now: float) -> float:
        """Return the amounts a second lately."""
        return self._left(now) / self.SECONDS

    def _left(self, now: float) -> float:
        """Return what is left of the sum; a clock that goes back forgets nothing."""
        return self._value * math.exp(-(now - self._at) / self.SECONDS) if now > self._at else self._value
