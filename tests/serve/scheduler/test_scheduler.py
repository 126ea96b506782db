"""The scheduler, one decision at a time, and the curves that it was designed for."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

import pytest
from tests.serve.simulator import Result, Simulator, bursts, items, linear, poisson

from eyas.errors import UserError
from eyas.serve.scheduler.latency import LatencyProfile
from eyas.serve.scheduler.model import ModelStats
from eyas.serve.scheduler.queues import Decaying
from eyas.serve.scheduler.scheduler import Scheduler
from eyas.serve.scheduler.types import Admitted, Item, Lane, Outcome, Reason, Rejected, ScheduledBatch

GPU = LatencyProfile(0.005, 0.0005)


def scheduler(workers: Iterable[str] = ("w",), profile: LatencyProfile = GPU, slo: float = 0.05) -> Scheduler:
    """Return a scheduler with one model."""
    made = Scheduler()
    for worker in workers:
        register(made, worker, profile, slo=slo)
    return made


def register(made: Scheduler, worker: str, profile: LatencyProfile = GPU, model: str = "m", slo: float = 0.05) -> None:
    """Let a worker serve a model."""
    made.register(model, worker, profile, slo=slo, max_batch=32)


def submit(made: Scheduler, now: float, *ids: object, **fields: object) -> None:
    """Submit items that must be admitted."""
    for each in ids:
        assert isinstance(made.submit(now, Item(each, "m", **fields)), Admitted)  # type: ignore[arg-type]


def ids(batch: ScheduledBatch | None) -> list[object]:
    """Return the ids of a batch's items."""
    return [item.id for item in batch.items] if batch is not None else []


def ends(made: Scheduler) -> list[tuple[object, Outcome, Reason]]:
    """Return what ended since the last call."""
    return [(event.item.id, event.outcome, event.reason) for event in made.take_events()]


def merged(*streams: Iterator[tuple[float, Item]]) -> Iterator[tuple[float, Item]]:
    """Yield the arrivals of all streams in order, numbered anew."""
    for number, (time, each) in enumerate(heapq.merge(*streams, key=lambda pair: pair[0])):
        yield time, Item(number, each.model, each.lane)


def share(result: Result, model: str | None = None, lane: Lane | None = None) -> float:
    """Return the goodput of one model or lane."""

    def of(item: Item) -> bool:
        return (model is None or item.model == model) and (lane is None or item.lane is lane)

    good = sum(of(event.item) and not event.late for event in result.outcomes(Outcome.SERVED))
    return good / sum(of(item) for _, item, _ in result.decisions)


@pytest.mark.parametrize(("rate", "least"), [(1200, 0.995), (1600, 0.89), (2000, 0.71), (3000, 0.47)])
def test_overload_costs_only_what_is_too_much(rate: float, least: float) -> None:
    """Goodput of one worker that does 1524/s at most: 0.95, 0.76 and 0.51 are the ceilings of the last three."""
    result = Simulator(scheduler(), linear(0.005, 0.0005)).run(items(poisson(rate, 4.0)))
    assert result.goodput(1.0) >= least
    assert result.percentile(0.99) <= 0.05


@pytest.mark.parametrize("wrong", [0.6, 1.6])
def test_a_wrong_profile_recovers(wrong: float) -> None:
    made = scheduler(profile=LatencyProfile(0.005 * wrong, 0.0005 * wrong))
    result = Simulator(made, linear(0.005, 0.0005)).run(items(poisson(1600, 4.0)))
    assert result.goodput() >= 0.88


def test_a_hopeless_profile_recovers_through_idle_workers() -> None:
    result = Simulator(scheduler(profile=LatencyProfile(1.0, 0.5)), linear(0.005, 0.0005)).run(items(poisson(300, 4.0)))
    assert result.goodput(2.0) >= 0.99


def test_bursts() -> None:
    result = Simulator(scheduler(), linear(0.005, 0.0005)).run(items(bursts(1200, 6.0)))
    assert result.goodput() >= 0.6
    assert result.percentile(0.99) <= 0.05


def test_a_flood_of_batch_work_does_not_hurt_the_interactive() -> None:
    work = merged(items(poisson(600, 3.0, 1)), items(poisson(3000, 3.0, 2), lane=Lane.BATCH))
    made = scheduler()
    result = Simulator(made, linear(0.005, 0.0005)).run(work)
    assert share(result, lane=Lane.INTERACTIVE) >= 0.99
    early = [event for event in result.outcomes(Outcome.SERVED) if event.ended < 3 and event.item.lane is Lane.BATCH]
    assert len(early) > 2000  # and what the others leave is used


def test_lanes_in_overload_share_by_weight() -> None:
    work = merged(items(poisson(2500, 3.0, 1)), items(poisson(1500, 3.0, 2), lane=Lane.BATCH))
    result = Simulator(scheduler(), linear(0.005, 0.0005)).run(work)
    served = [event.item.lane for event in result.outcomes(Outcome.SERVED) if 1 < event.ended < 3]
    assert served.count(Lane.INTERACTIVE) / served.count(Lane.BATCH) == pytest.approx(8, rel=0.1)


