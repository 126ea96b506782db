"""The latency model finds the truth from a wrong profile, never goes negative, and its batch is what its cap means."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eyas.errors import UserError
from eyas.serve.scheduler.latency import LatencyModel, LatencyProfile, non_negative

seconds = st.floats(1e-4, 1.0)


@pytest.mark.parametrize("wrong", [0.6, 1.0, 1.6, 10.0])
def test_a_wrong_profile_is_forgotten(wrong: float) -> None:
    model, rng = LatencyModel(LatencyProfile(0.005 * wrong, 0.0005 / wrong)), random.Random(0)
    for _ in range(150):
        size = rng.randint(1, 32)
        model.observe(size, (0.005 + 0.0005 * size) * rng.lognormvariate(0, 0.05))
    assert model.mean(1) == pytest.approx(0.0055, rel=0.05)
    assert model.mean(32) == pytest.approx(0.021, rel=0.05)
    assert model.upper(1) / model.mean(1) == pytest.approx(1.1, abs=0.06)  # two deviations of 0.05


@pytest.mark.parametrize("wrong", [0.6, 1.6])
def test_one_size_alone_rescales_the_profile(wrong: float) -> None:
    """Least squares have nothing to tell the two parameters apart by; clipped, they would invent one."""
    model = LatencyModel(LatencyProfile(0.002 * wrong, 0.03 * wrong))
    for _ in range(400):
        model.observe(1, 0.032)
    assert model.mean(1) == pytest.approx(0.032, rel=0.01)
    assert model.mean(4) == pytest.approx(0.122, rel=0.05)


def test_a_slower_machine_is_followed() -> None:
    model = LatencyModel(LatencyProfile(0.005, 0.0005))
    for size in list(range(1, 33)) * 5:
        model.observe(size, 3 * (0.005 + 0.0005 * size))
    assert model.mean(16) == pytest.approx(0.039, rel=0.02)


def test_a_hiccup_does_not_poison() -> None:
    model = LatencyModel(LatencyProfile(0.005, 0.0005))
    for size in range(1, 33):
        model.observe(size, 0.005 + 0.0005 * size)
    model.observe(8, 60.0)
    assert model.mean(8) < 2 * 0.009


def test_a_clock_that_stood_still_does_no_harm() -> None:
    model = LatencyModel(LatencyProfile(0.005, 0.0005))
    for _ in range(500):
        model.observe(4, 0.0)
        assert 0 < model.mean(1) < math.inf
    assert model.best_batch(0.025, 32) == 29


def test_upper_is_the_mean_and_two_deviations() -> None:
    model = LatencyModel(LatencyProfile(0.005, 0.0005, deviation=0.2))
    assert model.upper(10) == pytest.approx(0.010 * 1.4)


@given(st.lists(st.tuples(st.integers(1, 64), seconds), min_size=1, max_size=12))
def test_least_squares_are_non_negative_and_the_best(rows: list[tuple[int, float]]) -> None:
    sizes, times = np.array(rows).T
    sums = [len(rows), sizes.sum(), (sizes**2).sum(), times.sum(), (sizes * times).sum()]
    a, b = non_negative([float(each) for each in sums])
    assert a >= 0
    assert b >= 0

    def cost(a: float, b: float) -> float:
        return float(((a + b * sizes - times) ** 2).sum())

    for da, db in ((1e-3, 0), (-1e-3, 0), (0, 1e-4), (0, -1e-4), (1e-3, -1e-4), (-1e-3, 1e-4)):
        assert cost(a, b) <= cost(max(a + da, 0), max(b + db, 0)) + 1e-9


@given(seconds, st.floats(0.0, 0.1), st.floats(0.0, 0.5), st.floats(0.001, 2.0), st.integers(1, 64))
@example(1.0, 5e-324, 0.0, 0.5, 2)  # longer than the limit, and all but nothing more for each item
def test_cap_is_the_smallest_efficient_batch_within_the_limit(
    base: float, per_item: float, deviation: float, limit: float, most: int
) -> None:
    model = LatencyModel(LatencyProfile(base, per_item, deviation))
    cap = model.best_batch(limit, most)
    fine = [size for size in range(1, most + 1) if model.upper(size) <= limit * (1 + 1e-9)] or [1]
    best = max(size / model.mean(size) for size in fine)
    assert cap == next(size for size in fine if size / model.mean(size) >= 0.97 * best * (1 - 1e-9))


def test_profile_is_fitted_to_measurements() -> None:
    profile = LatencyProfile.measured([(1, 0.0055), (8, 0.009), (32, 0.021)])
    assert (profile.base, profile.per_item, profile.deviation) == pytest.approx((0.005, 0.0005, 0.0), abs=1e-6)
    assert LatencyProfile.measured([(2, 0.06), (2, 0.06)]).per_item == pytest.approx(0.03)


@pytest.mark.parametrize("pairs", [[], [(0, 0.1)], [(1, 0.0)], [(1, math.nan)], [(1, math.inf)]])
def test_senseless_measurements_are_refused(pairs: list[tuple[int, float]]) -> None:
    with pytest.raises(UserError):
        LatencyProfile.measured(pairs)


@pytest.mark.parametrize("values", [(0.0, 0.0), (-0.1, 0.1), (math.nan, 0.1), (0.1, math.inf), (0.1, 0.1, -1.0)])
def test_senseless_profiles_are_refused(values: tuple[float, ...]) -> None:
    with pytest.raises(UserError):
        LatencyProfile(*values)
