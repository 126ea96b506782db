"""Scaling: up soon when it is needed, down slowly, never to and fro; also in a closed loop with the real scheduler."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.serve.simulator import Simulator, items, linear, poisson

from eyas.errors import UserError
from eyas.serve.engine.autoscale import HIGH, Autoscaler, ScaleConfig, Signal
from eyas.serve.scheduler.latency import LatencyProfile
from eyas.serve.scheduler.scheduler import Scheduler
from eyas.serve.scheduler.types import Outcome

CALM = Signal(workers=2, starting=0, demand=1.2, queue_delay=0.0)


def last(scaler: Autoscaler, signals: list[Signal], step: float = 0.5) -> int:
    """Return the decision after the signals, `step` seconds apart."""
    return [scaler.decide(step * index, each) for index, each in enumerate(signals)][-1]


def test_between_the_thresholds_nothing_changes() -> None:
    assert last(Autoscaler(ScaleConfig()), [CALM] * 200) == 2


def test_demand_brings_as_many_workers_as_it_needs() -> None:
    assert last(Autoscaler(ScaleConfig()), [replace(CALM, demand=4.0)] * 3) == 6  # 4 / 0.7


def test_a_short_peak_changes_nothing() -> None:
    peak = [CALM, replace(CALM, demand=4.0), CALM, replace(CALM, demand=4.0), CALM]
    assert {Autoscaler(ScaleConfig()).decide(0.9 * index, each) for index, each in enumerate(peak)} == {2}
    scaler = Autoscaler(ScaleConfig())
    assert [scaler.decide(0.9 * index, each) for index, each in enumerate(peak * 5)] == [2] * 25


def test_queue_delay_alone_adds_one_worker_and_waits_for_it_to_start() -> None:
    slow = replace(CALM, queue_delay=0.08)
    assert last(Autoscaler(ScaleConfig()), [slow] * 3) == 3
    assert last(Autoscaler(ScaleConfig()), [replace(slow, workers=3, starting=1)] * 30) == 3


def test_workers_go_only_after_a_long_calm() -> None:
    idle = replace(CALM, workers=4, demand=0.3)
    assert last(Autoscaler(ScaleConfig()), [idle] * 60) == 4  # 29.5 s
    assert last(Autoscaler(ScaleConfig()), [idle] * 61) == 1
    assert (
        last(Autoscaler(ScaleConfig()), [idle] * 30 + [replace(idle, demand=1.4)] + [idle] * 30) == 3
    )  # the most that was needed


def test_bounds_hold() -> None:
    scaler = Autoscaler(ScaleConfig(minimum=2, maximum=3))
    assert last(scaler, [replace(CALM, demand=50.0)] * 3) == 3
    assert last(scaler, [replace(CALM, workers=3, demand=0.0)] * 61) == 2
    assert scaler.decide(0.0, replace(CALM, workers=1)) == 2
    assert scaler.decide(0.0, replace(CALM, workers=9)) == 3


@given(demand=st.floats(0.0, 7.0), workers=st.integers(1, 8))
def test_constant_demand_comes_to_rest(demand: float, workers: int) -> None:
    scaler = Autoscaler(ScaleConfig())
    changes = 0
    for step in range(400):
        wanted = scaler.decide(float(step), Signal(workers, 0, demand, 0.0))
        changes += wanted != workers
        workers = wanted
    assert changes <= 2
    assert demand <= HIGH * workers or workers == scaler.config.maximum


@pytest.mark.parametrize("wrong", [{"minimum": 0}, {"minimum": 9}, {"queue_delay": 0.0}])
def test_senseless_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError):
        ScaleConfig(**wrong)  # type: ignore[arg-type]


def test_closed_loop_follows_a_day() -> None:
    """500/s, then 3500/s, then 500/s: one worker does 1487/s in batches of 29; starting one takes a second."""
    scheduler = Scheduler()

    def register(name: str) -> None:
        scheduler.register("m", name, LatencyProfile(0.005, 0.0005), slo=0.05, max_batch=32)

    register("w0")
    scaler = Autoscaler(ScaleConfig(queue_delay=0.025, down_after=6.0))
    names, starting = ["w0"], []
    history: list[tuple[float, int]] = []

    def scale(now: float) -> None:
        ready = [name for name, at in starting if at <= now]
        for name in ready:
            register(name)
        starting[:] = [each for each in starting if each[1] > now]
        names.extend(ready)
        present = len(names) + len(starting)
        stats = scheduler.stats(now)["m"]
        wanted = scaler.decide(now, Signal(present, len(starting), stats.demand, stats.queue_delay))
        starting.extend((f"w{now}-{index}", now + 1.0) for index in range(wanted - present))
        for name in [names.pop() for _ in range(present - wanted)]:
            scheduler.retire_worker(name)
        history.append((now, wanted))

    phases = [(time, 500.0) for time in poisson(500.0, 8.0, 1)]
    phases += [(8 + time, 3500.0) for time in poisson(3500.0, 12.0, 2)]
    phases += [(20 + time, 500.0) for time in poisson(500.0, 20.0, 3)]
    result = Simulator(scheduler, linear(0.005, 0.0005)).run(
        items(time for time, _ in phases), [(0.5 * step, scale) for step in range(80)]
    )
    counts = dict(history)
    assert counts[7.5] == 1
    assert 3 <= counts[19.5] <= 4
    assert counts[39.5] == 1
    changes = sum(before != after for (_, before), (_, after) in pairwise(history))
    assert changes <= 6
    arrived = sum(14 < time < 20 for time, _, _ in result.decisions)
    good = [event for event in result.outcomes(Outcome.SERVED) if 14 < event.arrived < 20 and not event.late]
    assert len(good) > 0.98 * arrived  # once the workers are there, everybody is served
