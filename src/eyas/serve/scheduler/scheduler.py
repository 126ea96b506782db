"""The scheduler: a deterministic state machine that decides who is admitted, who runs when, and with whom.

It has no clock, no thread and no randomness: every call is told the time. The same class runs under a virtual clock in
tests and under the real one in the server. It is not thread-safe: one thread, or an event loop, calls it.

The policy: an idle worker pulls at once what waits for its model (greedy, so nothing idles while something waits); the
batch is capped by the latency goal; and who can't be answered in time is refused on arrival, so in overload the workers
are busy with items that will be answered in time, not with stale ones.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping

from eyas.errors import UserError
from eyas.serve.scheduler.batching import fill
from eyas.serve.scheduler.latency import LatencyProfile
from eyas.serve.scheduler.lifecycle import Lifecycle
from eyas.serve.scheduler.model import ModelStats, ServedModel, WorkerState
from eyas.serve.scheduler.queues import Line, QueueEntry
from eyas.serve.scheduler.types import (
    Admitted,
    Decision,
    Item,
    Lane,
    Outcome,
    Reason,
    Rejected,
    ScheduledBatch,
    SchedulerEvent,
)

NO_WORKER_RETRY = 1.0  # seconds: about what a supervisor needs to start a worker again
BATCH_DEADLINE = 60.0  # seconds: the default deadline of the batch lane
MAX_WAITING = 4096


class Scheduler:
    """Items in, batches out, one event for the end of each admitted item.

    The owner's loop: after any call, take `take_events()` and answer them; then ask `next_batch` for every worker of
    `ready()`; and call `expire` at the time that `wake_at` names.

    Args:
        max_waiting: items of one lane that may wait; more are refused, whatever their deadlines.
    """

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self._max_waiting = max_waiting
        self._models: dict[str, ServedModel] = {}
        self._workers: dict[str, WorkerState] = {}
        self._items = Lifecycle(self._models)

    def register(self, model: str, worker: str, profile: LatencyProfile, *, slo: float, max_batch: int) -> None:
        """Let a new worker serve a model version, which may be new as well.

        Args:
            model: name and version, as items will name it.
            worker: its name; it runs one batch at a time.
            profile: what a batch is believed to take.
            slo: the latency goal of a new model in seconds: its default deadline, from arrival to answer. It also
                limits the batch: one may take half of it.
            max_batch: the largest batch of a new model.

        Raises:
            UserError: a number is out of range, or the model is on its way out.
            ValueError: there is a worker of that name.
        """
        if worker in self._workers:
            raise ValueError(f"worker {worker!r} is registered already")
        if not (0 < slo < math.inf and max_batch >= 1):
            raise UserError(f"'{model}' can't be served with slo={slo}, max_batch={max_batch}.")
        served = self._models.get(model) or ServedModel(model, slo, max_batch)
        if served.retired:
            raise UserError(f"'{model}' is on its way out.")
        self._models[model] = served
        front = max((each.virtual for each in self._workers.values()), default=0.0)
        self._workers[worker] = known = WorkerState(worker, served, profile, front)
        served.workers.append(known)

    def retire(self, model: str) -> None:
        """Refuse the model's new items from now on; those that were admitted are served, then it is forgotten."""
        served = self._models.get(model)
        if served is not None:
            served.retired = True
            self._items.forget_retired(served)

    def retire_worker(self, worker: str) -> None:
        """Give the worker, if it is known, no more batches; it is forgotten when the one that it runs has ended."""
        known = self._workers.get(worker)
        if known is not None:
            known.leaving = True
            self._remove(known, keep=known.running is not None)

    def worker_lost(self, now: float, worker: str) -> None:
        """Take note that a worker died: its batch's items are run again or fail, and it is forgotten.

        Only the running batch is touched. A worker that was started again is registered again.
        """
        known = self._workers.get(worker)
        if known is not None:
            self._remove(known)
            self._items.failed(now, _release(known), Reason.WORKER_LOST)

    def _remove(self, worker: WorkerState, *, keep: bool = False) -> None:
        """Take a worker from its model; the items that waited for it go on waiting for others.

        Args:
            worker: whom.
            keep: it still runs a batch, so it is not forgotten yet.
        """
        if not keep:
            self._workers.pop(worker.name, None)
        if worker in worker.model.workers:
            worker.model.workers.remove(worker)

    def submit(self, now: float, item: Item) -> Decision:
        """Admit an item, or refuse it at once because its answer would come too late.

        A frame of a stream takes the place of a frame of the same stream that still waits, which is dropped.

        Args:
            now: clock time.
            item: what to run.

        Returns:
            `Admitted`: one event will follow. `Rejected`: none will.

        Raises:
            ValueError: the id is in use, or lane and stream do not fit.
        """
        if self._items.get(item.id) is not None:
            raise ValueError(f"item {item.id!r} has not ended yet")
        if (item.lane is Lane.STREAM) != (item.stream is not None):
            raise ValueError("a stream's frames, and only they, are in the lane STREAM")
        self.expire(now)
        model = self._models.get(item.model)
        if model is None or model.retired:
            return Rejected(Reason.UNKNOWN_MODEL, math.inf)
        if not model.workers:
            return Rejected(Reason.NO_WORKER, NO_WORKER_RETRY)
        deadline = item.deadline
        if deadline is None:
            deadline = now + (BATCH_DEADLINE if item.lane is Lane.BATCH else model.slo)
        if deadline <= now:
            return Rejected(Reason.DEADLINE, 0.0)
        line = model.lines[item.lane]
        stale = self._items.waiting_frame(item.stream)
        if stale is not None and stale.line is line:
            return self._items.replace(now, stale, item, deadline)
        decision = self._admission(now, line, deadline)
        if isinstance(decision, Admitted):
            if stale is not None:
                self._items.withdraw(now, stale, Outcome.DROPPED, Reason.SUPERSEDED)
            self._items.admit(now, line, item, deadline, decision.expected)
        else:
            model.refused.add(now, 1.0)
        return decision

    def _admission(self, now: float, line: Line, deadline: float) -> Decision:
        """Decide by the predicted answer. Who finds an idle worker is admitted: a model too dark must recover."""
        model = line.model
        answer = model.answer_in(now, line)
        if now + answer > deadline and model.idle() <= model.waiting:
            return Rejected(Reason.OVERLOAD, now + answer - deadline)
        if self._items.lanes[line.lane] >= self._max_waiting:
            return Rejected(Reason.QUEUE_FULL, answer)
        return Admitted(now + answer)

    def next_batch(self, now: float, worker: str) -> ScheduledBatch | None:
        """Return what an idle worker shall run now; None when nothing is there for it, or it is busy or unknown.

        The least served line for its weight comes first. Items that can't be answered in time any more are dropped.
        """
        self.expire(now)
        known = self._workers.get(worker)
        if known is None or known.running is not None or known.leaving or not known.model.waiting:
            return None
        entries, hopeless = fill(now, known)
        for entry in hopeless:
            self._items.give_up(now, entry)
        return self._dispatch(now, known, entries) if entries else None

    def _dispatch(self, now: float, worker: WorkerState, entries: list[QueueEntry]) -> ScheduledBatch:
        """Hand the entries, which are out of their lines already, to the worker."""
        model, latency, size = worker.model, worker.latency, len(entries)
        seconds = latency.mean(size)
        for entry in entries:
            entry.attempts += 1
            model.waits.add(now, now - entry.arrived)
            entry.line.load.add(now, seconds / size)
            self._items.depart(entry)
        model.dispatches.add(now, size)
        items = tuple([entry.item for entry in entries])
        worker.running = ScheduledBatch(worker.name, model.name, items, now, now + latency.upper(size))
        worker.entries = tuple(entries)
        worker.passed = 0
        return worker.running

    def finished(self, now: float, worker: str, batch: ScheduledBatch, ok: bool = True) -> bool:
        """Take note that a worker is done with its batch.

        Args:
            now: clock time.
            worker: its name.
            batch: what `next_batch` gave it.
            ok: False when the batch as a whole went wrong: its items are run again, each alone, or fail.

        Returns:
            False when this is not what the worker runs, as when it was declared lost before: then nothing has happened,
            and the answers are to be thrown away.
        """
        known = self._workers.get(worker)
        if known is None or known.running is not batch:
            return False
        entries = _release(known)
        if ok:
            known.latency.observe(len(entries), now - batch.started)
            known.renew()
            for entry in entries:
                self._items.served(now, entry)
        else:
            self._items.failed(now, entries, Reason.ERROR)
        if known.leaving:
            self._remove(known)
        return True

    def cancel(self, now: float, item_id: Hashable) -> bool:
        """Take back an item that still waits.

        Returns:
            False when it is running, has ended, or was never admitted; what runs is finished and has its own event.
        """
        entry = self._items.get(item_id)
        if entry is None or not entry.waiting:
            return False
        self._items.withdraw(now, entry, Outcome.CANCELLED, Reason.CLIENT)
        return True

    def expire(self, now: float) -> None:
        """Drop the waiting items whose deadline has come."""
        for entry in self._items.expired(now):
            self._items.withdraw(now, entry, Outcome.DROPPED, Reason.DEADLINE)

    def take_events(self) -> list[SchedulerEvent]:
        """Return what has ended since the last call, in order."""
        return self._items.take_events()

    def ready(self) -> list[str]:
        """Return the idle workers for which something waits, the fastest first: ask `next_batch` for each of them."""
        if not self._items.waiting:
            return []
        found = [
            (worker.seconds / worker.cap, worker.name)
            for worker in self._workers.values()
            if worker.running is None and not worker.leaving and worker.model.waiting
        ]
        return [name for _, name in sorted(found)]

    def wake_at(self) -> float | None:
        """Return when `expire` is due if nothing happens before; None for never."""
        return self._items.next_deadline()

    def stats(self, now: float) -> Mapping[str, ModelStats]:
        """Return what scaling needs to know of each model."""
        return {name: model.stats(now) for name, model in self._models.items()}


def _release(worker: WorkerState) -> tuple[QueueEntry, ...]:
    entries = worker.entries
    worker.running, worker.entries = None, ()
    return entries
