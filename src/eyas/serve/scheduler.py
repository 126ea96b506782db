"""The scheduler: a deterministic state machine that decides who is admitted, who runs when, and with whom.

It has no clock, no thread and no randomness: every call is told the time. The same class runs under a virtual clock in
tests and under the real one in the server. It is not thread-safe: one thread, or an event loop, calls it.

The policy: a queue for each model version and input shape; an idle worker pulls at once what waits (greedy, so nothing
idles while something waits); the batch is capped by the latency goal; and who can't be answered in time is refused on
arrival, so in overload the workers are busy with requests that will be answered in time, not with stale ones.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable

from eyas.serve.dispatch import fill, in_order, release_time
from eyas.serve.ledger import Ledger
from eyas.serve.pool import Pool, Prior, ServedModel, Worker
from eyas.serve.queues import Entry, Line
from eyas.serve.requests import Admitted, Batch, Decision, Event, Lane, Outcome, Reason, Rejected, Request
from eyas.serve.settings import SchedulerConfig
from eyas.serve.statistics import Stats, collect
from eyas.serve.streams import Streams

NO_WORKER_RETRY = 1.0  # seconds: about what a supervisor needs to start a worker again


class Scheduler:
    """Requests in, batches out, one event for the end of each admitted request.

    The owner's loop: after any call, take `take_events()` and answer them; then ask `next_batch` for every worker of
    `ready()`; and call `expire` at the time that `wake_at` names.

    Args:
        config: settings; the defaults by default.
    """

    def __init__(self, config: SchedulerConfig | None = None) -> None:
        self.config = config or SchedulerConfig()
        self._pool = Pool(self.config)
        self._ledger = Ledger()
        self._streams = Streams(self.config.frames_in_flight)
        self._waiting = 0  # in lines; parked frames are not counted
        self._lanes = [0] * len(Lane)  # the same by lane
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
            model: name and version, as requests will name it.
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
        """Refuse the model's new requests from now on; those that were admitted are served, then it is forgotten."""
        served = self._pool.models[model]
        served.retired = True
        self._forget_retired(served)

    def is_registered(self, model: str) -> bool:
        """Return whether the model is known: a retired one is until its last request has ended."""
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
        """Take note that a worker died: its batch's requests are run again or fail, and it is forgotten.

        Only the running batch is touched. A worker that was started again is registered again.
        """
        known = self._pool.workers.get(worker)
        if known is None:
            return
        self._pool.remove_worker(known)
        if known.running is not None:
            entries = self._release(now, known)
            self._failed(now, entries, Reason.WORKER_LOST)

    def submit(self, now: float, request: Request) -> Decision:
        """Admit a request, or refuse it at once because its answer would come too late.

        A frame of a stream takes the place of a frame of the same stream that still waits, which is dropped.

        Args:
            now: clock time.
            request: what to run.

        Returns:
            `Admitted`: one event will follow. `Rejected`: none will.

        Raises:
            ValueError: the id is in use, or lane and stream do not fit.
            UserError: the model has profiles by bucket, and none for the request's.
        """
        if request.id in self._ledger:
            raise ValueError(f"request {request.id!r} has not ended yet")
        if (request.lane is Lane.STREAM) != (request.stream is not None):
            raise ValueError("a stream's frames, and only they, are in the lane STREAM")
        self.expire(now)
        model = self._pool.models.get(request.model)
        if model is None or model.retired:
            return self._reject(now, model, Reason.UNKNOWN_MODEL, math.inf)
        if not model.workers:
            return self._reject(now, model, Reason.NO_WORKER, NO_WORKER_RETRY)
        deadline = request.deadline
        if deadline is None:
            deadline = now + (self.config.batch_deadline if request.lane is Lane.BATCH else model.slo)
        if deadline <= now:
            return self._reject(now, model, Reason.DEADLINE, 0.0)
        line = self._pool.queue(model, request.bucket).lines[request.lane]
        stale = self._streams.waiting(request.stream)
        if stale is not None and stale.line is line:
            return self._replace(now, model, stale, request, deadline)
        decision = self._admission(now, model, line, deadline)
        if isinstance(decision, Admitted):
            if stale is not None:
                self._drop(now, stale, Reason.SUPERSEDED)
            self._admit(now, model, line, request, deadline, decision.expected)
        return decision

    def _admission(self, now: float, model: ServedModel, line: Line, deadline: float) -> Decision:
        """Decide by the predicted answer. Who finds an idle worker is admitted: a model too dark must recover."""
        answer = self._pool.answer_in(now, model, line)
        if now + answer > deadline and not self._finds_idle_worker(model):
            return self._reject(now, model, Reason.OVERLOAD, now + answer - deadline)
        if self._lanes[line.lane] >= self.config.max_waiting:
            return self._reject(now, model, Reason.QUEUE_FULL, answer)
        return Admitted(now + answer)

    def _finds_idle_worker(self, model: ServedModel) -> bool:
        """Return whether a worker of the model is idle that nobody who waits will take."""
        idle = model.idle()
        return idle > 0 and idle > sum(queue.size for queue in model.neighbours())

    def _admit(
        self, now: float, model: ServedModel, line: Line, request: Request, deadline: float, expected: float
    ) -> None:
        """Put an admitted request into its line, or aside while an earlier frame of its stream is in flight."""
        entry = Entry(request, line, now, deadline)
        entry.expected = expected
        entry.promised = expected > deadline
        model.open += 1
        self._ledger.enter(entry)
        if request.stream is not None:
            entry.parked = self._streams.wait(request.stream, entry)
        if not entry.parked:
            self._line_up(model, entry)

    def _replace(self, now: float, model: ServedModel, entry: Entry, request: Request, deadline: float) -> Decision:
        """Put a newer frame in the place of the waiting one of its stream, which keeps its place in the line."""
        self._ledger.end(now, entry, Outcome.DROPPED, Reason.SUPERSEDED)
        model.ends[Outcome.DROPPED, Reason.SUPERSEDED] += 1
        entry.request, entry.arrived, entry.deadline = request, now, deadline
        entry.attempts, entry.dispatched = 0, None
        self._ledger.enter(entry)
        return Admitted(max(entry.expected, now))

    def next_batch(self, now: float, worker: str) -> Batch | None:
        """Return what an idle worker shall run now; None when nothing is there for it, or it is busy or unknown.

        The least served line for its weight comes first. Requests that can't be answered in time any more are dropped.
        """
        self.expire(now)
        known = self._pool.workers.get(worker)
        if known is None or known.running is not None or known.leaving or not self._waiting:
            return None
        for queue in in_order(now, known, self._pool.models):
            model = self._pool.models[queue.model]
            entries, hopeless = fill(now, known, model, queue, self.config.max_delay)
            for entry in hopeless:
                entry.waiting = False
                self._left(entry)
                self._streams.leave(entry)
                self._end(now, entry, Outcome.DROPPED, Reason.DEADLINE)
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
            entry.waiting = False
            entry.dispatched = now
            entry.attempts += 1
            model.waits.add(now, now - entry.arrived)
            entry.line.load.add(now, seconds / size)
            self._left(entry)
            if entry.request.stream is not None:
                self._streams.depart(entry)
        model.dispatches.add(now, size)
        model.batches += 1
        model.batched += size
        requests = tuple([entry.request for entry in entries])
        expected = now + service.latency.upper(size)
        worker.running = Batch(worker.name, queue.model, queue.bucket, requests, now, expected, retry)
        worker.entries = tuple(entries)
        worker.passed = 0
        return worker.running

    def finished(self, now: float, worker: str, batch: Batch, ok: bool = True) -> bool:
        """Take note that a worker is done with its batch.

        Args:
            now: clock time.
            worker: its name.
            batch: what `next_batch` gave it.
            ok: False when the batch as a whole went wrong: its requests are run again, each alone, or fail.

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
                self._landed(entry)
                self._end(now, entry, Outcome.SERVED, Reason.NONE)
        else:
            self._failed(now, entries, Reason.ERROR)
        if known.leaving:
            self._pool.remove_worker(known)
        return True

    def cancel(self, now: float, request_id: Hashable) -> bool:
        """Take back a request that still waits.

        Returns:
            False when it is running, has ended, or was never admitted; what runs is finished and has its own event.
        """
        entry = self._ledger.get(request_id)
        if entry is None or not entry.waiting:
            return False
        self._withdraw(entry)
        self._end(now, entry, Outcome.CANCELLED, Reason.CLIENT)
        return True

    def expire(self, now: float) -> None:
        """Drop the waiting requests whose deadline has come."""
        for entry in self._ledger.expired(now):
            self._drop(now, entry, Reason.DEADLINE)

    def take_events(self) -> list[Event]:
        """Return what has ended since the last call, in order."""
        return self._ledger.take_events()

    def ready(self) -> list[str]:
        """Return the idle workers for which something waits, the fastest first: ask `next_batch` for each of them."""
        if not self._waiting:
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
        deadline = self._ledger.next_deadline()
        times = [deadline] if deadline is not None else []
        if self.config.max_delay > 0 and self._waiting:
            for worker in self._pool.workers.values():
                if worker.running is None and not worker.leaving:
                    delay = self.config.max_delay
                    times += [release_time(queue, each, delay) for queue, each in worker.services.items() if queue.size]
        return min(times, default=None)

    def stats(self, now: float) -> Stats:
        """Return depths, delays, utilisation and counts: what metrics and scaling need."""
        return collect(now, self._pool, self._unknown, self._streams.parked())

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
        self._waiting += 1
        self._lanes[line.lane] += 1

    def _left(self, entry: Entry) -> None:
        """Count out an entry that is not in its line any more."""
        self._waiting -= 1
        self._lanes[entry.line.lane] -= 1

    def _withdraw(self, entry: Entry) -> None:
        """Let an entry wait no more."""
        entry.waiting = False
        self._streams.leave(entry)
        if not entry.parked:
            entry.line.forget()
            self._left(entry)

    def _drop(self, now: float, entry: Entry, reason: Reason) -> None:
        """End a waiting entry without an answer."""
        self._withdraw(entry)
        self._end(now, entry, Outcome.DROPPED, reason)

    def _release(self, now: float, worker: Worker) -> tuple[Entry, ...]:
        """Make a worker idle and return what it ran."""
        entries, batch = worker.entries, worker.running
        assert batch is not None
        worker.busy.add_span(batch.started, now)
        worker.running, worker.entries = None, ()
        return entries

    def _landed(self, entry: Entry) -> None:
        """Let the next frame of the entry's stream line up, now that this one is not in flight any more."""
        if entry.request.stream is not None:
            following = self._streams.land(entry)
            if following is not None:
                self._line_up(self._pool.models[following.line.queue.model], following)

    def _failed(self, now: float, entries: tuple[Entry, ...], reason: Reason) -> None:
        """Run the requests of a failed batch again, each alone and before the others of its line, or give them up."""
        for entry in reversed(entries):
            self._landed(entry)
            if entry.attempts > self.config.retries:
                self._end(now, entry, Outcome.FAILED, reason)
            elif entry.deadline <= now:
                self._end(now, entry, Outcome.DROPPED, Reason.DEADLINE)
            elif self._streams.waiting(entry.request.stream) is not None:
                self._end(now, entry, Outcome.DROPPED, Reason.SUPERSEDED)
            else:
                entry.waiting = True
                self._ledger.enter(entry)
                if entry.request.stream is not None:
                    self._streams.wait(entry.request.stream, entry)
                self._line_up(self._pool.models[entry.line.queue.model], entry, front=True)

    def _end(self, now: float, entry: Entry, outcome: Outcome, reason: Reason) -> None:
        """Tell the end of an entry, and forget it."""
        self._ledger.end(now, entry, outcome, reason)
        model = self._pool.models[entry.line.queue.model]
        model.ends[outcome, reason] += 1
        model.open -= 1
        self._forget_retired(model)

    def _forget_retired(self, model: ServedModel) -> None:
        """Forget a retired model with nothing left to do."""
        if model.retired and not model.open:
            self._pool.remove_model(model)

    def _reject(self, now: float, model: ServedModel | None, reason: Reason, retry_after: float) -> Rejected:
        """Count a refusal and return it."""
        if model is None:
            self._unknown[reason] += 1
        else:
            model.refusals[reason] += 1
            if reason in (Reason.OVERLOAD, Reason.QUEUE_FULL):
                model.refused.add(now, 1.0)
        return Rejected(reason, retry_after)
