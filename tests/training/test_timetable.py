"""A run planned for a time, on machines whose speed is known to the test alone."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas.training.timetable import Aims, Pace, Planning, Timetable, due, fits_an_epoch, plan, step_of, steps_ahead

AIMS = Aims(warmup=200, every=1, closing=0.1, steps_an_epoch=50)


class Machine:
    """Trains under a clock of its own: each step, evaluation and epoch takes what the machine says."""

    def __init__(self, step: float, evaluation: float, start: float = 5.0, slower: float = 1.0) -> None:
        self.step, self.evaluation, self.slower = step, evaluation, slower
        self.clock = start

    def train(self, seconds: float, aims: Aims, guess: Pace) -> Timetable:
        """Run to the end; `clock` then says when that was."""
        table = Timetable([plan(0, seconds - self.clock, guess, aims)])
        step, evaluations, steps_seconds, last_evaluation = 0, 0, 0.0, 0
        known = guess.evaluation
        while step < table.last.total:
            took = self.step * (self.slower if self.clock > seconds / 2 else 1.0)
            self.clock += took
            steps_seconds = took if not step else 0.7 * steps_seconds + 0.3 * took
            step += 1
            if step % aims.steps_an_epoch == 0 and step // aims.steps_an_epoch - last_evaluation >= table.last.every:
                last_evaluation = step // aims.steps_an_epoch
                self.clock += self.evaluation
                known = self.evaluation
                evaluations += 1
            if due(step, table.last):
                pace = Pace(steps_seconds, known, 0.0, guess.finish)
                table.add(plan(step, seconds - self.clock, pace, aims, table.last))
        self.clock += self.evaluation + guess.finish
        self.share = evaluations * self.evaluation / seconds
        return table


@pytest.mark.parametrize("guessed", [0.02, 0.2, 2.0])
@pytest.mark.parametrize("slower", [1.0, 0.5, 3.0])
@pytest.mark.parametrize("step", [0.02, 0.2, 1.0])
def test_it_ends_in_time_whatever_the_first_guess_was(step: float, slower: float, guessed: float) -> None:
    machine = Machine(step, evaluation=4.0, slower=slower)
    table = machine.train(300.0, AIMS, Pace(guessed, 2.0, 0.0, 1.0))
    assert 0.95 * 300 <= machine.clock <= 1.05 * 300
    assert machine.share <= 0.2
    assert table.progress(table.last.total) == 1.0


def test_an_evaluation_that_takes_long_comes_seldom() -> None:
    planned = plan(0, 3600.0, Pace(0.1, 50.0, 0.0, 1.0), AIMS)
    assert planned.every == 100  # an epoch takes 5 s, an evaluation as long as ten of them


def test_the_warm_up_takes_a_tenth_at_most_and_stays_when_it_is_over() -> None:
    first = plan(0, 100.0, Pace(1.0, 0.0, 0.0, 0.0), AIMS)
    assert (first.total, first.warmup) == (100, 10)
    assert plan(50, 1000.0, Pace(1.0, 0.0, 0.0, 0.0), AIMS, first).warmup == 10
    assert plan(0, 1e6, Pace(1.0, 0.0, 0.0, 0.0), AIMS).warmup == 200


def test_the_closing_moves_until_it_has_begun() -> None:
    first = plan(0, 100.0, Pace(1.0, 0.0, 0.0, 0.0), AIMS)
    assert first.close == 90
    assert plan(50, 150.0, Pace(1.0, 0.0, 0.0, 0.0), AIMS, first).close == 180
    assert plan(95, 100.0, Pace(1.0, 0.0, 0.0, 0.0), AIMS, first).close == 90


def test_a_limit_of_steps_holds_beside_the_time() -> None:
    aims = Aims(200, 1, 0.1, 50, max_steps=30)
    assert plan(0, 100.0, Pace(1.0, 0.0, 0.0, 0.0), aims).total == 30


def test_no_time_left_plans_no_further_step() -> None:
    assert plan(7, 0.5, Pace(1.0, 2.0, 0.0, 0.0), AIMS).total == 7
    assert not fits_an_epoch(plan(0, 30.0, Pace(1.0, 2.0, 0.0, 0.0), AIMS), AIMS)


plannings = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 500)), max_size=12)


@given(st.integers(1, 500), plannings)
def test_progress_never_falls_or_jumps_and_the_rate_follows_it(first: int, later: list[tuple[int, int]]) -> None:
    table = Timetable([Planning(0, first, min(5, first), 1, first, 0)])
    step = 0
    for wait, rest in later:
        step += wait
        table.add(Planning(step, step + rest, table.last.warmup, 1, step, 0))
    steps = range(step + 502)
    progress = [table.progress(one) for one in steps]
    assert progress[0] == 0.0 and progress[-1] == 1.0
    assert all(before <= after for before, after in itertools.pairwise(progress))
    factors = [table.factor(one, warmup_factor=0.001, final_factor=0.01) for one in steps]
    assert factors[-1] == pytest.approx(0.01)
    warm = factors[table.last.warmup :]
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(warm))


def test_one_planning_is_the_plain_schedule() -> None:
    from eyas.training.schedule import warmup_cosine

    table = Timetable([Planning(0, 100, 10, 1, 90, 0)])
    for step in range(120):
        plain = warmup_cosine(step, 100, warmup_steps=10, warmup_factor=0.001, final_factor=0.01)
        assert table.factor(step, warmup_factor=0.001, final_factor=0.01) == pytest.approx(plain)


def test_images_that_were_made_ahead_are_as_they_were_planned_then() -> None:
    table = Timetable([Planning(0, 100, 10, 1, 90, 5), Planning(50, 60, 10, 1, 53, 5), Planning(58, 70, 10, 1, 65, 5)])
    assert [step for step in range(70) if table.closing(step)] == [55, 56, 57, 58, 59, 60, 61, 62, 65, 66, 67, 68, 69]


@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 90), st.integers(0, 70))
def test_no_batch_is_more_steps_ahead_than_is_said(batches: int, accumulate: int, number: int, ahead: int) -> None:
    now, then = (step_of(*divmod(one, batches), batches, accumulate) for one in (number, number + ahead))
    assert 0 <= then - now <= steps_ahead(ahead, batches, accumulate)


def test_steps_are_counted_as_lightning_takes_them() -> None:
    # Five batches, two of them a step: an epoch ends with a step of one.
    assert [step_of(*divmod(number, 5), 5, 2) for number in range(12)] == [0, 0, 1, 1, 2, 3, 3, 4, 4, 5, 6, 6]
