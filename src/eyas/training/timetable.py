"""A run planned for a time: how many steps it will have, planned again and again as the machine's speed is learned.

All that depends on the clock is in a `Planning`, which is kept with the step from which on it holds. What the run does
is a function of the step and of the plannings so far, so a resumed run that reads them does the same.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from eyas.training.schedule import annealed

FIRST = 5  # steps before the first guess is given up
EVALUATING = 0.1  # the share of the training time that evaluations may take
WARMUP = 0.1  # the share of all steps that the warm-up may take


@dataclass(frozen=True)
class Planning:
    """What was planned at one step.

    Attributes:
        step: optimizer steps done when it was made; it holds from there on.
        total: optimizer steps of the whole run.
        warmup: of these, the steps of the warm-up.
        every: epochs between two evaluations.
        close: the step from which on images are single ones, without mosaic and mixup.
        ahead: images are made so many steps ahead: whether those of a step are single ones was decided by then.
    """

    step: int
    total: int
    warmup: int
    every: int
    close: int
    ahead: int


@dataclass(frozen=True)
class Pace:
    """What is known of the machine, in seconds.

    Attributes:
        step: an optimizer step, its share of loading and logging included.
        evaluation: an evaluation, with the tables, images and weights that are written after it.
        epoch: what an epoch takes beyond its steps and its evaluation.
        finish: from the end of the last evaluation to the exit.
    """

    step: float
    evaluation: float
    epoch: float
    finish: float


@dataclass(frozen=True)
class Aims:
    """What the recipe wants, whatever the time.

    Attributes:
        warmup: steps of the warm-up, at most.
        every: epochs between two evaluations, at least.
        closing: the share of the steps that see single images.
        steps_an_epoch: optimizer steps in one pass over the images.
        max_steps: the run's optimizer steps, at most; 0 for no limit.
        ahead: how many steps ahead images are made.
    """

    warmup: int
    every: int
    closing: float
    steps_an_epoch: int
    max_steps: int = 0
    ahead: int = 0


def plan(step: int, seconds_left: float, pace: Pace, aims: Aims, before: Planning | None = None) -> Planning:
    """Plan the rest of a run: as many steps as fit, with evaluations that take a tenth of the time at most.

    Args:
        step: optimizer steps done.
        seconds_left: until the process shall have ended.
        pace: what things take.
        aims: what the recipe wants.
        before: the planning so far; a warm-up or a closing that has begun keeps its place.
    """
    epoch = aims.steps_an_epoch * pace.step
    every = max(aims.every, math.ceil(pace.evaluation / (EVALUATING * epoch))) if epoch > 0 else aims.every
    for_steps = seconds_left - pace.finish - pace.evaluation
    an_epoch = epoch + pace.epoch + pace.evaluation / every
    rest = max(0, math.floor(for_steps / an_epoch * aims.steps_an_epoch)) if an_epoch > 0 else 0
    total = step + rest
    if aims.max_steps:
        total = min(total, aims.max_steps)
    if before is not None and step >= before.warmup:
        warmup = before.warmup
    else:
        warmup = min(aims.warmup, math.ceil(WARMUP * total))
    close = total - round(aims.closing * total)
    if before is not None and step >= before.close:
        close = before.close
    return Planning(step, total, warmup, every, close, aims.ahead)


def fits_an_epoch(planning: Planning, aims: Aims) -> bool:
    """Return whether the steps of a planning pass over all images at least once."""
    return planning.total >= aims.steps_an_epoch


class Timetable:
    """The plannings of a run, and the schedule that they mean.

    Args:
        plannings: in the order of their steps; the first one begins at step 0.
    """

    def __init__(self, plannings: Sequence[Planning]) -> None:
        assert plannings and plannings[0].step == 0
        self.plannings: list[Planning] = []
        self._progress: list[float] = []  # at each planning's step
        self.replace(plannings)

    @property
    def last(self) -> Planning:
        """The planning that holds now."""
        return self.plannings[-1]

    def add(self, planning: Planning) -> None:
        """Let a planning hold from its step on."""
        begun = self.progress(planning.step) if self.plannings else 0.0
        self.plannings.append(planning)
        self._progress.append(begun)

    def replace(self, plannings: Sequence[Planning]) -> None:
        """Begin anew with these."""
        self.plannings, self._progress = [], []
        for planning in plannings:
            self.add(planning)

    def closing(self, step: int) -> bool:
        """Return whether the images of a step are single ones.

        That is decided when they are made, so by the planning of that time; a later one can't change them any more.
        """
        return step >= self.at(max(0, step - self.plannings[0].ahead)).close

    def at(self, step: int) -> Planning:
        """Return the planning that holds at a step."""
        return self.plannings[self._number(step)]

    def progress(self, step: int) -> float:
        """Return which part of the run is done at a step: from 0 to 1, without jumps.

        Every planning goes in a straight line from where the one before had come to, to 1 at its last step.
        """
        number = self._number(step)
        planning, begun = self.plannings[number], self._progress[number]
        span = planning.total - planning.step
        return min(1.0, begun + (1.0 - begun) * (step - planning.step) / span) if span > 0 else 1.0

    def factor(self, step: int, *, warmup_factor: float, final_factor: float, flat: float = 0.0) -> float:
        """Return the factor on the base learning rate: linear warm-up by steps, then `annealed` by progress."""
        warmup = self.at(step).warmup
        if step < warmup:
            return warmup_factor + (1.0 - warmup_factor) * step / warmup
        warm = self.progress(warmup)
        return annealed((self.progress(step) - warm) / (1.0 - warm) if warm < 1.0 else 1.0, final_factor, flat)

    def _number(self, step: int) -> int:
        return bisect_right(self.plannings, step, key=lambda planning: planning.step) - 1


def step_of(epoch: int, batch: int, batches: int, accumulate: int) -> int:
    """Return the optimizer step that a batch belongs to.

    Args:
        epoch, batch: its place, both from 0.
        batches: in an epoch; the last of them end a step, however few they are.
        accumulate: batches of a step.
    """
    return epoch * -(-batches // accumulate) + batch // accumulate


def steps_ahead(ahead: int, batches: int, accumulate: int) -> int:
    """Return by how many optimizer steps a batch can be ahead at most that is `ahead` batches ahead; see `step_of`."""
    ends = -(-ahead // batches) if batches % accumulate else 0  # of epochs, each with a step of fewer batches
    return -(-ahead // accumulate) + ends


def due(step: int, last: Planning) -> bool:
    """Return whether it is time to plan again.

    Often at first, when little is known of the machine, then twenty times in a run, and often towards its end, where
    what is left is little and must fit.
    """
    wait = min(max(FIRST, last.step), last.total // 20, (last.total - last.step) // 4)
    return step - last.step >= max(1, wait)
