"""The number of replicas: decided by the autoscaler of one machine, from what the replicas tell."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from eyas.cluster import scaling
from eyas.cluster.scaling import DEMAND, QUEUE_DELAY, QueueDelayPolicy, cluster_signal, replica_metrics
from eyas.errors import UserError
from eyas.serve.scheduler.latency import LatencyProfile
from eyas.serve.scheduler.scheduler import Scheduler
from eyas.serve.scheduler.types import Item

BOUNDS = {"minimum": 1, "maximum": 4, "queue_delay": 0.1, "up_after": 1.0, "down_after": 30.0}


@dataclass
class Context:
    """What the controller tells."""

    target_num_replicas: int
    current_num_replicas: int
    aggregated_metrics: dict[str, dict[str, float]] = field(default_factory=dict)


def context(replicas: int, demand: float, delay: float = 0.0, running: int | None = None) -> Context:
    """Return a context in which the replicas share the demand, and one of them has the queue."""
    running = replicas if running is None else running
    names = [f"r{number}" for number in range(running)]
    metrics = {DEMAND: dict.fromkeys(names, demand / max(1, running)), QUEUE_DELAY: dict.fromkeys(names, 0.0)}
    if names:
        metrics[QUEUE_DELAY][names[-1]] = delay
    return Context(replicas, running, metrics)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """Return its time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that the policy sees."""
    made = Clock()
    monkeypatch.setattr(scaling, "time", made)
    return made


def after(policy: QueueDelayPolicy, clock: Clock, seconds: float, seen: Context) -> int:
    """Return what the policy says when it has seen the same for so long, asked ten times a second as Ray Serve does."""
    found = 0
    for _ in range(round(10 * seconds) + 1):
        found, state = policy(seen)
        assert state == {}
        if found != seen.target_num_replicas:
            return found
        clock.now += 0.1
    return found


def test_demand_adds_as_many_replicas_as_it_takes(clock: Clock) -> None:
    policy = QueueDelayPolicy(**BOUNDS)
    assert after(policy, clock, 0.5, context(1, demand=2.0)) == 1
    assert after(policy, clock, 1.0, context(1, demand=2.0)) == 3  # 2.0 / 0.7


def test_queue_delay_alone_adds_one_and_waits_for_it(clock: Clock) -> None:
    policy = QueueDelayPolicy(**BOUNDS)
    assert after(policy, clock, 1.5, context(2, demand=1.0, delay=0.2)) == 3
    assert after(policy, clock, 5.0, context(3, demand=1.0, delay=0.2, running=2)) == 3
    assert after(policy, clock, 1.5, context(3, demand=1.5, delay=0.2)) == 4


def test_replicas_leave_slowly_and_never_all(clock: Clock) -> None:
    policy = QueueDelayPolicy(**BOUNDS)
    assert after(policy, clock, 25.0, context(3, demand=0.1)) == 3
    assert after(policy, clock, 10.0, context(3, demand=0.1)) == 1
    assert after(policy, clock, 60.0, context(1, demand=0.0)) == 1


def test_the_bounds_hold_and_silence_is_no_load(clock: Clock) -> None:
    policy = QueueDelayPolicy(**BOUNDS)
    assert after(policy, clock, 2.0, context(2, demand=50.0)) == 4
    assert after(policy, clock, 2.0, Context(1, 0)) == 1
    with pytest.raises(UserError):
        QueueDelayPolicy(**BOUNDS | {"maximum": 0})


def test_the_signal_sums_demand_and_takes_the_longest_queue() -> None:
    found = cluster_signal(context(3, demand=1.2, delay=0.3, running=2))
    assert (found.workers, found.starting, found.queue_delay) == (3, 1, 0.3)
    assert found.demand == pytest.approx(1.2)


def test_a_replica_counts_as_one_however_many_workers_it_has() -> None:
    demands: list[float] = []
    for workers in (1, 4):
        scheduler = Scheduler()
        for number in range(workers):
            scheduler.register("m", f"w{number}", LatencyProfile(0.0, 0.1), slo=100.0, max_batch=1)
        for number in range(10 * workers):
            scheduler.submit(0.0, Item(number, "m"))
        now = 0.0
        for _ in range(10):
            batches = {name: scheduler.next_batch(now, name) for name in scheduler.ready()}
            now += 0.1
            for name, batch in batches.items():
                assert batch is not None
                scheduler.finished(now, name, batch)
        found = replica_metrics(scheduler.stats(now))
        assert set(found) == {DEMAND, QUEUE_DELAY} and found[DEMAND] > 0.1
        demands.append(found[DEMAND])
    assert demands[0] == pytest.approx(demands[1])


def test_no_work_is_no_demand() -> None:
    assert replica_metrics(Scheduler().stats(1.0)) == {DEMAND: 0.0, QUEUE_DELAY: 0.0}
