from __future__ import annotations

import statistics
from itertools import pairwise

import pytest

from eyas.benchmark.load.arrivals import Kind, arrivals
from eyas.errors import UserError


@pytest.mark.parametrize("kind", ["poisson", "bursts"])
def test_they_ascend_within_the_schedule_at_the_rate_and_are_repeatable(kind: Kind) -> None:
    times = arrivals(kind, 200.0, 200.0, seed=3)
    assert all(a <= b for a, b in pairwise(times))
    assert 0.0 < times[0] < 1.5
    assert 198.0 < times[-1] < 200.0
    assert len(times) / 200.0 == pytest.approx(200.0, rel=0.08)
    assert times == arrivals(kind, 200.0, 200.0, seed=3)
    assert times != arrivals(kind, 200.0, 200.0, seed=4)


def test_poisson_counts_vary_as_much_as_their_mean_and_bursts_more() -> None:
    def dispersion(kind: Kind) -> float:
        counts = [0] * 2000
        for time in arrivals(kind, 100.0, 200.0, seed=1):
            counts[int(time / 0.1)] += 1
        return statistics.variance(counts) / statistics.mean(counts)

    assert dispersion("poisson") == pytest.approx(1.0, abs=0.15)
    assert dispersion("bursts") > 4.0


def test_bursts_come_at_twice_the_rate_and_pauses_are_empty() -> None:
    gaps = [b - a for a, b in pairwise(arrivals("bursts", 1000.0, 100.0, seed=2))]
    inside = [gap for gap in gaps if gap < 0.02]
    assert 1 / statistics.mean(inside) == pytest.approx(2000.0, rel=0.05)
    assert sum(gaps) - sum(inside) == pytest.approx(50.0, rel=0.2)


@pytest.mark.parametrize(("rate", "seconds"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (float("nan"), 1.0)])
def test_no_load_is_refused(rate: float, seconds: float) -> None:
    with pytest.raises(UserError):
        arrivals("poisson", rate, seconds)
