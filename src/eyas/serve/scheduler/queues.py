"""Waiting items: a queue for each model version and input shape, in it one line for each lane."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Iterator

from eyas.serve.scheduler.types import Item, Lane


class Entry:
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
        dispatched: clock time of the last dispatch.
    """

    __slots__ = (
        "arrived",
        "attempts",
        "deadline",
        "dispatched",
        "expected",
        "item",
        "line",
        "number",
        "parked",
        "promised",
        "waiting",
    )

    def __init__(self, item: Item, line: Line, arrived: float, deadline: float) -> None:
        self.item = item
        self.line = line
        self.arrived = arrived
        self.deadline = deadline
        self.number = 0
        self.expected = math.inf
        self.waiting = True
        self.parked = False
        self.promised = False
        self.attempts = 0
        self.dispatched: float | None = None


class Line:
    """The waiting items of one lane of one queue, oldest first.

    Who ends while waiting is only counted out, and skipped when its turn comes: cancelling costs no search.

    Attributes:
        queue: the queue it is part of.
        lane: its lane.
        weight: its share while others wait as well.
        size: how many really wait.
        virtual: the service that it had, in seconds over weight (start-time fair queueing).
        load: what it takes of the workers lately, in busy seconds a second.
    """

    __slots__ = ("_entries", "lane", "load", "queue", "size", "virtual", "weight")

    def __init__(self, queue: Queue, lane: Lane, weight: float, window: float) -> None:
        self.queue = queue
        self.lane = lane
        self.weight = weight
        self.size = 0
        self.virtual = 0.0
        self.load = Decaying(window)
        self._entries: deque[Entry] = deque()

    def push(self, entry: Entry) -> None:
        """Add an entry at the end."""
        self._entries.append(entry)
        self.size += 1
        self.queue.size += 1

    def push_front(self, entry: Entry) -> None:
        """Add an entry at the head: it is to be run again."""
        self._entries.appendleft(entry)
        self.size += 1
        self.queue.size += 1

    def head(self) -> Entry | None:
        """Return the oldest waiting entry; None when nobody waits."""
        entries = self._entries
        while entries and not entries[0].waiting:
            entries.popleft()
        return entries[0] if entries else None

    def pop(self) -> None:
        """Take out the entry that `head` returned."""
        self._entries.popleft()
        self.size -= 1
        self.queue.size -= 1

    def forget(self) -> None:
        """Count out one entry that no longer waits, whose `waiting` is already False."""
        self.size -= 1
        self.queue.size -= 1
        if len(self._entries) > 2 * self.size + 64:  # mostly ghosts
            self._entries = deque(entry for entry in self._entries if entry.waiting)


class Queue:
    """All waiting items of one model version and input shape.

    Attributes:
        model, bucket: what its items share.
        lines: one for each lane.
        size: how many wait in all lines.
    """

    __slots__ = ("bucket", "lines", "model", "size")

    def __init__(self, model: str, bucket: Hashable, weights: tuple[float, ...], window: float) -> None:
        self.model = model
        self.bucket = bucket
        self.size = 0
        self.lines = tuple(Line(self, lane, weight, window) for lane, weight in zip(Lane, weights, strict=True))

    def active(self) -> Iterator[Line]:
        """Yield the lines in which somebody waits."""
        return (line for line in self.lines if line.size)

    def next_line(self) -> Line:
        """Return the line that had the least service for its weight, of those in which somebody waits."""
        return min(self.active(), key=_virtual)

    def virtual(self) -> float:
        """Return the service over weight of that line."""
        return self.next_line().virtual

    def oldest(self) -> float:
        """Return the clock time at which the longest waiting item arrived; infinity when nobody waits."""
        heads = (line.head() for line in self.active())
        return min((head.arrived for head in heads if head is not None), default=math.inf)


def _virtual(line: Line) -> float:
    """Return the line's service over weight."""
    return line.virtual


class Decaying:
    """A sum that forgets exponentially.

    Args:
        window: seconds after which 1/e of an amount is left.
    """

    __slots__ = ("_at", "_value", "_window")

    def __init__(self, window: float) -> None:
        self._window = window
        self._value = 0.0
        self._at = 0.0

    def add(self, now: float, amount: float) -> None:
        """Add an amount."""
        self._value = self._left(now) + amount
        self._at = max(now, self._at)

    def add_span(self, start: float, end: float) -> None:
        """Add the time from `start` to `end`, its earlier part already fading: a rate of 1 is busy without a pause."""
        self.add(end, -self._window * math.expm1(-max(end - start, 0.0) / self._window))

    def rate(self, now: float) -> float:
        """Return the amounts a second lately."""
        return self._left(now) / self._window

    def _left(self, now: float) -> float:
        """Return what is left of the sum; a clock that goes back forgets nothing."""
        return self._value * math.exp(-(now - self._at) / self._window) if now > self._at else self._value
