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

from eyas.serve.scheduler.latency import Profile
from eyas.serve.scheduler.scheduler import Scheduler
from eyas.serve.scheduler.settings import SchedulerConfig
from eyas.serve.scheduler.types import Admitted, Batch, Item, Lane, Outcome, Reason

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
        max_delay: how long partial batches are held back; only with an owner who wakes the scheduler.
    """

    seed: int
    wakes: bool = True
    faults: bool = True
    max_delay: float = 0.0
    rng: random.Random = field(init=False)
    cancelled: dict[int, float] = field(default_factory=dict)  # id -> when
    alive: set[str] = field(default_factory=set)
    longest: float = 0.0  # seconds of the longest batch
    result: Result = field(init=False)
    dispatches: list[tuple[Batch, tuple[int, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the world and run it."""
        rng = self.rng = random.Random(self.seed)
        self.config = SchedulerConfig(
            slo=SLO,
            max_batch=rng.choice([1, 4, CUT]),
            max_delay=self.max_delay if self.wakes else 0.0,
            batch_deadline=rng.choice([0.2, 5.0]),
            max_waiting=rng.choice([5, 4096]),
            retries=rng.choice([0, 1, 2]),
        )
        self.models = {
            name: (rng.choice([0.0, 0.005]), rng.choice([0.0005, 0.01]))
            for name in rng.sample("abc", rng.randint(1, 3))
        }
        self.models = {name: (a, b) if a + b > 0.001 else (0.005, b) for name, (a, b) in self.models.items()}
        self.workers = [f"w{index}" for index in range(rng.randint(1, 3))]
        self.scheduler = Scheduler(self.config)
        self.register(self.workers)
        simulator = Simulator(self.scheduler, self.seconds, self.fails, self.check)
        if not self.wakes:
            self.scheduler.wake_at = lambda: None  # type: ignore[method-assign]
        self.simulator = simulator
        self.result = simulator.result
        arrivals = self.arrivals()
        simulator.run(arrivals, self.script(arrivals))

    def register(self, workers: list[str]) -> None:
        """Register the workers for all models, with a profile that may be far off."""
        self.alive.update(workers)
        for name, (base, per_item) in self.models.items():
            wrong = self.rng.choice([0.6, 1.0, 1.6])
            self.scheduler.register(name, workers, Profile(base * wrong, per_item * wrong))

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
            found.append((now, Item(number, name, rng.randrange(2), lane, deadline, stream)))
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
                self.register([worker])

    def seconds(self, batch: Batch) -> float:
        """Return how long a batch really takes."""
        base, per_item = self.models[batch.model]
        seconds = (base + per_item * len(batch.items)) * self.rng.lognormvariate(0, 0.1)
        self.longest = max(self.longest, seconds)
        return seconds

    def fails(self, batch: Batch) -> bool:
        """Return whether a batch goes wrong."""
        return self.faults and self.rng.random() < 0.05

    def check(self, now: float) -> None:
        """Check what holds at any time: work conservation, and one waiting frame a stream."""
        stats = self.scheduler.stats(now)
        busy = {name for name, worker in stats.workers.items() if worker.running}
        idle = self.alive - busy
        waiting = sum(sum(model.waiting.values()) for model in stats.models.values())
        running = sum(worker.running for worker in stats.workers.values())
        assert stats.workers.keys() == self.alive
        assert sum(model.open for model in stats.models.values()) == waiting + running + stats.parked
        admitted = sum(isinstance(decision, Admitted) for _, _, decision in self.result.decisions)
        assert admitted == waiting + running + stats.parked + len(self.result.events)
        if not self.config.max_delay:
            assert not (idle and waiting), "an idle worker while items wait"
        assert all(0 <= worker.utilisation <= 1 for worker in stats.workers.values())


worlds = st.builds(World, st.integers(0, 10**6), st.booleans(), st.booleans(), st.sampled_from([0.0, 0.0, 0.01]))


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
    stranded = (
        set()
        if world.wakes or world.alive
        else {item.id for _, item, decision in result.decisions if isinstance(decision, Admitted)} - set(ends)
    )  # nobody woke the scheduler, and no worker was left to ask
    assert ends + refused + Counter(stranded) == Counter(range(COUNT))
    stats = world.scheduler.stats(result.ended)
    counted = sum((Counter(model.ends) for model in stats.models.values()), Counter())
    assert counted == Counter((event.outcome, event.reason) for event in result.events)
    assert sum(sum(model.refusals.values()) for model in stats.models.values()) == len(result.rejected)


def deadlines(world: World) -> None:
    """Nobody waits past the deadline, nor past the batch that runs then when the owner does not wake the scheduler."""
    grace = 1e-9 if world.wakes else world.longest + 1e-9
    given = {item.id: (time, item) for time, item, _ in world.result.decisions}
    for event in world.result.events:
        time, item = given[event.item.id]
        default = world.config.batch_deadline if item.lane is Lane.BATCH else SLO
        deadline = item.deadline if item.deadline is not None else time + default
        assert event.late == (event.outcome is Outcome.SERVED and event.ended > deadline)
        if event.dispatched is not None:
            assert event.dispatched <= deadline
        elif world.alive and len(world.alive) == len(world.workers):
            assert event.ended <= deadline + grace


def batches(world: World) -> None:
    """A batch shares model and shape, is within the cap, and a worker runs one at a time; repeats run alone."""
    seen: Counter[object] = Counter()
    for batch in world.result.batches:
        assert 1 <= len(batch.items) <= world.config.max_batch
        assert {(item.model, item.bucket) for item in batch.items} == {(batch.model, batch.bucket)}
        again = [seen[item.id] for item in batch.items]
        assert batch.retry == (max(again) > 0)
        assert not batch.retry or len(batch.items) == 1
        seen.update(item.id for item in batch.items)
    assert max(seen.values(), default=0) <= 1 + world.config.retries


def order(world: World) -> None:
    """First come, first served in each line, repeats excepted."""
    lines = defaultdict(list)
    for batch in world.result.batches:
        for item in batch.items:
            if item.stream is None and not batch.retry:
                lines[item.model, item.bucket, item.lane].append(item.id)
    assert all(numbers == sorted(numbers) for numbers in lines.values())


def streams(world: World) -> None:
    """Answers come in the order of the frames; who is superseded gives way to a newer frame that was admitted then."""
    served = defaultdict(list)
    accepted = {
        (time, item.stream): item.id
        for time, item, decision in world.result.decisions
        if isinstance(decision, Admitted)
    }
    for event in world.result.events:
        if event.outcome is Outcome.SERVED and event.item.stream is not None:
            served[event.item.stream].append(event.item.id)
        if event.reason is Reason.SUPERSEDED and event.dispatched is None:
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
