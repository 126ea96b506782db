"""A discrete-event simulator with a virtual clock that drives a real scheduler, or any policy with the same calls."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from eyas.serve.scheduler.types import Decision, Item, Outcome, Rejected, ScheduledBatch, SchedulerEvent


class Policy(Protocol):
    """What the simulator asks of a scheduler."""

    def submit(self, now: float, item: Item) -> Decision:
        """Admit or refuse."""
        ...

    def next_batch(self, now: float, worker: str) -> ScheduledBatch | None:
        """Give an idle worker its work."""
        ...

    def finished(self, now: float, worker: str, batch: ScheduledBatch, ok: bool = True) -> bool:
        """Take note of an end."""
        ...

    def expire(self, now: float) -> None:
        """Drop what is past its deadline."""
        ...

    def take_events(self) -> list[SchedulerEvent]:
        """Return what ended."""
        ...

    def ready(self) -> list[str]:
        """Return idle workers with work."""
        ...

    def wake_at(self) -> float | None:
        """Return the next time to look again."""
        ...


@dataclass
class Result:
    """What happened: every decision, batch and end, and when the last thing happened."""

    decisions: list[tuple[float, Item, Decision]] = field(default_factory=list)
    batches: list[ScheduledBatch] = field(default_factory=list)
    events: list[SchedulerEvent] = field(default_factory=list)
    ended: float = 0.0

    @property
    def rejected(self) -> list[Item]:
        """The items that were refused."""
        return [item for _, item, decision in self.decisions if isinstance(decision, Rejected)]

    def outcomes(self, outcome: Outcome) -> list[SchedulerEvent]:
        """Return the ends of one kind."""
        return [event for event in self.events if event.outcome is outcome]

    def goodput(self, start: float = 0.0) -> float:
        """Return the share, of all that arrived after `start`, that was answered in time."""
        arrived = sum(time >= start for time, _, _ in self.decisions)
        good = sum(event.arrived >= start and not event.late for event in self.outcomes(Outcome.SERVED))
        return good / arrived

    def percentile(self, share: float) -> float:
        """Return a percentile of the seconds from arrival to answer, of those served."""
        times = sorted(event.ended - event.arrived for event in self.outcomes(Outcome.SERVED))
        return times[min(int(share * len(times)), len(times) - 1)] if times else math.nan

    def mean_batch(self) -> float:
        """Return the mean size of the batches."""
        return sum(len(batch.items) for batch in self.batches) / max(len(self.batches), 1)


Seconds = Callable[[ScheduledBatch], float]  # how long a batch really takes
Script = Iterable[tuple[float, Callable[[float], None]]]  # (time, what is done then with that time)

FINISH, SCRIPT, ARRIVAL, WAKE = range(4)  # what happens first of what happens at the same time


class Simulator:
    """Runs a policy in virtual time.

    Args:
        policy: the scheduler.
        seconds: how long a batch really takes; infinity for a worker that hangs.
        fails: which batches go wrong.
        check: called with (now, policy) after everything that happened.
    """

    def __init__(
        self,
        policy: Policy,
        seconds: Seconds,
        fails: Callable[[ScheduledBatch], bool] = lambda batch: False,
        check: Callable[[float], None] | None = None,
    ) -> None:
        self.policy = policy
        self.seconds = seconds
        self.fails = fails
        self.check = check
        self.result = Result()
        self._agenda: list[tuple[float, int, int, object]] = []
        self._order = count()
        self._wake = math.inf

    def run(self, arrivals: Iterable[tuple[float, Item]], script: Script = ()) -> Result:
        """Let the items arrive, do what the script says, and go on until nothing is left to happen."""
        source = iter(arrivals)
        for time, action in script:
            self._plan(time, SCRIPT, action)
        self._next_arrival(source)
        while self._agenda:
            now, kind, _, what = heapq.heappop(self._agenda)
            self.result.ended = now
            self._happen(now, kind, what)
            if kind == ARRIVAL:
                self._next_arrival(source)
            self._serve(now)
            if self.check is not None:
                self.check(now)
        return self.result

    def _happen(self, now: float, kind: int, what: object) -> None:
        """Let one thing happen."""
        if kind == ARRIVAL:
            assert isinstance(what, Item)
            self.result.decisions.append((now, what, self.policy.submit(now, what)))
        elif kind == FINISH:
            assert isinstance(what, ScheduledBatch)
            self.policy.finished(now, what.worker, what, not self.fails(what))
        elif kind == SCRIPT:
            assert callable(what)
            what(now)
        else:
            self._wake = math.inf
            self.policy.expire(now)

    def _serve(self, now: float) -> None:
        """Do what the owner of a scheduler does after every call."""
        for worker in self.policy.ready():
            batch = self.policy.next_batch(now, worker)
            if batch is not None:
                self.result.batches.append(batch)
                seconds = self.seconds(batch)
                if seconds < math.inf:
                    self._plan(now + seconds, FINISH, batch)
        self.result.events += self.policy.take_events()
        wake = self.policy.wake_at()
        if wake is not None and wake < self._wake:
            self._wake = wake
            self._plan(max(wake, now), WAKE, None)

    def _plan(self, time: float, kind: int, what: object) -> None:
        """Put something on the agenda."""
        heapq.heappush(self._agenda, (time, kind, next(self._order), what))

    def _next_arrival(self, source: Iterator[tuple[float, Item]]) -> None:
        """Put the next arrival on the agenda."""
        following = next(source, None)
        if following is not None:
            self._plan(following[0], ARRIVAL, following[1])


def poisson(rate: float, seconds: float, seed: int = 0) -> Iterator[float]:
    """Yield arrival times with exponential gaps, `rate` a second."""
    rng = random.Random(seed)
    now = rng.expovariate(rate)
    while now < seconds:
        yield now
        now += rng.expovariate(rate)


def bursts(rate: float, seconds: float, seed: int = 0, mean: float = 0.25) -> Iterator[float]:
    """Yield arrival times, `rate` a second on average: bursts of twice that, and pauses as long, at random.

    Args:
        rate: arrivals a second, pauses counted.
        seconds: how long.
        seed: of the random numbers.
        mean: mean seconds of a burst, and of a pause.
    """
    rng = random.Random(seed)
    start = 0.0
    while start < seconds:
        end = start + rng.expovariate(1 / mean)
        now = start + rng.expovariate(2 * rate)
        while now < min(end, seconds):
            yield now
            now += rng.expovariate(2 * rate)
        start = end + rng.expovariate(1 / mean)


def items(times: Iterable[float], model: str = "m", **fields: Hashable) -> Iterator[tuple[float, Item]]:
    """Yield (time, item) for arrival times; all items have the same fields."""
    for number, time in enumerate(times):
        yield time, Item(number, model, **fields)  # type: ignore[arg-type]


def linear(base: float, per_item: float, jitter: float = 0.05, seed: int = 0) -> Seconds:
    """Return how long batches take: base + per_item * n seconds, times log-normal noise."""
    rng = random.Random(seed)
    return lambda batch: (base + per_item * len(batch.items)) * rng.lognormvariate(0.0, jitter)
