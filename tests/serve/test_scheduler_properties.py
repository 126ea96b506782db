"""What holds whatever happens: random models, workers, lanes, streams, faults and cancellations in virtual time."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.serve.simulator import Result, Simulator

from eyas.serve.scheduler.latency import LatencyProfile
from eyas.serve.scheduler.lifecycle import RETRIES
from eyas.serve.scheduler.scheduler import BATCH_DEADLINE, Scheduler
from eyas.serve.scheduler.types import Admitted, Item, Lane, Outcome, Reason, ScheduledBatch

SLO = 0.05
LAST = 0.5  # seconds; faults come before
CUT = 32
COUNT = 150  # items


@dataclass
class World:
    """One random history, run to its end.

    Attributes:
        seed: of everything.
        wakes: whether the owner calls `expire` on time.
        faults: whether workers die and batches fail.
    """

    seed: int
    wakes: bool = True
    faults: bool = True
    rng: random.Random = field(init=False)
    cancelled: dict[int, float] = field(default_factory=dict)  # id -> when
    alive: set[str] = field(default_factory=set)
    longest: float = 0.0  # seconds of the longest batch
    result: Result = field(init=False)
    dispatches: list[tuple[ScheduledBatch, tuple[int, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the world and run it."""
        rng = self.rng = random.Random(self.seed)
        self.max_batch = rng.choice([1, 4, CUT])
        self.models = {
            name: (rng.choice([0.0, 0.005]), rng.choice([0.0005, 0.01]))
            for name in rng.sample("abc", rng.randint(1, 3))
        }
        self.models = {name: (a, b) if a + b > 0.001 else (0.005, b) for name, (a, b) in self.models.items()}
        self.scheduler = Scheduler(rng.choice([5, 4096]))
        self.workers = [f"{name}{index}" for name in self.models for index in range(rng.randint(1, 3))]
        for worker in self.workers:
            self.register(worker)
        simulator = Simulator(self.scheduler, self.seconds, self.fails, self.check)
        if not self.wakes:
            self.scheduler.wake_at = lambda: None  # type: ignore[method-assign]
        self.simulator = simulator
        self.result = simulator.result
        arrivals = self.arrivals()
        simulator.run(arrivals, self.script(arrivals))

    def register(self, worker: str) -> None:
        """Register a worker for the model it is named after, with a profile that may be far off."""
        self.alive.add(worker)
        base, per_item = self.models[worker[0]]
        wrong = self.rng.choice([0.6, 1.0, 1.6])
        profile = LatencyProfile(base * wrong, per_item * wrong)
        self.scheduler.register(worker[0], worker, profile, slo=SLO, max_batch=self.max_batch)

    def arrivals(self) -> list[tuple[float, Item]]:
        """Return random items."""
        rng, found, now = self.rng, [], 0.0
        rate = rng.choice([50.0, 400.0, 1500.0])
        for number in range(COUNT):
            now += rng.expovariate(rate)
            lane = rng.choice(list(Lane))
            deadline = rng.choice([None, None, None, now + rng.uniform(-0.01, 0.2)])
            stream = rng.randrange(3) if lane is Lane.STREAM else None
            name = rng.choice(list(self.models))
            found.append((now, Item(number, name, lane, deadline, stream)))
        return found

    def script(self, arrivals: list[tuple[float, Item]]) -> list[tuple[float, Callable[[float], None]]]:
        """Return random cancellations and deaths."""
        rng = self.rng
        found: list[tuple[float, Callable[[float], None]]]
        found = [
            (time + rng.expovariate(50), partial(self.cancel, number))
            for number, (time, _) in enumerate(arrivals)
            if rng.random() < 0.2
        ]
        return found + [(rng.uniform(0, LAST), self.kill) for _ in range(5 if self.faults else 0)]

    def cancel(self, number: int, now: float) -> None:
        """Cancel one item, if it waits."""
        if self.scheduler.cancel(now, number):
            self.cancelled[number] = now

    def kill(self, now: float) -> None:
        """Let a worker die, and perhaps come back at once."""
        if self.alive:
            worker = self.rng.choice(sorted(self.alive))
            self.alive.discard(worker)
            self.scheduler.worker_lost(now, worker)
            if self.rng.random() < 0.7:
                self.register(worker)

    def seconds(self, batch: ScheduledBatch) -> float:
        """Return how long a batch really takes."""
        base, per_item = self.models[batch.model]
        seconds = (base + per_item * len(batch.items)) * self.rng.lognormvariate(0, 0.1)
        self.longest = max(self.longest, seconds)
        return seconds

    def fails(self, batch: ScheduledBatch) -> bool:
        """Return whether a batch goes wrong."""
        return self.faults and self.rng.random() < 0.05

    def check(self, now: float) -> None:
        """Check what holds at any time: work conservation, and one waiting frame a stream."""
        open_ = sum(model.open for model in self.scheduler.stats(now).values())
        admitted = sum(isinstance(decision, Admitted) for _, _, decision in self.result.decisions)
        assert admitted == open_ + len(self.result.events)
        assert not self.scheduler.ready(), "an idle worker while items wait"


