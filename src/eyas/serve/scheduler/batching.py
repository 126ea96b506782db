"""Filling a batch: who of a model's lines runs next on a worker, and who is hopeless."""

from __future__ import annotations

from eyas.serve.scheduler.model import ServedModel, WorkerState
from eyas.serve.scheduler.queues import Line, QueueEntry

PATIENCE = 20  # times that a worker leaves items to faster ones before it tries one, to see if it is that slow still


def fill(now: float, worker: WorkerState) -> tuple[list[QueueEntry], list[QueueEntry]]:
    """Take out of the lines of its model what an idle worker shall run.

    Lanes share the batch by weight. Idle workers share what waits: two half batches are done earlier than a whole one.
    An item that was in a failed batch runs alone. The size is never cut to save the head: in overload that leads to
    ever smaller batches and ever less throughput.

    Args:
        now: clock time.
        worker: the idle worker; somebody waits for it.

    Returns:
        The entries to run, and those dropped because this batch, and any other worker, would end after their deadline.
        Both are out of their lines. Both may be empty: the batch is left to a faster worker.
    """
    model = worker.model
    entries: list[QueueEntry] = []
    hopeless: list[QueueEntry] = []
    limit = min(worker.cap, -(-model.waiting // max(model.idle(), 1)))
    left: list[Line] = []
    worker.virtual = max(worker.virtual, min(line.virtual for line in model.active()))
    while len(entries) < limit and (line := _least_served(model, left)) is not None:
        entry = line.head()
        assert entry is not None
        if entry.attempts and entries:
            break
        size = 1 if entry.attempts else min(limit, len(entries) + model.waiting)
        seconds = worker.latency.mean(size)
        if now + seconds > entry.deadline and not entry.promised:
            if not _in_time_elsewhere(now, worker, entry, size):
                line.pop()
                hopeless.append(entry)
                continue
            if entries or worker.passed < PATIENCE:
                worker.passed += 1
                left.append(line)
                continue
            limit, size, seconds = 1, 1, worker.latency.mean(1)
        line.pop()
        line.virtual += seconds / size / line.weight
        entries.append(entry)
        if entry.attempts:
            break
    return entries, hopeless


def _least_served(model: ServedModel, left: list[Line]) -> Line | None:
    """Return the active line with the least service for its weight, without those left to others; None for none."""
    best: Line | None = None
    for line in model.lines:
        if line.size and line not in left and (best is None or line.virtual < best.virtual):
            best = line
    return best


def _in_time_elsewhere(now: float, worker: WorkerState, entry: QueueEntry, size: int) -> bool:
    return any(
        now + other.free_in(now) + other.latency.mean(size) <= entry.deadline
        for other in worker.model.workers
        if other is not worker
    )
