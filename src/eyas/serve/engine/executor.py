"""The scheduler at work in an event loop: tickets in, batches to the workers, results back to the tickets.

The clock is the system's monotonic one. uvloop's own counts whole milliseconds: a batch of two would be learned as one
of one to three. Its zero is the same, so alarms can be set by either.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic

from eyas.serve.errors import Kind, Refused, ServeError
from eyas.serve.scheduler.latency import LatencyProfile
from eyas.serve.scheduler.scheduler import MAX_WAITING, Scheduler
from eyas.serve.scheduler.types import Item, Lane, Outcome, Reason, Rejected, ScheduledBatch, SchedulerEvent
from eyas.serve.workers import base

TICK = 0.001  # seconds by which an alarm of uvloop may be early: then nothing would be due yet
# Why a request was refused or ended without an answer -> how the client is told.
TOLD: dict[Reason, tuple[Kind, str]] = {
    Reason.OVERLOAD: ("overloaded", "The server is busy: the answer would be late."),
    Reason.QUEUE_FULL: ("overloaded", "The server is busy: too many images are queued."),
    Reason.UNKNOWN_MODEL: ("unavailable", "The model is being unloaded."),
    Reason.NO_WORKER: ("unavailable", "The model's workers are restarting."),
    Reason.DEADLINE: ("deadline", "The request timed out before it could be answered."),
    Reason.SUPERSEDED: ("cancelled", "A newer frame of the stream replaced this one."),
    Reason.CLIENT: ("cancelled", "The request was cancelled."),
    Reason.WORKER_LOST: (
        "unavailable",
        "A worker died on the request twice; it was stopped, or killed for lack of memory.",
    ),
    Reason.ERROR: ("internal", "The network failed on the request twice."),
}


@dataclass(eq=False, slots=True)
class Ticket:
    """One request under way: its images are admitted, run and answered one by one.

    Attributes:
        tasks: its images, at least one.
        done: ends when all results are there, or with the error that ended the request.
        partial: whether a refused image is a result as well, in place of the end of the request.
        refused: number of an image -> why it is not run.
        results: one for each image that was run, or refused alone.
        arrived, dispatched, ended: by the monotonic clock; `dispatched` is of its last batch.
        inference: seconds of the networks of its batches together.
        batch: how many images were in its last batch.
        blamed: number of an image -> what it did, alone, to the worker that was lost or failed under it.
    """

    tasks: Sequence[base.Task]
    done: asyncio.Future[None]
    partial: bool = False
    refused: Mapping[int, Refused] = field(default_factory=dict)
    ids: range = range(0)
    left: int = 0
    results: list[base.ImageResult | Refused | None] = field(default_factory=list)
    arrived: float = 0.0
    dispatched: float = 0.0
    ended: float = 0.0
    inference: float = 0.0
    batch: int = 0
    blamed: dict[int, Refused] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Count what is left to be done."""
        self.left = len(self.tasks) - len(self.refused)
        self.results = [self.refused.get(index) for index in range(len(self.tasks))]

    def fail(self, error: ServeError) -> None:
        """End the request with an error; the first one counts."""
        if not self.done.done():
            self.done.set_exception(error)

    def give(self, index: int, result: base.ImageResult | Refused) -> None:
        """Take the result of one image."""
        if isinstance(result, Refused) and not self.partial:
            where = f"Image {index + 1} of {len(self.tasks)}: " if len(self.tasks) > 1 else ""
            self.fail(ServeError(result.kind, where + result.message))
            return
        self.results[index] = result
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)


