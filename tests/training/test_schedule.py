"""The schedule's corner points."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas.training.schedule import ema_decay, warmup_cosine

SETTINGS = {"warmup_steps": 100, "warmup_factor": 0.001, "final_factor": 0.1}


def test_warms_up_peaks_and_ends_where_it_should() -> None:
    assert warmup_cosine(0, 1000, **SETTINGS) == pytest.approx(0.001)
    assert warmup_cosine(50, 1000, **SETTINGS) == pytest.approx(0.5005)
    assert warmup_cosine(100, 1000, **SETTINGS) == pytest.approx(1.0)
    assert warmup_cosine(550, 1000, **SETTINGS) == pytest.approx(0.55)
    assert warmup_cosine(1000, 1000, **SETTINGS) == pytest.approx(0.1)


def test_a_short_run_still_reaches_the_peak() -> None:
    factors = [warmup_cosine(step, 20, **SETTINGS) for step in range(21)]
    assert max(factors) == pytest.approx(1.0)
    assert factors[-1] == pytest.approx(0.1)


def test_stays_at_the_full_rate_for_the_flat_share() -> None:
    flat = {**SETTINGS, "flat": 0.5}
    assert [warmup_cosine(step, 1100, **flat) for step in (100, 400, 600)] == [1.0, 1.0, 1.0]
    assert warmup_cosine(850, 1100, **flat) == pytest.approx(0.55)
    assert warmup_cosine(1100, 1100, **flat) == pytest.approx(0.1)


@given(st.integers(1, 5000), st.data())
def test_stays_within_bounds_and_never_jumps(total: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, total))
    here, after = (warmup_cosine(s, total, **SETTINGS) for s in (step, step + 1))
    assert 0.001 - 1e-9 <= here <= 1.0 + 1e-9
    warmup = min(100, total // 2)
    assert abs(after - here) <= max(1 / max(1, warmup), 3.2 / 2 / max(1, total - warmup)) + 1e-9


def test_the_average_is_short_sighted_at_first() -> None:
    assert ema_decay(1, 0.9997) == pytest.approx(2 / 11)
    assert ema_decay(10**6, 0.9997) == 0.9997
