"""Which workers serve which models, how fast each is, and when a new item would be answered."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable

from eyas.errors import UserError, suggest
from eyas.serve.scheduler.completion_time import Server, finish_after, less_spread
from eyas.serve.scheduler.latency import LatencyModel, Profile
from eyas.serve.scheduler.queues import Decaying, Entry, Line, Queue
from eyas.serve.scheduler.settings import SchedulerConfig
from eyas.serve.scheduler.types import Batch, Outcome, Reason

Prior = Profile | dict[Hashable, Profile]  # the same for every bucket, or one for each
SATURATED = 0.95  # the share of the workers that others are believed to take at most


class Service:
    """What one worker makes of one queue: its latency, its batch cap, and the seconds that a full batch hardly exceeds.

    Args:
        latency: the worker's model for this input shape.
        slo: the latency goal in seconds.
        max_batch: the largest batch that the worker can run.
    """

    __slots__ = ("_max_batch", "_slo", "cap", "latency", "seconds")

    def __init__(self, latency: LatencyModel, slo: float, max_batch: int) -> None:
        self.latency = latency
        self._slo = slo
        self._max_batch = max_batch
        self.renew(1.0)

    def renew(self, cycle: float) -> None:
        """Compute cap and seconds again, after the latency model has learned.

        Args:
            cycle: batches, of other queues too, that run before the next of this one: an item waits for these at
                worst, and then for its own, so all of them and one more fit into the latency goal.
        """
        self.cap = self.latency.best_batch(self._slo / (1 + cycle), self._max_batch)
        self.seconds = self.latency.upper(self.cap)


class Worker:
    """One worker process, as the scheduler knows it.

    Attributes:
        name: as it was registered.
        services: queue -> what the worker makes of it.
        priors: model -> what was believed of it at first.
        running, entries: the batch that it runs and that batch's entries; None and () when it is idle.
        leaving: gets no more batches.
        virtual: how far service had come when it last took a batch (start-time fair queueing).
        passed: how often it left an item to a faster worker, one after the other.
        busy: busy seconds lately, of batches that ended.
    """

    __slots__ = ("busy", "entries", "leaving", "name", "passed", "priors", "running", "services", "virtual")

    def __init__(self, name: str, window: float, virtual: float) -> None:
        self.name = name
        self.services: dict[Queue, Service] = {}
        self.priors: dict[str, Prior] = {}
        self.running: Batch | None = None
        self.entries: tuple[Entry, ...] = ()
        self.leaving = False
        self.virtual = virtual
        self.passed = 0
        self.busy = Decaying(window)

    def free_in(self, now: float) -> float:
        """Return in how many seconds the worker should be free. Who is overdue by x is expected to need x more."""
        return abs(self.running.expected - now) if self.running is not None else 0.0

    def utilisation(self, now: float, window: float) -> float:
        """Return the share of the last `window` seconds, or so, that the worker was busy: 0 to 1."""
        running = 0.0
        if self.running is not None:
            running = -math.expm1(-max(now - self.running.started, 0.0) / window)
        return min(self.busy.rate(now) + running, 1.0)


class ServedModel:
    """One model version in service.

    Attributes:
        name: as it was registered.
        slo: its latency goal in seconds.
        max_batch: the largest batch.
        weights: the shares of its lanes.
        workers: who serves it.
        queues: bucket -> queue.
        retired: takes no more items, and goes when the last has ended.
        open: admitted items that have not ended.
        ends: how many ended, and why.
        refusals: how many were refused, and why.
        refused: refusals for load, lately.
        waits, dispatches: seconds waited by those dispatched lately, and their number.
        batches, batched: batches dispatched in all, and the items in them.
    """

    def __init__(
        self, name: str, slo: float, max_batch: int, weights: tuple[float, float, float], window: float
    ) -> None:
        self.name = name
        self.slo = slo
        self.max_batch = max_batch
        self.weights = weights
        self.workers: list[Worker] = []
        self.queues: dict[Hashable, Queue] = {}
        self.retired = False
        self.open = 0
        self.ends: Counter[tuple[Outcome, Reason]] = Counter()
        self.refusals: Counter[Reason] = Counter()
        self.refused, self.waits, self.dispatches = Decaying(window), Decaying(window), Decaying(window)
        self.batches = 0
        self.batched = 0

    def idle(self) -> int:
        """Return how many of its workers have nothing to do."""
        return sum(worker.running is None for worker in self.workers)

    def virtual(self) -> float:
        """Return how far service has come at the workers: a line that becomes active may not claim what is before."""
        return min((worker.virtual for worker in self.workers), default=0.0)

    def cycle(self, now: float) -> float:
        """Return how many batches a worker runs from one of a queue to the next: 1 when there is only one queue.

        It is the number of queues a worker, where those that get little of it lately count for little (the inverse
        Simpson index of their shares).
        """
        loads = [sum(line.load.rate(now) for line in queue.lines) for queue in self.neighbours()]
        squares = sum(load * load for load in loads)
        return max(sum(loads) ** 2 / squares / len(self.workers), 1.0) if squares > 0 and self.workers else 1.0

    def neighbours(self) -> Iterable[Queue]:
        """Return the queues, its own among them, that are served by one of its workers."""
        if len(self.workers) == 1:
            return self.workers[0].services
        return {queue for worker in self.workers for queue in worker.services}


class Pool:
    """Models, workers and their latencies.

    Args:
        config: the scheduler's settings.
    """

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self.models: dict[str, ServedModel] = {}
        self.workers: dict[str, Worker] = {}

    def register(
        self, name: str, workers: Iterable[str], prior: Prior, slo: float, max_batch: int, weight: float
    ) -> None:
        """Let the workers serve the model; both may be new or known.

        Raises:
            UserError: the model is being retired, a number is out of range, or a worker is leaving.
        """
        if not (0 < slo < math.inf and max_batch >= 1 and 0 < weight < math.inf):
            raise UserError(f"'{name}' can't be served with slo={slo}, max_batch={max_batch}, weight={weight}.")
        shares = self.config.weights
        weights = (shares[0] * weight, shares[1] * weight, shares[2] * weight)
        model = self.models.get(name) or ServedModel(name, slo, max_batch, weights, self.config.window)
        names = list(workers)
        leaving = [each for each in names if each in self.workers and self.workers[each].leaving]
        if model.retired or leaving:
            raise UserError(f"'{name}' or one of its workers is being removed.", where=", ".join(leaving))
        self.models[name] = model
        for each in names:
            front = max((worker.virtual for worker in self.workers.values()), default=0.0)
            worker = self.workers.setdefault(each, Worker(each, self.config.window, front))
            worker.priors[name] = prior
            if worker not in model.workers:
                model.workers.append(worker)
            for queue in model.queues.values():
                self._serve(worker, model, queue)

    def queue(self, model: ServedModel, bucket: Hashable) -> Queue:
        """Return the model's queue for an input shape, made when it is new.

        Raises:
            UserError: a worker has profiles by bucket, and none for this one.
        """
        queue = model.queues.get(bucket)
        if queue is None:
            queue = Queue(model.name, bucket, model.weights, self.config.window)
            for worker in model.workers:
                self._serve(worker, model, queue)
            model.queues[bucket] = queue
        return queue

    def _serve(self, worker: Worker, model: ServedModel, queue: Queue) -> None:
        """Let a worker serve a queue; what it learned of it before is kept."""
        if queue in worker.services:
            return
        prior = worker.priors[model.name]
        if isinstance(prior, dict):
            if queue.bucket not in prior:
                hint = suggest(str(queue.bucket), map(str, prior))
                raise UserError(f"'{model.name}' has no input shape {queue.bucket}{hint}.", expected=f"{list(prior)}")
            prior = prior[queue.bucket]
        latency = LatencyModel(prior, self.config.memory)
        worker.services[queue] = Service(latency, model.slo, model.max_batch)

    def remove_worker(self, worker: Worker, *, keep: bool = False) -> None:
        """Take a worker from its models; the items that waited for it go on waiting for others.

        Args:
            worker: whom.
            keep: it still runs a batch, so it is not forgotten yet.
        """
        if not keep:
            self.workers.pop(worker.name, None)
        for model in self.models.values():
            if worker in model.workers:
                model.workers.remove(worker)

    def remove_model(self, model: ServedModel) -> None:
        """Forget a model of which nothing waits or runs any more."""
        self.models.pop(model.name, None)
        for worker in model.workers:
            worker.priors.pop(model.name, None)
            for queue in model.queues.values():
                worker.services.pop(queue, None)

    def answer_in(self, now: float, model: ServedModel, line: Line) -> float:
        """Return in how many seconds an item that joins the line now would be answered, at the latest to expect."""
        queue = line.queue
        servers = []
        for worker in model.workers:
            service = worker.services[queue]
            servers.append((worker.free_in(now), service.cap, service.seconds))
        answer = finish_after(line.size + 1, servers)
        if queue.size != line.size or len(self.models) > 1 or len(model.queues) > 1:
            others = [each for queue in model.neighbours() if queue.size for each in queue.active() if each is not line]
            if others:
                answer = self._among(now, model, line, others, servers, answer)
        return less_spread(answer, servers, [worker.services[queue].latency.safety for worker in model.workers])

    def _among(
        self, now: float, model: ServedModel, line: Line, others: list[Line], servers: list[Server], alone: float
    ) -> float:
        """Return what `answer_in` does when items wait in other lines as well.

        Lines are served in the order of their service over weight. So of another line there comes first what its
        weight allows before it is the item's turn, and no more than waits there or will come meanwhile, judged by
        the share of the workers that it took lately.

        Args:
            now: clock time.
            model: the item's model.
            line: where it would wait.
            others: lines in which somebody waits, of all queues that the model's workers serve.
            servers: the workers, for `finish_after`.
            alone: seconds until it were answered if nobody waited in the others.
        """
        count = len(servers)
        services = {each.queue: self._service(model, each.queue) for each in others}
        services[line.queue] = self._service(model, line.queue)
        costs = {queue: service.seconds / service.cap for queue, service in services.items()}
        cost = costs[line.queue]
        turn = line.virtual if line.size else max(line.virtual, model.virtual())
        turn += line.size * cost / line.weight
        loads = [each.load.rate(now) for each in others]
        left = 1 - min(sum(loads) / count, SATURATED)
        horizon = (alone + sum(each.size * costs[each.queue] for each in others) / count) / left
        before: dict[Queue, float] = {}
        for each, load in zip(others, loads, strict=True):
            allowed = (turn - each.virtual) * each.weight
            if allowed > 0:
                amount = min(allowed, each.size * costs[each.queue] + load * horizon)
                before[each.queue] = before.get(each.queue, 0.0) + amount
        position = math.ceil(line.size + 1 + before.pop(line.queue, 0.0) / cost)
        batches = sum(
            math.ceil(amount / services[queue].seconds) * services[queue].seconds for queue, amount in before.items()
        )
        return finish_after(position, servers) + batches / count

    def _service(self, model: ServedModel, queue: Queue) -> Service:
        """Return what one of the model's workers makes of a queue that at least one of them serves."""
        return next(worker.services[queue] for worker in model.workers if queue in worker.services)
