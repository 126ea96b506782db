"""Where admitted items are until they end: in line, parked behind a frame of their stream, or on a worker."""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Iterator

from eyas.serve.scheduler.model import ServedModel
from eyas.serve.scheduler.queues import Line, QueueEntry
from eyas.serve.scheduler.types import Admitted, Decision, Item, Lane, Outcome, Reason, SchedulerEvent

SLACK = 1024  # deadlines of items that ended already may be kept so many, before they are swept out
RETRIES = 1  # of an item whose worker died or failed. Repeats run alone: a poisonous item takes nobody else with it


class _Stream:
    """One stream with a frame that has not ended: at most one runs, so that answers keep the frames' order."""

    __slots__ = ("running", "waiting")

    def __init__(self) -> None:
        self.running = False
        self.waiting: QueueEntry | None = None


class Lifecycle:
    """The admitted items of a scheduler, which decides who comes in and who runs; here they wait, come back and end.

    Args:
        models: those in service by name; a retired one is taken out when its last item has ended.

    Attributes:
        waiting: how many wait in lines; parked frames are not counted.
        lanes: the same by lane.
    """

    def __init__(self, models: dict[str, ServedModel]) -> None:
        self.waiting = 0
        self.lanes = [0] * len(Lane)
        self._models = models
        self._entries: dict[Hashable, QueueEntry] = {}
        self._deadlines: list[tuple[float, int, QueueEntry]] = []  # a heap; those that wait no more are skipped
        self._events: list[SchedulerEvent] = []
        self._number = 0
        self._streams: dict[Hashable, _Stream] = {}

    def get(self, item_id: Hashable) -> QueueEntry | None:
        """Return the entry of an admitted item that has not ended."""
        return self._entries.get(item_id)

    def waiting_frame(self, stream: Hashable | None) -> QueueEntry | None:
        """Return the frame of a stream that waits, in line or parked; None when there is none or no stream."""
        known = self._streams.get(stream) if stream is not None else None
        return known.waiting if known is not None else None

    def admit(self, now: float, line: Line, item: Item, deadline: float, expected: float) -> None:
        """Put an admitted item into its line, or aside while an earlier frame of its stream runs."""
        entry = QueueEntry(item, line, now, deadline, expected)
        line.model.open += 1
        self._enter(entry)
        entry.parked = self._join_stream(entry)
        if not entry.parked:
            self._line_up(entry)

    def replace(self, now: float, entry: QueueEntry, item: Item, deadline: float) -> Decision:
        """Put a newer frame in the place of the waiting one of its stream, which keeps its place in the line."""
        self._close(now, entry, Outcome.DROPPED, Reason.SUPERSEDED)
        entry.item, entry.arrived, entry.deadline, entry.attempts = item, now, deadline, 0
        self._enter(entry)
        return Admitted(max(entry.expected, now))

    def depart(self, entry: QueueEntry) -> None:
        """Let an entry, which is out of its line already, go to a worker."""
        self._out_of_line(entry)
        if entry.item.stream is not None:
            known = self._streams[entry.item.stream]
            known.waiting, known.running = None, True

    def give_up(self, now: float, entry: QueueEntry) -> None:
        """End an entry, which is out of its line already, because it can't be answered in time."""
        self._out_of_line(entry)
        self._leave_stream(entry)
        self._end(now, entry, Outcome.DROPPED, Reason.DEADLINE)

    def withdraw(self, now: float, entry: QueueEntry, outcome: Outcome, reason: Reason) -> None:
        """End a waiting entry without an answer."""
        entry.waiting = False
        self._leave_stream(entry)
        if not entry.parked:
            entry.line.forget()
            self._out_of_line(entry)
        self._end(now, entry, outcome, reason)

    def served(self, now: float, entry: QueueEntry) -> None:
        """End an entry that was run, and let the next frame of its stream line up."""
        self._land(entry)
        self._end(now, entry, Outcome.SERVED, Reason.NONE)

    def failed(self, now: float, entries: tuple[QueueEntry, ...], reason: Reason) -> None:
        """Run the items of a failed batch again, each alone and before the others of its line, or give them up."""
        for entry in reversed(entries):
            self._land(entry)
            if entry.attempts > RETRIES:
                self._end(now, entry, Outcome.FAILED, reason)
            elif entry.deadline <= now:
                self._end(now, entry, Outcome.DROPPED, Reason.DEADLINE)
            elif self.waiting_frame(entry.item.stream) is not None:
                self._end(now, entry, Outcome.DROPPED, Reason.SUPERSEDED)
            else:
                entry.waiting = True
                self._enter(entry)
                self._join_stream(entry)
                self._line_up(entry, front=True)

    def expired(self, now: float) -> Iterator[QueueEntry]:
        """Yield the waiting entries whose deadline has come, each once; each must end before the next is asked for."""
        heap = self._deadlines
        while heap and heap[0][0] <= now:
            each = heapq.heappop(heap)
            if _still_waits(each):
                yield each[2]

    def next_deadline(self) -> float | None:
        """Return the earliest deadline of a waiting entry; None when there is none."""
        heap = self._deadlines
        while heap and not _still_waits(heap[0]):
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def take_events(self) -> list[SchedulerEvent]:
        """Return the ends since the last call, in order."""
        events, self._events = self._events, []
        return events

    def forget_retired(self, model: ServedModel) -> None:
        """Forget a retired model with nothing left to do."""
        if model.retired and not model.open:
            self._models.pop(model.name, None)

    def _enter(self, entry: QueueEntry) -> None:
        """Book an entry whose item is new, or waits again: it gets a number, and its deadline is watched."""
        self._entries[entry.item.id] = entry
        self._number += 1
        entry.number = self._number
        heap = self._deadlines
        if len(heap) > 2 * len(self._entries) + SLACK:
            self._deadlines = heap = [each for each in heap if _still_waits(each)]
            heapq.heapify(heap)
        if entry.deadline < math.inf:
            heapq.heappush(heap, (entry.deadline, entry.number, entry))

    def _line_up(self, entry: QueueEntry, *, front: bool = False) -> None:
        """Put a waiting entry into its line; a line that was empty has no claim on the time before."""
        line = entry.line
        entry.parked = False
        if not line.size:
            line.virtual = max(line.virtual, line.model.virtual())
        line.push(entry, front=front)
        self.waiting += 1
        self.lanes[line.lane] += 1

    def _out_of_line(self, entry: QueueEntry) -> None:
        entry.waiting = False
        self.waiting -= 1
        self.lanes[entry.line.lane] -= 1

    def _end(self, now: float, entry: QueueEntry, outcome: Outcome, reason: Reason) -> None:
        self._close(now, entry, outcome, reason)
        entry.line.model.open -= 1
        self.forget_retired(entry.line.model)

    def _close(self, now: float, entry: QueueEntry, outcome: Outcome, reason: Reason) -> None:
        del self._entries[entry.item.id]
        late = outcome is Outcome.SERVED and now > entry.deadline
        self._events.append(SchedulerEvent(entry.item, outcome, reason, entry.arrived, now, late))

    # ---------------------------------------------------------------------------------------------------- streams

    def _join_stream(self, entry: QueueEntry) -> bool:
        if entry.item.stream is None:
            return False
        known = self._streams.setdefault(entry.item.stream, _Stream())
        known.waiting = entry
        return known.running

    def _leave_stream(self, entry: QueueEntry) -> None:
        """Note that an entry, a frame or not, ended while it waited."""
        stream = entry.item.stream
        known = self._streams.get(stream) if stream is not None else None
        if known is not None and known.waiting is entry:
            known.waiting = None
            if not known.running:
                del self._streams[stream]

    def _land(self, entry: QueueEntry) -> None:
        """Note that an entry, a frame or not, runs no more; the parked frame of its stream lines up now."""
        if entry.item.stream is None:
            return
        known = self._streams[entry.item.stream]
        known.running = False
        if known.waiting is None:
            del self._streams[entry.item.stream]
        elif known.waiting.parked:
            self._line_up(known.waiting)


def _still_waits(each: tuple[float, int, QueueEntry]) -> bool:
    return each[2].waiting and each[2].number == each[1]
