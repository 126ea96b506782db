"""The predicted end equals that of workers who really pull one batch after the other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas.serve.prediction import Server, finish_after

servers = st.lists(st.tuples(st.floats(0.0, 0.5), st.integers(1, 32), st.floats(0.01, 0.2)), min_size=1, max_size=6)


def pulled(position: int, workers: list[Server]) -> float:
    """Return the same by letting whoever is free first pull, batch by batch."""
    free = [[start, seconds, batch] for start, batch, seconds in workers]
    while True:
        worker = min(free)
        position -= int(worker[2])
        if position <= 0:
            return worker[0] + worker[1]
        worker[0] += worker[1]


@given(st.integers(1, 400), servers)
def test_prediction_is_what_happens(position: int, workers: list[Server]) -> None:
    assert finish_after(position, workers) == pytest.approx(pulled(position, workers), rel=1e-6)


def test_one_worker() -> None:
    assert finish_after(29, [(0.01, 29, 0.02)]) == pytest.approx(0.03)
    assert finish_after(30, [(0.01, 29, 0.02)]) == pytest.approx(0.05)


def test_a_long_queue_costs_no_more() -> None:
    assert finish_after(10**9, [(0.0, 1, 0.03), (0.01, 1, 0.03)]) == pytest.approx(1.5e7, rel=1e-6)
