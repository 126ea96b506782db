"""A model version in service: its lines, its workers and how fast each is, and when a new item would be answered."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from eyas.serve.scheduler.completion_time import Server, finish_after, less_spread
from eyas.serve.scheduler.latency import LatencyModel, LatencyProfile
from eyas.serve.scheduler.queues import Decaying, Line, QueueEntry
from eyas.serve.scheduler.types import Lane, ScheduledBatch

WEIGHTS = {Lane.INTERACTIVE: 8.0, Lane.STREAM: 4.0, Lane.BATCH: 1.0}  # shares while all of them wait
SATURATED = 0.95  # the share of the workers that others are believed to take at most


class WorkerState:
    """One worker process, as the scheduler knows it.

    Args:
        name: as it was registered.
        model: what it serves.
        profile: what is believed of it at first.
        virtual: how far service has come.

    Attributes:
        latency: what was learned of it.
        cap: its largest batch, so that two fit into the latency goal: an item waits for one at worst, then for its own.
        seconds: what a full batch hardly ever exceeds.
        running, entries: the batch that it runs and that batch's entries; None and () when it is idle.
        leaving: gets no more batches.
        virtual: how far service had come when it last took a batch (start-time fair queueing).
        passed: how often it left an item to a faster worker, one after the other.
    """

    __slots__ = ("cap", "entries", "latency", "leaving", "model", "name", "passed", "running", "seconds", "virtual")

    def __init__(self, name: str, model: ServedModel, profile: LatencyProfile, virtual: float) -> None:
        self.name = name
        self.model = model
        self.latency = LatencyModel(profile)
        self.running: ScheduledBatch | None = None
        self.entries: tuple[QueueEntry, ...] = ()
        self.leaving = False
        self.virtual = virtual
        self.passed = 0
        self.renew()

    def renew(self) -> None:
        """Compute cap and seconds again, after the latency model has learned."""
        self.cap = self.latency.best_batch(self.model.slo / 2, self.model.max_batch)
        self.seconds = self.latency.upper(self.cap)

    def free_in(self, now: float) -> float:
        """Return in how many seconds the worker should be free. Who is overdue by x is expected to need x more."""
        return abs(self.running.expected - now) if self.running is not None else 0.0


@dataclass(frozen=True)
class ModelStats:
    """What scaling needs to know of one model version, of the last few seconds.

    Attributes:
        workers: how many serve it.
        open: admitted items that have not ended.
        demand: how many workers would be busy without a pause with what is asked, refusals included, in full batches.
            Plain utilisation would not do: a greedy worker is nearly always busy, with small batches.
        queue_delay: seconds from admission to dispatch on average, or the oldest item's wait when that is more.
    """

    workers: int
    open: int
    demand: float
    queue_delay: float


class ServedModel:
    """One model version in service.

    Attributes:
        name: as it was registered.
        slo: its latency goal in seconds.
        max_batch: the largest batch.
        workers: who serves it.
        lines: its waiting items by lane.
        waiting: how many wait in all lines.
        retired: takes no more items, and goes when the last has ended.
        open: admitted items that have not ended.
        refused: refusals for load, lately.
        waits, dispatches: seconds waited by those dispatched lately, and their number.
    """

    def __init__(self, name: str, slo: float, max_batch: int) -> None:
        self.name = name
        self.slo = slo
        self.max_batch = max_batch
        self.workers: list[WorkerState] = []
        self.lines = tuple(Line(self, lane, WEIGHTS[lane]) for lane in Lane)
        self.waiting = 0
        self.retired = False
        self.open = 0
        self.refused, self.waits, self.dispatches = Decaying(), Decaying(), Decaying()

    def active(self) -> Iterator[Line]:
        """Yield the lines in which somebody waits."""
        return (line for line in self.lines if line.size)

    def idle(self) -> int:
        """Return how many of its workers have nothing to do."""
        return sum(worker.running is None for worker in self.workers)

    def virtual(self) -> float:
        """Return how far service has come at the workers: a line that becomes active may not claim what is before."""
        return min((worker.virtual for worker in self.workers), default=0.0)

    def answer_in(self, now: float, line: Line) -> float:
        """Return in how many seconds an item that joins the line now would be answered, at the latest to expect."""
        servers = [(worker.free_in(now), worker.cap, worker.seconds) for worker in self.workers]
        answer = finish_after(line.size + 1, servers)
        if self.waiting != line.size:
            answer = self._among_others(now, line, servers, answer)
        return less_spread(answer, servers, [worker.latency.safety for worker in self.workers])

    def _among_others(self, now: float, line: Line, servers: list[Server], alone: float) -> float:
        """Return what `answer_in` does when items wait in other lines as well.

        Lines are served in the order of their service over weight. So of another line there comes first what its
        weight allows before it is the item's turn, and no more than waits there or will come meanwhile, judged by
        the share of the workers that it took lately.

        Args:
            now: clock time.
            line: where it would wait.
            servers: the workers, for `finish_after`.
            alone: seconds until it were answered if nobody waited in the others.
        """
        others = [each for each in self.active() if each is not line]
        cost = self.workers[0].seconds / self.workers[0].cap
        turn = line.virtual if line.size else max(line.virtual, self.virtual())
        turn += line.size * cost / line.weight
        loads = [each.load.rate(now) for each in others]
        left = 1 - min(sum(loads) / len(servers), SATURATED)
        horizon = (alone + sum(each.size * cost for each in others) / len(servers)) / left
        before = 0.0
        for each, load in zip(others, loads, strict=True):
            allowed = (turn - each.virtual) * each.weight
            if allowed > 0:
                before += min(allowed, each.size * cost + load * horizon)
        return finish_after(math.ceil(line.size + 1 + before / cost), servers)

    def stats(self, now: float) -> ModelStats:
        """Return its numbers at a clock time."""
        capacity = sum(worker.cap / worker.latency.mean(worker.cap) for worker in self.workers)
        asked = self.dispatches.rate(now) + self.refused.rate(now)
        heads = (line.head() for line in self.active())
        oldest = max((now - head.arrived for head in heads if head is not None), default=0.0)
        few = 1 / Decaying.SECONDS  # with less than one dispatch in that time, the average fades
        return ModelStats(
            workers=len(self.workers),
            open=self.open,
            demand=asked / capacity * len(self.workers) if capacity > 0 else 0.0,
            queue_delay=max(self.waits.rate(now) / max(self.dispatches.rate(now), few), oldest),
        )
