"""The scheduler in numbers, for metrics and for scaling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from eyas.serve.scheduler.types import Lane, Outcome, Reason
from eyas.serve.scheduler.worker_state import Pool, ServedModel, Worker


@dataclass(frozen=True)
class ModelStats:
    """One model version. Rates and delays are of the last few seconds (`SchedulerConfig.window`).

    Attributes:
        waiting: lane -> items that wait in line.
        open: admitted items that have not ended: waiting, parked or running.
        oldest: seconds that the longest waiting item has waited.
        queue_delay: seconds from admission to dispatch on average, or `oldest` when that is more.
        answer_in: seconds in which an interactive item of the busiest input shape would be answered now; None
            when no worker serves the model.
        utilisation: busy share of its workers, 0 to 1.
        workers: how many serve it.
        capacity: items a second that its workers can do in full batches of its busiest input shape.
        dispatch_rate, refusal_rate: items dispatched, and refused for load, a second.
        ends: (outcome, reason) -> items ended so since the start.
        refusals: reason -> items refused since the start.
        batches, batched: batches dispatched since the start, and items in them.
    """

    waiting: Mapping[Lane, int]
    open: int
    oldest: float
    queue_delay: float
    answer_in: float | None
    utilisation: float
    workers: int
    capacity: float
    dispatch_rate: float
    refusal_rate: float
    ends: Mapping[tuple[Outcome, Reason], int]
    refusals: Mapping[Reason, int]
    batches: int
    batched: int


@dataclass(frozen=True)
class LatencyStats:
    """What a worker's latency model says of an input shape.

    Attributes:
        base, per_item: seconds a batch, and seconds an image.
        deviation: relative deviation of recent batches.
        cap: the largest batch that is dispatched.
        observed: batches that were learned from.
    """

    base: float
    per_item: float
    deviation: float
    cap: int
    observed: int


@dataclass(frozen=True)
class WorkerStats:
    """One worker.

    Attributes:
        utilisation: busy share lately, 0 to 1.
        running: items in its batch, 0 when it is idle.
        latencies: (model, bucket) -> what it has learned.
    """

    utilisation: float
    running: int
    latencies: Mapping[tuple[str, Hashable], LatencyStats]


@dataclass(frozen=True)
class Stats:
    """All of it at one clock time.

    Attributes:
        models, workers: by name.
        parked: frames that wait for an earlier frame of their stream.
        unknown: refusals for models that nobody registered.
    """

    models: Mapping[str, ModelStats]
    workers: Mapping[str, WorkerStats]
    parked: int
    unknown: int


def collect(now: float, pool: Pool, unknown: Counter[Reason], parked: int) -> Stats:
    """Return the numbers of a pool at a clock time."""
    models = {name: _model(now, pool, model) for name, model in pool.models.items()}
    workers = {name: _worker(now, pool, worker) for name, worker in pool.workers.items()}
    return Stats(models, workers, parked, unknown.total())


def _model(now: float, pool: Pool, model: ServedModel) -> ModelStats:
    """Return the numbers of one model."""
    queues = list(model.queues.values())
    waiting = {lane: sum(queue.lines[lane].size for queue in queues) for lane in Lane}
    oldest = max([now - queue.oldest() for queue in queues if queue.size], default=0.0)
    window = pool.config.window
    few = 1 / window  # with less than one dispatch in the window, the average fades
    delay = model.waits.rate(now) / max(model.dispatches.rate(now), few)
    answers = [pool.answer_in(now, model, queue.lines[Lane.INTERACTIVE]) for queue in queues if model.workers]
    busiest = max(queues, key=lambda queue: sum(line.load.rate(now) for line in queue.lines), default=None)
    services = [worker.services[busiest] for worker in model.workers] if busiest is not None else []
    shares = [worker.utilisation(now, window) for worker in model.workers]
    return ModelStats(
        waiting=waiting,
        open=model.open,
        oldest=oldest,
        queue_delay=max(delay, oldest),
        answer_in=max(answers, default=0.0 if model.workers else None),
        utilisation=sum(shares) / len(shares) if shares else 0.0,
        workers=len(model.workers),
        capacity=sum(service.cap / service.latency.mean(service.cap) for service in services),
        dispatch_rate=model.dispatches.rate(now),
        refusal_rate=model.refused.rate(now),
        ends=dict(model.ends),
        refusals=dict(model.refusals),
        batches=model.batches,
        batched=model.batched,
    )


def _worker(now: float, pool: Pool, worker: Worker) -> WorkerStats:
    """Return the numbers of one worker."""
    latencies = {
        (queue.model, queue.bucket): LatencyStats(
            service.latency.base,
            service.latency.per_item,
            service.latency.deviation,
            service.cap,
            service.latency.observed,
        )
        for queue, service in worker.services.items()
    }
    running = len(worker.running.items) if worker.running is not None else 0
    return WorkerStats(worker.utilisation(now, pool.config.window), running, latencies)
