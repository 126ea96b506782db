"""Filling a batch: who of a queue runs next on a worker, and who is hopeless."""

from __future__ import annotations

import math
from collections.abc import Mapping

from eyas.serve.scheduler.queues import Entry, Line, Queue
from eyas.serve.scheduler.worker_state import ServedModel, Service, Worker

PATIENCE = 20  # times that a worker leaves items to faster ones before it tries one, to see if it is that slow still


def fill(
    now: float, worker: Worker, model: ServedModel, queue: Queue, max_delay: float
) -> tuple[list[Entry], list[Entry]]:
    """Take out of a queue what an idle worker shall run.

    Lanes share the batch by weight. Idle workers share what waits: two half batches are done earlier than a whole one.
    An item that was in a failed batch runs alone. The size is never cut to save the head: in overload that leads to
    ever smaller batches and ever less throughput.

    Args:
        now: clock time.
        worker: the idle worker.
        model: the queue's model.
        queue: a queue in which somebody waits.
        max_delay: how long a partial batch may be held back.

    Returns:
        The entries to run, and those dropped because this batch, and any other worker, would end after their deadline.
        Both are out of their lines. Both may be empty: the batch is held back, or left to a faster worker.
    """
    service = worker.services[queue]
    entries: list[Entry] = []
    hopeless: list[Entry] = []
    if max_delay > 0 and now < release_time(queue, service, max_delay):
        return entries, hopeless
    sharers = 1
    if len(model.workers) > 1:
        sharers = max(model.idle() - sum(1 for each in worker.services if each.size and each is not queue), 1)
    limit = min(service.cap, -(-queue.size // sharers))
    left: list[Line] = []
    worker.virtual = max(worker.virtual, queue.virtual())
    while len(entries) < limit and (line := _least_served(queue, left)) is not None:
        entry = line.head()
        assert entry is not None
        if entry.attempts and entries:
            break
        size = 1 if entry.attempts else min(limit, len(entries) + queue.size)
        seconds = service.latency.mean(size)
        if now + seconds > entry.deadline and not entry.promised:
            if not _faster_elsewhere(now, worker, model, queue, entry, size):
                line.pop()
                hopeless.append(entry)
                continue
            if entries or worker.passed < PATIENCE:
                worker.passed += 1
                left.append(line)
                continue
            limit, size, seconds = 1, 1, service.latency.mean(1)
        line.pop()
        line.virtual += seconds / size / line.weight
        entries.append(entry)
        if entry.attempts:
            break
    return entries, hopeless


def in_order(now: float, worker: Worker, models: Mapping[str, ServedModel]) -> list[Queue]:
    """Return the queues with something for a worker, the one to serve first at first.

    The least served for its weight is first, but a partial batch that can wait for one more of another queue does so:
    two models that share a worker would else take turns with batches of one.

    Args:
        now: clock time.
        worker: the idle worker.
        models: the models by name.
    """
    active = [queue for queue in worker.services if queue.size]
    if len(active) > 1:
        longest = max(worker.services[queue].seconds for queue in active)
        keys = {
            queue: (_can_wait(now, queue, worker.services[queue], models[queue.model].slo, longest), queue.virtual())
            for queue in active
        }
        active.sort(key=keys.__getitem__)
    return active


def _can_wait(now: float, queue: Queue, service: Service, slo: float, seconds: float) -> bool:
    """Return whether the queue's batch is partial and its heads allow a batch of `seconds` before it.

    A head waits no longer so than the latency goal allows, even if its deadline is far away.
    """
    if queue.size >= service.cap:
        return False
    end = now + seconds + service.latency.upper(queue.size)
    heads = [head for line in queue.active() if (head := line.head()) is not None]
    return all(not head.attempts and end <= min(head.deadline, head.arrived + slo) for head in heads)


def _least_served(queue: Queue, left: list[Line]) -> Line | None:
    """Return the active line with the least service for its weight, without those left to others; None for none."""
    best: Line | None = None
    for line in queue.lines:
        if line.size and line not in left and (best is None or line.virtual < best.virtual):
            best = line
    return best


def _faster_elsewhere(now: float, worker: Worker, model: ServedModel, queue: Queue, entry: Entry, size: int) -> bool:
    """Return whether another worker could still answer the entry in time."""
    return any(
        now + other.free_in(now) + other.services[queue].latency.mean(size) <= entry.deadline
        for other in model.workers
        if other is not worker
    )


def release_time(queue: Queue, service: Service, max_delay: float) -> float:
    """Return the clock time until which a partial batch may be held back; minus infinity when it is to run at once.

    Args:
        queue: the queue, in which somebody waits.
        service: what the idle worker makes of it.
        max_delay: seconds that the oldest item may be held back.
    """
    if queue.size >= service.cap:
        return -math.inf
    release = math.inf
    for line in queue.active():
        head = line.head()
        if head is not None:
            if head.attempts:
                return -math.inf
            release = min(release, head.arrived + max_delay, head.deadline - service.seconds)
    return release
