"""Where admitted items are until they end: in their lines, aside behind a frame of their stream, or on a worker."""

from __future__ import annotations

from eyas.serve.scheduler.inflight import Ledger
from eyas.serve.scheduler.queues import Entry, Line
from eyas.serve.scheduler.settings import SchedulerConfig
from eyas.serve.scheduler.streams import Streams
from eyas.serve.scheduler.types import Admitted, Decision, Item, Lane, Outcome, Reason
from eyas.serve.scheduler.worker_state import Pool, ServedModel


class Lobby:
    """The admitted items of a scheduler, which decides who comes in and who runs; here they wait, come back and end.

    Args:
        pool: the models that they are for.
        config: the scheduler's settings.

    Attributes:
        ledger: the items by id, with their deadlines and the events of their ends.
        streams: the frames among them.
        waiting: how many wait in lines; parked frames are not counted.
        lanes: the same by lane.
    """

    def __init__(self, pool: Pool, config: SchedulerConfig) -> None:
        self.ledger = Ledger()
        self.streams = Streams(config.frames_in_flight)
        self.waiting = 0
        self.lanes = [0] * len(Lane)
        self._pool = pool
        self._retries = config.retries

    def admit(self, now: float, model: ServedModel, line: Line, item: Item, deadline: float, expected: float) -> None:
        """Put an admitted item into its line, or aside while an earlier frame of its stream is in flight."""
        entry = Entry(item, line, now, deadline)
        entry.expected = expected
        entry.promised = expected > deadline
        model.open += 1
        self.ledger.enter(entry)
        if item.stream is not None:
            entry.parked = self.streams.wait(item.stream, entry)
        if not entry.parked:
            self._line_up(model, entry)

    def replace(self, now: float, model: ServedModel, entry: Entry, item: Item, deadline: float) -> Decision:
        """Put a newer frame in the place of the waiting one of its stream, which keeps its place in the line."""
        self.ledger.end(now, entry, Outcome.DROPPED, Reason.SUPERSEDED)
        model.ends[Outcome.DROPPED, Reason.SUPERSEDED] += 1
        entry.item, entry.arrived, entry.deadline = item, now, deadline
        entry.attempts, entry.dispatched = 0, None
        self.ledger.enter(entry)
        return Admitted(max(entry.expected, now))

    def depart(self, entry: Entry) -> None:
        """Let an entry, which is out of its line already, go to a worker."""
        entry.waiting = False
        self._left(entry)
        if entry.item.stream is not None:
            self.streams.depart(entry)

    def give_up(self, now: float, entry: Entry) -> None:
        """End an entry, which is out of its line already, because it can't be answered in time."""
        entry.waiting = False
        self._left(entry)
        self.streams.leave(entry)
        self.end(now, entry, Outcome.DROPPED, Reason.DEADLINE)

    def withdraw(self, now: float, entry: Entry, outcome: Outcome, reason: Reason) -> None:
        """End a waiting entry without an answer."""
        entry.waiting = False
        self.streams.leave(entry)
        if not entry.parked:
            entry.line.forget()
            self._left(entry)
        self.end(now, entry, outcome, reason)

    def landed(self, entry: Entry) -> None:
        """Let the next frame of the entry's stream line up, now that this one is not in flight any more."""
        if entry.item.stream is not None:
            following = self.streams.land(entry)
            if following is not None:
                self._line_up(self._pool.models[following.line.queue.model], following)

    def failed(self, now: float, entries: tuple[Entry, ...], reason: Reason) -> None:
        """Run the items of a failed batch again, each alone and before the others of its line, or give them up."""
        for entry in reversed(entries):
            self.landed(entry)
            if entry.attempts > self._retries:
                self.end(now, entry, Outcome.FAILED, reason)
            elif entry.deadline <= now:
                self.end(now, entry, Outcome.DROPPED, Reason.DEADLINE)
            elif self.streams.waiting(entry.item.stream) is not None:
                self.end(now, entry, Outcome.DROPPED, Reason.SUPERSEDED)
            else:
                entry.waiting = True
                self.ledger.enter(entry)
                if entry.item.stream is not None:
                    self.streams.wait(entry.item.stream, entry)
                self._line_up(self._pool.models[entry.line.queue.model], entry, front=True)

    def end(self, now: float, entry: Entry, outcome: Outcome, reason: Reason) -> None:
        """Tell the end of an entry, and forget it."""
        self.ledger.end(now, entry, outcome, reason)
        model = self._pool.models[entry.line.queue.model]
        model.ends[outcome, reason] += 1
        model.open -= 1
        self.forget_retired(model)

    def forget_retired(self, model: ServedModel) -> None:
        """Forget a retired model with nothing left to do."""
        if model.retired and not model.open:
            self._pool.remove_model(model)

    def _line_up(self, model: ServedModel, entry: Entry, *, front: bool = False) -> None:
        """Put a waiting entry into its line; a line that was empty has no claim on the time before."""
        line = entry.line
        entry.parked = False
        if not line.size:
            line.virtual = max(line.virtual, model.virtual())
        if front:
            line.push_front(entry)
        else:
            line.push(entry)
        self.waiting += 1
        self.lanes[line.lane] += 1

    def _left(self, entry: Entry) -> None:
        """Count out an entry that is not in its line any more."""
        self.waiting -= 1
        self.lanes[entry.line.lane] -= 1
