"""The scheduler's settings."""

from __future__ import annotations

import math
from dataclasses import dataclass

from eyas.errors import UserError
from eyas.serve.scheduler.types import Lane


@dataclass(frozen=True)
class SchedulerConfig:
    """How items are admitted, ordered and grouped. Times in seconds.

    Attributes:
        slo: the latency goal: default deadline of interactive items and frames, from arrival to answer. It also
            limits the batch: one batch may take half of it.
        batch_deadline: default deadline of the batch lane.
        max_batch: the largest batch that any worker runs.
        weights: shares of the lanes interactive, stream and batch while all of them wait.
        max_waiting: items of one lane that may wait; more are refused, whatever their deadlines.
        max_delay: how long an idle worker may hold back a partial batch. 0, work-conserving, is right wherever load
            matters; more can save energy on an accelerator at very low load.
        frames_in_flight: frames of one stream that may run at once. With 1 the answers come in the order of the frames.
        retries: how often an item is run again after its worker died or failed. Repeats run alone, so one poisonous
            item takes nobody else with it.
        memory: batches after which an observed latency is forgotten.
        window: seconds over which utilisation and rates are averaged.

    Raises:
        UserError: a value is out of range.
    """

    slo: float = 0.1
    batch_deadline: float = 60.0
    max_batch: int = 32
    weights: tuple[float, float, float] = (8.0, 4.0, 1.0)
    max_waiting: int = 4096
    max_delay: float = 0.0
    frames_in_flight: int = 1
    retries: int = 1
    memory: float = 40.0
    window: float = 2.0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        least: dict[str, float] = {"max_batch": 1, "max_waiting": 1, "frames_in_flight": 1, "retries": 0, "memory": 2}
        for name, bound in least.items():
            _refuse(vars(self)[name] < bound, name, vars(self)[name], f">= {bound}")
        for name in ("slo", "batch_deadline", "window"):
            _refuse(not 0 < vars(self)[name] < math.inf, name, vars(self)[name], "seconds > 0")
        _refuse(not 0 <= self.max_delay < self.slo, "max_delay", self.max_delay, "0 <= seconds < slo")
        bad = len(self.weights) != len(Lane) or not all(0 < weight < math.inf for weight in self.weights)
        _refuse(bad, "weights", self.weights, "three numbers > 0: interactive, stream, batch")


def _refuse(bad: bool, name: str, value: object, expected: str) -> None:
    """Raise the error for a field's value when it is bad."""
    if bad:
        raise UserError(f"{name}={value} can't be scheduled with.", expected=expected, where=f"SchedulerConfig.{name}")