def test_a_slow_worker_helps_and_does_not_harm() -> None:
    made = scheduler()
    register(made, "slow", LatencyProfile(0.02, 0.002))
    fast, slow = linear(0.005, 0.0005), linear(0.02, 0.002)
    simulator = Simulator(made, lambda batch: (slow if batch.worker == "slow" else fast)(batch))
    assert simulator.run(items(poisson(1500, 4.0))).goodput() >= 0.975  # 0.95 without it


def test_batch_is_capped_and_workers_share_what_waits() -> None:
    made = scheduler(["v", "w"])
    submit(made, 0.0, *range(5))
    assert ids(made.next_batch(0.0, "v")) == [0, 1, 2]
    assert ids(made.next_batch(0.0, "w")) == [3, 4]
    assert made.next_batch(0.0, "w") is None


def test_refusal_says_when_to_come_back() -> None:
    made = scheduler()
    decisions = [made.submit(0.0, Item(number, "m")) for number in range(100)]
    refused = [each for each in decisions if isinstance(each, Rejected)]
    assert refused
    assert all(each.reason is Reason.OVERLOAD and 0 < each.retry_after < 0.1 for each in refused)
    assert isinstance(made.submit(0.0, Item(1000, "x")), Rejected)
    assert made.submit(1.0, Item(1001, "m", deadline=0.5)) == Rejected(Reason.DEADLINE, 0.0)


def test_the_hopeless_are_dropped_at_dispatch_and_the_late_by_expire() -> None:
    made = scheduler()
    submit(made, 0.0, 0)
    first = made.next_batch(0.0, "w")
    assert first is not None
    submit(made, 0.0, 1, 2, deadline=0.04)
    made.finished(0.036, "w", first)  # slow, 4 ms are left, a batch of two takes more
    assert made.next_batch(0.036, "w") is None
    submit(made, 0.05, 3)
    assert made.wake_at() == pytest.approx(0.1)
    made.expire(0.1)
    assert ends(made) == [
        (0, Outcome.SERVED, Reason.NONE),
        (1, Outcome.DROPPED, Reason.DEADLINE),
        (2, Outcome.DROPPED, Reason.DEADLINE),
        (3, Outcome.DROPPED, Reason.DEADLINE),
    ]


def test_latest_frame_wins_and_one_is_in_flight() -> None:
    made = scheduler(["v", "w"])
    submit(made, 0.0, 1, lane=Lane.STREAM, stream="s")
    first = made.next_batch(0.0, "v")
    assert ids(first) == [1]
    submit(made, 0.001, 2, 3, lane=Lane.STREAM, stream="s")
    assert made.next_batch(0.001, "w") is None  # frame 1 has not been answered
    assert first is not None
    made.finished(0.006, "v", first)
    assert ids(made.next_batch(0.006, "w")) == [3]
    assert (2, Outcome.DROPPED, Reason.SUPERSEDED) in ends(made)


def test_a_newer_frame_keeps_the_place_in_the_line() -> None:
    made = scheduler()
    submit(made, 0.0, 0)
    first = made.next_batch(0.0, "w")
    submit(made, 0.0, 1, lane=Lane.STREAM, stream="s")
    submit(made, 0.0, 2, lane=Lane.STREAM, stream="t")
    submit(made, 0.001, 3, lane=Lane.STREAM, stream="s")
    assert first is not None
    made.finished(0.006, "w", first)
    assert ids(made.next_batch(0.006, "w")) == [3, 2]


def test_cancelled_is_never_run_and_running_is_not_cancelled() -> None:
    made = scheduler()
    submit(made, 0.0, 1, 2)
    assert made.cancel(0.0, 1)
    assert ids(made.next_batch(0.0, "w")) == [2]
    assert not made.cancel(0.0, 2)
    assert not made.cancel(0.0, 77)
    assert ends(made) == [(1, Outcome.CANCELLED, Reason.CLIENT)]


def test_a_poisonous_request_fails_alone() -> None:
    """Number 2 kills every worker that runs it: it fails, all others are answered."""
    made = scheduler(slo=0.5)
    submit(made, 0.0, *range(5))
    now = 0.0
    while (batch := made.next_batch(now, "w")) is not None:
        now += 0.01
        if 2 in ids(batch):
            made.worker_lost(now, "w")
            assert not made.finished(now, "w", batch)  # its answer comes too late
            register(made, "w")
        else:
            made.finished(now, "w", batch)
    outcomes = {number: (outcome, reason) for number, outcome, reason in ends(made)}
    assert outcomes.pop(2) == (Outcome.FAILED, Reason.WORKER_LOST)
    assert set(outcomes.values()) == {(Outcome.SERVED, Reason.NONE)}
    assert len(outcomes) == 4


def test_without_workers_it_refuses_and_what_waits_is_kept() -> None:
    made = scheduler()
    submit(made, 0.0, 1)
    made.worker_lost(0.0, "w")
    assert isinstance(made.submit(0.01, Item(2, "m")), Rejected)
    register(made, "v")
    assert ids(made.next_batch(0.02, "v")) == [1]


