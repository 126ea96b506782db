"""The scheduler: a deterministic state machine that decides who is admitted, who runs when, and with whom.

It has no clock, no thread and no randomness: every call is told the time. The same class runs under a virtual clock in
tests and under the real one in the server. It is not thread-safe: one thread, or an event loop, calls it.

The policy: a queue for each model version and input shape; an idle worker pulls at once what waits (greedy, so nothing
idles while something waits); the batch is capped by the latency goal; and who can't be answered in time is refused on
arrival, so in overload the workers are busy with items that will be answered in time, not with stale ones.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable

from eyas.serve.scheduler.batching import fill, in_order, release_time
from eyas.serve.scheduler.queues import Entry, Line
from eyas.serve.scheduler.request_lifecycle import Lobby
from eyas.serve.scheduler.settings import SchedulerConfig
from eyas.serve.scheduler.statistics import Stats, collect
from eyas.serve.scheduler.types import Admitted, Batch, Decision, Event, Item, Lane, Outcome, Reason, Rejected
from eyas.serve.scheduler.worker_state import Pool, Prior, ServedModel, Worker

NO_WORKER_RETRY = 1.0  # seconds: about what a supervisor needs to start a worker again


class Scheduler:
    """Items in, batches out, one event for the end of each admitted item.

    The owner's loop: after any call, take `take_events()` and answer them; then ask `next_batch` for every worker of
    `ready()`; and call `expire` at the time that `wake_at` names.

    Args:
        config: settings; the defaults by default.
    """

    def __init__(self, config: SchedulerConfig | None = None) -> None:
        self.config = config or SchedulerConfig()
        self._pool = Pool(self.config)
        self._lobby = Lobby(self._pool, self.config)
        self._unknown: Counter[Reason] = Counter()

    def register(
        self,
        model: str,
        workers: Iterable[str],
        prior: Prior,
        *,
        slo: float | None = None,
        max_batch: int | None = None,
        weight: float = 1.0,
    ) -> None:
        """Let workers serve a model version. Call it again to add workers, or others with another profile.

        Args:
            model: name and version, as items will name it.
            workers: their names; one worker may serve many models and runs one batch at a time. An accelerator that
                overlaps two batches is two workers.
            prior: what a batch is believed to take: one profile, or one for each bucket that there may be.
            slo: the model's latency goal in seconds; the config's by default.
            max_batch: the largest batch that the model can run; the config's by default.
            weight: its share of common workers while several models wait.

        Raises:
            UserError: a number is out of range, or the model or a worker is on its way out.
        """
        goal = self.config.slo if slo is None else slo
        self._pool.register(model, workers, prior, goal, max_batch or self.config.max_batch, weight)

    def retire(self, model: str) -> None:
        """Refuse the model's new items from now on; those that were admitted are served, then it is forgotten."""
        served = self._pool.models[model]
        served.retired = True
        self._lobby.forget_retired(served)

    def is_registered(self, model: str) -> bool:
        """Return whether the model is known: a retired one is until its last item has ended."""
        return model in self._pool.models

    def retire_worker(self, worker: str) -> None:
        """Give the worker no more batches; it is forgotten when the one that it runs has ended."""
        known = self._pool.workers[worker]
        known.leaving = True
        self._pool.remove_worker(known, keep=known.running is not None)

    def is_worker(self, worker: str) -> bool:
        """Return whether the worker is known: a retired one is until its batch has ended."""
        return worker in self._pool.workers

    def worker_lost(self, now: float, worker: str) -> None:
        """Take note that a worker died: its batch's items are run again or fail, and it is forgotten.

        Only the running batch is touched. A worker that was started again is registered again.
        """
        known = self._pool.workers.get(worker)
        if known is None:
            return
        self._pool.remove_worker(known)
        if known.running is not None:
            entries = self._release(now, known)
            self._lobby.failed(now, entries, Reason.WORKER_LOST)

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
            UserError: the model has profiles by bucket, and none for the item's.
        """
        if item.id in self._lobby.ledger:
            raise ValueError(f"item {item.id!r} has not ended yet")
        if (item.lane is Lane.STREAM) != (item.stream is not None):
            raise ValueError("a stream's frames, and only they, are in the lane STREAM")
        self.expire(now)
        model = self._pool.models.get(item.model)
        if model is None or model.retired:
            return self._reject(now, model, Reason.UNKNOWN_MODEL, math.inf)
        if not model.workers:
            return self._reject(now, model, Reason.NO_WORKER, NO_WORKER_RETRY)
        deadline = item.deadline
        if deadline is None:
            deadline = now + (self.config.batch_deadline if item.lane is Lane.BATCH else model.slo)
        if deadline <= now:
            return self._reject(now, model, Reason.DEADLINE, 0.0)
        line = self._pool.queue(model, item.bucket).lines[item.lane]
        stale = self._lobby.streams.waiting(item.stream)
        if stale is not None and stale.line is line:
            return self._lobby.replace(now, model, stale, item, deadline)
        decision = self._admission(now, model, line, deadline)
        if isinstance(decision, Admitted):
            if stale is not None:
                self._lobby.withdraw(now, stale, Outcome.DROPPED, Reason.SUPERSEDED)
            self._lobby.admit(now, model, line, item, deadline, decision.expected)
        return decision

    def _admission(self, now: float, model: ServedModel, line: Line, deadline: float) -> Decision:
        """Decide by the predicted answer. Who finds an idle worker is admitted: a model too dark must recover."""
        answer = self._pool.answer_in(now, model, line)
        if now + answer > deadline and not self._finds_idle_worker(model):
            return self._reject(now, model, Reason.OVERLOAD, now + answer - deadline)
        if self._lobby.lanes[line.lane] >= self.config.max_waiting:
            return self._reject(now, model, Reason.QUEUE_FULL, answer)
        return Admitted(now + answer)

    def _finds_idle_worker(self, model: ServedModel) -> bool:
        """Return whether a worker of the model is idle that nobody who waits will take."""
        idle = model.idle()
        return idle > 0 and idle > sum(queue.size for queue in model.neighbours())

    def next_batch(self, now: float, worker: str) -> Batch | None:
        """Return what an idle worker shall run now; None when nothing is there for it, or it is busy or unknown.

        The least served line for its weight comes first. Items that can't be answered in time any more are dropped.
        """
        self.expire(now)
        known = self._pool.workers.get(worker)
        if known is None or known.running is not None or known.leaving or not self._lobby.waiting:
            return None
        for queue in in_order(now, known, self._pool.models):
            model = self._pool.models[queue.model]
            entries, hopeless = fill(now, known, model, queue, self.config.max_delay)
            for entry in hopeless:
                self._lobby.give_up(now, entry)
            if entries:
                return self._dispatch(now, known, model, entries)
        return None

    def _dispatch(self, now: float, worker: Worker, model: ServedModel, entries: list[Entry]) -> Batch:
        """Hand the entries, which are out of their lines already, to the worker."""
        queue = entries[0].line.queue
        service = worker.services[queue]
        seconds, size = service.latency.mean(len(entries)), len(entries)
        retry = entries[0].attempts > 0
        for entry in entries:
            entry.dispatched = now
            entry.attempts += 1
            model.waits.add(now, now - entry.arrived)
            entry.line.load.add(now, seconds / size)
            self._lobby.depart(entry)
        model.dispatches.add(now, size)
        model.batches += 1
        model.batched += size
        items = tuple([entry.item for entry in entries])
        expected = now + service.latency.upper(size)
        worker.running = Batch(worker.name, queue.model, queue.bucket, items, now, expected, retry)
        worker.entries = tuple(entries)
        worker.passed = 0
        return worker.running

    def finished(self, now: float, worker: str, batch: Batch, ok: bool = True) -> bool:
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
        known = self._pool.workers.get(worker)
        if known is None or known.running is not batch:
            return False
        entries = self._release(now, known)
        if ok:
            service = known.services[entries[0].line.queue]
            service.latency.observe(len(entries), now - batch.started)
            model = self._pool.models[batch.model]
            service.renew(model.cycle(now) if len(known.services) > 1 else 1.0)
            for entry in entries:
                self._lobby.landed(entry)
                self._lobby.end(now, entry, Outcome.SERVED, Reason.NONE)
        else:
            self._lobby.failed(now, entries, Reason.ERROR)
        if known.leaving:
            self._pool.remove_worker(known)
        return True

    def cancel(self, now: float, item_id: Hashable) -> bool:
        """Take back an item that still waits.

        Returns:
            False when it is running, has ended, or was never admitted; what runs is finished and has its own event.
        """
        entry = self._lobby.ledger.get(item_id)
        if entry is None or not entry.waiting:
            return False
        self._lobby.withdraw(now, entry, Outcome.CANCELLED, Reason.CLIENT)
        return True

    def expire(self, now: float) -> None:
        """Drop the waiting items whose deadline has come."""
        for entry in self._lobby.ledger.expired(now):
            self._lobby.withdraw(now, entry, Outcome.DROPPED, Reason.DEADLINE)

    def take_events(self) -> list[Event]:
        """Return what has ended since the last call, in order."""
        return self._lobby.ledger.take_events()

    def ready(self) -> list[str]:
        """Return the idle workers for which something waits, the fastest first: ask `next_batch` for each of them."""
        if not self._lobby.waiting:
            return []
        found = []
        for worker in self._pool.workers.values():
            if worker.running is None and not worker.leaving:
                times = [service.seconds / service.cap for queue, service in worker.services.items() if queue.size]
                if times:
                    found.append((min(times), worker.name))
        return [name for _, name in sorted(found)]

    def wake_at(self) -> float | None:
        """Return when `expire`, and `next_batch` for `ready()`, are due if nothing happens before; None for never."""
        deadline = self._lobby.ledger.next_deadline()
        times = [deadline] if deadline is not None else []
        if self.config.max_delay > 0 and self._lobby.waiting:
            for worker in self._pool.workers.values():
                if worker.running is None and not worker.leaving:
                    delay = self.config.max_delay
                    times += [release_time(queue, each, delay) for queue, each in worker.services.items() if queue.size]
        return min(times, default=None)

    def stats(self, now: float) -> Stats:
        """Return depths, delays, utilisation and counts: what metrics and scaling need."""
        return collect(now, self._pool, self._unknown, self._lobby.streams.parked())

    def _release(self, now: float, worker: Worker) -> tuple[Entry, ...]:
        """Make a worker idle and return what it ran."""
        entries, batch = worker.entries, worker.running
        assert batch is not None
        worker.busy.add_span(batch.started, now)
        worker.running, worker.entries = None, ()
        return entries

    def _reject(self, now: float, model: ServedModel | None, reason: Reason, retry_after: float) -> Rejected:
        """Count a refusal and return it."""
        if model is None:
            self._unknown[reason] += 1
        else:
            model.refusals[reason] += 1
            if reason in (Reason.OVERLOAD, Reason.QUEUE_FULL):
                model.refused.add(now, 1.0)
        return Rejected(reason, retry_after)