class Executor:
    """Workers, the scheduler that feeds them, and the clock that both go by. Lives in one event loop.

    Args:
        died: called with the images of a batch whose worker died, and what the client of one alone is told.
        max_waiting: see `Scheduler`.
    """

    def __init__(self, died: Callable[[Sequence[base.Task], str], None], max_waiting: int = MAX_WAITING) -> None:
        self.scheduler = Scheduler(max_waiting)
        self.refused = -math.inf  # when a request was last refused for load, on the monotonic clock
        self._died = died
        self._loop = asyncio.get_running_loop()
        self._workers: dict[str, base.Worker] = {}
        self._running: dict[str, ScheduledBatch] = {}
        self._released: dict[str, asyncio.Future[None]] = {}
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, model: str, worker: base.Worker, profile: LatencyProfile, goal: float, max_batch: int) -> None:
        """Let a warm worker serve a model."""
        self._workers[worker.name] = worker
        self.scheduler.register(model, worker.name, profile, slo=goal, max_batch=max_batch)
        self._settle()

    def lose(self, name: str, why: base.Lost) -> None:
        """Take note that a worker is gone; what it ran is run again, or fails."""
        batch = self._running.pop(name, None)
        self._workers.pop(name, None)
        if batch is not None:
            _blame(batch, why.told)
            tasks = [ticket.tasks[index] for ticket, index in map(_ticket, batch.items)]
            self._died(tasks, why.told.message if why.told else "")
        self.scheduler.worker_lost(monotonic(), name)
        self._let_go(name)
        self._settle()

    async def release(self, name: str) -> None:
        """Give a worker no more batches, and return when it runs none."""
        self.scheduler.retire_worker(name)
        if name in self._running:
            await self._released.setdefault(name, self._loop.create_future())
        self._workers.pop(name, None)

    def submit(self, model: str, ticket: Ticket, lane: Lane, stream: str, timeout: float | None) -> None:
        """Admit a request's images, all or none.

        Raises:
            ServeError: it was refused.
        """
        now = ticket.arrived = monotonic()
        deadline = None if timeout is None else now + timeout
        ticket.ids = range(self._number, self._number + len(ticket.tasks))
        self._number = ticket.ids.stop
        for index, number in enumerate(ticket.ids):
            if index in ticket.refused:
                continue
            item = Item(number, model, lane, deadline, stream or None, (ticket, index))
            decision = self.scheduler.submit(now, item)
            if isinstance(decision, Rejected):
                ticket.done.cancel()
                self.cancel(ticket)
                kind, message = TOLD[decision.reason]
                if kind == "overloaded":
                    self.refused = now
                raise ServeError(kind, message, retry_after=max(decision.retry_after, 0.05))
        self._settle()

    def cancel(self, ticket: Ticket) -> None:
        """Free the places of a request's images that still wait; what runs is finished and thrown away."""
        now = monotonic()
        for number in ticket.ids:
            self.scheduler.cancel(now, number)
        self._settle()

    def close(self) -> None:
        """Stop the alarm clock."""
        if self._timer is not None:
            self._timer.cancel()

    def _start(self, batch: ScheduledBatch) -> None:
        now, tasks = monotonic(), []
        for item in batch.items:
            ticket, index = _ticket(item)
            ticket.dispatched, ticket.batch = now, len(batch.items)
            tasks.append(ticket.tasks[index])
        self._running[batch.worker] = batch
        self._workers[batch.worker].submit(tasks, lambda outcome: self._ended(batch, outcome))

    def _ended(self, batch: ScheduledBatch, outcome: base.Outcome) -> None:
        """Give the results of a batch to its tickets, and the worker its next one."""
        now = monotonic()
        if self._running.get(batch.worker) is not batch:
            return
        del self._running[batch.worker]
        _blame(batch, outcome.told if isinstance(outcome, base.Broken) else None)
        self.scheduler.finished(now, batch.worker, batch, ok=isinstance(outcome, base.Ran))
        if isinstance(outcome, base.Ran):
            for item, result in zip(batch.items, outcome.results, strict=True):
                ticket, index = _ticket(item)
                if ticket.ended != now:  # once a batch, however many of its images are in it
                    ticket.inference += outcome.inference
                ticket.ended = now
                ticket.give(index, result)
                if isinstance(result, Refused) and len(ticket.tasks) > 1 and not ticket.partial:
                    self.cancel(ticket)  # nobody waits for its other images any more
        self._let_go(batch.worker)
        self._settle()

    def _let_go(self, name: str) -> None:
        waiting = self._released.pop(name, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def _settle(self) -> None:
        """Answer what has ended, feed the idle workers, and set the alarm clock."""
        self._answer()
        for name in self.scheduler.ready():
            batch = self.scheduler.next_batch(monotonic(), name)
            if batch is not None:
                self._start(batch)
        self._answer()
        wake = self.scheduler.wake_at()
        if wake is not None and (self._timer is None or wake + TICK < self._timer.when()):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(wake + TICK, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self.scheduler.expire(monotonic())
        self._settle()

    def _answer(self) -> None:
        for event in self.scheduler.take_events():
            if event.outcome is not Outcome.SERVED:
                _fail(event)


def _fail(event: SchedulerEvent) -> None:
    kind, message = TOLD[event.reason]
    ticket, index = _ticket(event.item)
    if event.outcome is Outcome.FAILED:  # it may be this image's fault, and then is not the others'
        ticket.give(index, ticket.blamed.get(index) or Refused(kind, message))
    else:
        ticket.fail(ServeError(kind, message))


def _blame(batch: ScheduledBatch, told: Refused | None) -> None:
    """Remember what the image of a batch did to its worker; the last batch of an image has it alone."""
    for item in batch.items:
        ticket, index = _ticket(item)
        ticket.blamed.pop(index, None)
        if told is not None and len(batch.items) == 1:
            ticket.blamed[index] = told


def _ticket(item: Item) -> tuple[Ticket, int]:
    payload = item.payload
    assert isinstance(payload, tuple)
    return payload