def test_retired_model_serves_what_it_admitted() -> None:
    made = scheduler()
    submit(made, 0.0, 1)
    made.retire("m")
    assert made.submit(0.0, Item(2, "m")) == Rejected(Reason.UNKNOWN_MODEL, float("inf"))
    batch = made.next_batch(0.0, "w")
    assert batch is not None
    made.finished(0.006, "w", batch)
    assert "m" not in made.stats(0.006)
    assert made.next_batch(0.01, "w") is None


def test_retired_worker_ends_its_batch() -> None:
    made = scheduler(["v", "w"])
    submit(made, 0.0, 1, 2)
    batch = made.next_batch(0.0, "v")
    made.retire_worker("v")
    assert made.ready() == ["w"]
    assert batch is not None
    assert made.finished(0.006, "v", batch)
    assert not made.finished(0.007, "v", batch)


def test_wrong_use_is_refused() -> None:
    made = scheduler()
    submit(made, 0.0, 1)
    with pytest.raises(ValueError, match="not ended"):
        made.submit(0.0, Item(1, "m"))
    with pytest.raises(ValueError, match="STREAM"):
        made.submit(0.0, Item(2, "m", lane=Lane.STREAM))
    with pytest.raises(ValueError, match="registered already"):
        register(made, "w")
    with pytest.raises(UserError):
        register(made, "v", slo=-1.0)
    made.retire("m")
    with pytest.raises(UserError, match="on its way out"):
        register(made, "v")


def test_books_do_not_grow() -> None:
    """Twenty thousand cancellations leave nothing behind, though no worker ever looks at the line."""
    made = scheduler(slo=10.0)
    submit(made, 0.0, -1)
    made.next_batch(0.0, "w")
    for number in range(20_000):
        submit(made, 0.0, number)
        assert made.cancel(0.0, number)
    made.take_events()
    assert len(made._models["m"].lines[0]._entries) < 200
    assert len(made._items._deadlines) < 2000


def test_of_a_failed_batch_each_item_has_the_end_that_is_its_own() -> None:
    made = scheduler(slo=9.0)
    submit(made, 0.0, "again")
    submit(made, 0.0, "late", deadline=0.5)
    submit(made, 0.0, "frame", lane=Lane.STREAM, stream="s")
    batch = made.next_batch(0.0, "w")
    assert set(ids(batch)) == {"again", "late", "frame"}
    submit(made, 0.1, "next frame", lane=Lane.STREAM, stream="s")
    submit(made, 0.1, "waits")
    made.worker_lost(1.0, "w")
    assert set(ends(made)) == {
        ("late", Outcome.DROPPED, Reason.DEADLINE),
        ("frame", Outcome.DROPPED, Reason.SUPERSEDED),
    }
    assert made.stats(1.0)["m"].open == 3
    register(made, "w")
    assert ids(made.next_batch(1.0, "w")) == ["again"], "before those that came later"


def test_a_parked_frame_lines_up_when_the_one_before_has_landed() -> None:
    made = scheduler(["v", "w"])
    submit(made, 0.0, 1, lane=Lane.STREAM, stream="s")
    first = made.next_batch(0.0, "v")
    submit(made, 0.0, 2, lane=Lane.STREAM, stream="s")
    assert first is not None and made.ready() == []
    made.finished(0.001, "v", first)
    assert set(made.ready()) == {"v", "w"}
    assert made.cancel(0.002, 2)
    assert made.ready() == [] and made.stats(0.002)["m"].open == 0
    assert ends(made) == [(1, Outcome.SERVED, Reason.NONE), (2, Outcome.CANCELLED, Reason.CLIENT)]


def test_only_so_many_of_a_lane_may_wait() -> None:
    made = Scheduler(max_waiting=2)
    register(made, "w", LatencyProfile(1e-6, 0.0))
    submit(made, 0.0, 1, 2)
    decision = made.submit(0.0, Item(3, "m"))
    assert isinstance(decision, Rejected) and decision.reason is Reason.QUEUE_FULL
    submit(made, 0.0, 4, lane=Lane.BATCH)


def test_scaling_is_told_what_is_asked_and_how_long_it_waits() -> None:
    made = scheduler(["v", "w"])
    submit(made, 0.0, *range(4))
    assert made.stats(0.02)["m"] == ModelStats(workers=2, open=4, demand=0.0, queue_delay=0.02)
    made.next_batch(0.02, "v")
    made.next_batch(0.02, "w")
    told = made.stats(0.02)["m"]
    assert told.queue_delay == pytest.approx(0.02)
    worker = made._workers["w"]
    capacity = worker.cap / worker.latency.mean(worker.cap)
    assert told.demand == pytest.approx(4 / Decaying.SECONDS / capacity)
    refused = [made.submit(0.02, Item(number, "m", deadline=0.021)) for number in range(10, 14)]
    assert all(isinstance(each, Rejected) for each in refused)
    assert made.stats(0.02)["m"].demand == pytest.approx(2 * told.demand)
