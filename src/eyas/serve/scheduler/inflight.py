"""The book of admitted items: who has not ended, whose deadline is next, and how the others ended."""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Iterator

from eyas.serve.scheduler.queues import Entry
from eyas.serve.scheduler.types import Event, Outcome, Reason

SLACK = 1024  # deadlines of items that ended already may be kept so many, before they are swept out


class Ledger:
    """Admitted items by id, their deadlines, and the events that nobody has taken yet."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, Entry] = {}
        self._deadlines: list[tuple[float, int, Entry]] = []  # a heap; those that wait no more are skipped
        self._events: list[Event] = []
        self._number = 0

    def __contains__(self, item_id: Hashable) -> bool:
        """Return whether an admitted item of this id has not ended."""
        return item_id in self._entries

    def get(self, item_id: Hashable) -> Entry | None:
        """Return the entry of an admitted item that has not ended."""
        return self._entries.get(item_id)

    def enter(self, entry: Entry) -> None:
        """Book an entry whose item is new, or waits again: it gets a number, and its deadline is watched."""
        self._entries[entry.item.id] = entry
        self._number += 1
        entry.number = self._number
        heap = self._deadlines
        if len(heap) > 2 * len(self._entries) + SLACK:
            self._deadlines = heap = [each for each in heap if _waits(each)]
            heapq.heapify(heap)
        if entry.deadline < math.inf:
            heapq.heappush(heap, (entry.deadline, entry.number, entry))

    def end(self, now: float, entry: Entry, outcome: Outcome, reason: Reason) -> None:
        """Strike out an entry's item and keep the event of its end."""
        del self._entries[entry.item.id]
        late = outcome is Outcome.SERVED and now > entry.deadline
        self._events.append(Event(entry.item, outcome, reason, entry.arrived, entry.dispatched, now, late))

    def expired(self, now: float) -> Iterator[Entry]:
        """Yield the waiting entries whose deadline has come, each once; each must end before the next is asked for."""
        heap = self._deadlines
        while heap and heap[0][0] <= now:
            each = heapq.heappop(heap)
            if _waits(each):
                yield each[2]

    def next_deadline(self) -> float | None:
        """Return the earliest deadline of a waiting entry; None when there is none."""
        heap = self._deadlines
        while heap and not _waits(heap[0]):
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def take_events(self) -> list[Event]:
        """Return the events that were kept since the last call, in order."""
        events, self._events = self._events, []
        return events


def _waits(each: tuple[float, int, Entry]) -> bool:
    """Return whether a deadline on the heap is still that of the item that waits in its entry."""
    return each[2].waiting and each[2].number == each[1]