worlds = st.builds(World, st.integers(0, 10**6), st.booleans(), st.booleans())


@settings(max_examples=30, phases=[Phase.explicit, Phase.generate])  # a world does not shrink in useful time
@given(worlds)
def test_all_invariants(world: World) -> None:
    """One pass over each history: making it is the expensive part."""
    conservation(world)
    deadlines(world)
    batches(world)
    order(world)
    streams(world)
    cancellations(world)


def conservation(world: World) -> None:
    """In = served + rejected + dropped + cancelled + failed, each exactly once, and nothing is left in the books."""
    result = world.result
    ends = Counter(event.item.id for event in result.events)
    refused = Counter(item.id for item in result.rejected)
    served = {worker[0] for worker in world.alive}
    stranded = {  # nobody woke the scheduler, and no worker was left to ask
        item.id
        for _, item, decision in result.decisions
        if isinstance(decision, Admitted) and item.id not in ends and item.model not in served and not world.wakes
    }
    assert ends + refused + Counter(stranded) == Counter(range(COUNT))


def deadlines(world: World) -> None:
    """Nobody waits past the deadline, nor past the batch that runs then when the owner does not wake the scheduler."""
    grace = 1e-9 if world.wakes else world.longest + 1e-9
    given = {item.id: (time, item) for time, item, _ in world.result.decisions}
    dispatched = {item.id: batch.started for batch in world.result.batches for item in batch.items}
    for event in world.result.events:
        time, item = given[event.item.id]
        default = BATCH_DEADLINE if item.lane is Lane.BATCH else SLO
        deadline = item.deadline if item.deadline is not None else time + default
        assert event.late == (event.outcome is Outcome.SERVED and event.ended > deadline)
        if event.item.id in dispatched:
            assert dispatched[event.item.id] <= deadline
        elif world.alive and len(world.alive) == len(world.workers):
            assert event.ended <= deadline + grace


def batches(world: World) -> None:
    """A batch shares the model, is within the cap, and a worker runs one at a time; repeats run alone."""
    seen: Counter[object] = Counter()
    for batch in world.result.batches:
        assert 1 <= len(batch.items) <= world.max_batch
        assert {item.model for item in batch.items} == {batch.model}
        again = [seen[item.id] for item in batch.items]
        assert not max(again) or len(batch.items) == 1
        seen.update(item.id for item in batch.items)
    assert max(seen.values(), default=0) <= 1 + RETRIES


def order(world: World) -> None:
    """First come, first served in each line, repeats excepted."""
    lines = defaultdict(list)
    seen: set[object] = set()
    for batch in world.result.batches:
        for item in batch.items:
            if item.stream is None and item.id not in seen:
                lines[item.model, item.lane].append(item.id)
            seen.add(item.id)
    assert all(numbers == sorted(numbers) for numbers in lines.values())


def streams(world: World) -> None:
    """Answers come in the order of the frames; who is superseded gives way to a newer frame that was admitted then."""
    served = defaultdict(list)
    dispatched = {item.id for batch in world.result.batches for item in batch.items}
    accepted = {
        (time, item.stream): item.id
        for time, item, decision in world.result.decisions
        if isinstance(decision, Admitted)
    }
    for event in world.result.events:
        if event.outcome is Outcome.SERVED and event.item.stream is not None:
            served[event.item.stream].append(event.item.id)
        if event.reason is Reason.SUPERSEDED and event.item.id not in dispatched:
            assert accepted[event.ended, event.item.stream] > event.item.id  # type: ignore[operator]
    assert all(numbers == sorted(numbers) for numbers in served.values())


def cancellations(world: World) -> None:
    """What was cancelled is not dispatched afterwards, and ends as cancelled."""
    for batch in world.result.batches:
        for item in batch.items:
            assert batch.started <= world.cancelled.get(item.id, batch.started)  # type: ignore[call-overload]
    ended = {event.item.id for event in world.result.outcomes(Outcome.CANCELLED)}
    assert ended == set(world.cancelled)


def test_the_same_history_twice() -> None:
    """Nothing but what it is told decides what the scheduler does."""
    one, two = World(7), World(7)
    assert [(batch.started, batch.worker, batch.items) for batch in one.result.batches] == [
        (batch.started, batch.worker, batch.items) for batch in two.result.batches
    ]


def test_worlds_are_not_empty() -> None:
    """The properties speak of something: every kind of end happens."""
    events = [event for seed in range(12) for event in World(seed).result.events]
    assert {event.outcome for event in events} == set(Outcome)
    assert {Reason.SUPERSEDED, Reason.DEADLINE, Reason.CLIENT} <= {event.reason for event in events}
