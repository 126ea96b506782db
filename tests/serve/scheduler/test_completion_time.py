"""The predicted end equals that of workers who really pull one batch after the other."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas.serve.scheduler.completion_time import Server, finish_after, less_spread

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


def test_margins_of_batches_in_a_row_grow_with_the_root_of_their_number() -> None:
    mean, deviation, safety = 0.02, 0.2, 1.4
    server = (0.0, 1, mean * safety)
    rng = random.Random(0)
    for batches in (1, 4, 16):
        alone = finish_after(batches, [server])
        told = less_spread(alone, [server], [safety])
        ends = [sum(rng.gauss(mean, deviation * mean) for _ in range(batches)) for _ in range(4000)]
        late = sum(end > told for end in ends) / len(ends)
        assert 0.01 < late < 0.04  # two deviations, whether of one batch or of the sum of sixteen
        assert statistics.mean(ends) < told <= alone + 1e-12


def test_who_waits_for_what_runs_only_keeps_the_whole_margin() -> None:
    servers = [(0.05, 8, 0.03), (0.01, 8, 0.03)]
    assert less_spread(0.04, servers, [1.5, 1.5]) == 0.04
