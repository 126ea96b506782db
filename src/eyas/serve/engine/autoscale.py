"""How many workers there should be: from demand and queue delay, with hysteresis. A state machine without a clock."""

from __future__ import annotations

import math
from dataclasses import dataclass

from eyas.errors import UserError
from eyas.serve.scheduler.statistics import Stats


@dataclass(frozen=True)
class ScaleConfig:
    """When to add workers and when to take some away.

    Attributes:
        minimum, maximum: bounds of the number of workers.
        high: demand a worker above which workers are added.
        target: demand a worker that is aimed at then.
        low: demand a worker that is aimed at when workers are taken away: the distance to `high` is the hysteresis.
        queue_delay: seconds in the queue above which a worker is added, whatever the demand; about half the latency
            goal.
        up_after, down_after: seconds for which there must have been a reason. Down is slow: a worker that is missing
            costs answers, one too many only costs power.

    Raises:
        UserError: a value is out of range.
    """

    minimum: int = 1
    maximum: int = 8
    high: float = 0.85
    target: float = 0.7
    low: float = 0.5
    queue_delay: float = 0.05
    up_after: float = 1.0
    down_after: float = 30.0

    def __post_init__(self) -> None:
        """Refuse bounds that contradict each other."""
        if not 1 <= self.minimum <= self.maximum:
            raise UserError(
                f"{self.minimum} to {self.maximum} workers is not a range.", expected="1 <= minimum <= maximum"
            )
        if not 0 < self.low < self.target < self.high <= 1:
            raise UserError(f"{self} has no hysteresis.", expected="0 < low < target < high <= 1")
        if not (self.queue_delay > 0 and self.up_after >= 0 and self.down_after >= 0):
            raise UserError(f"{self} has an invalid time.", expected="queue_delay > 0, the others >= 0")


@dataclass(frozen=True)
class Signal:
    """What the decision is made from.

    Attributes:
        workers: how many there are, those that are starting included.
        starting: how many of them do not serve yet.
        demand: how many workers would be busy without a pause with what is asked, refusals included, in full batches.
            Plain utilisation would not do: a greedy worker is nearly always busy, with small batches.
        queue_delay: seconds from admission to dispatch.
    """

    workers: int
    starting: int
    demand: float
    queue_delay: float


def signal(stats: Stats, starting: int = 0) -> Signal:
    """Return the signal of a scheduler all of whose workers are alike.

    Args:
        stats: its numbers.
        starting: workers that have been started and are not registered yet.
    """
    workers = len(stats.workers)
    demand = 0.0
    for model in stats.models.values():
        if model.capacity > 0:
            demand += (model.dispatch_rate + model.refusal_rate) / model.capacity * model.workers
    delays = [model.queue_delay for model in stats.models.values()]
    return Signal(workers + starting, starting, demand, max(delays, default=0.0))


class Autoscaler:
    """Turns signals into a number of workers.

    Args:
        config: bounds, thresholds, times.
    """

    def __init__(self, config: ScaleConfig | None = None) -> None:
        self.config = config or ScaleConfig()
        self._since = 0.0
        self._wanted = 0  # upwards the latest wish, downwards the highest since then
        self._direction = 0

    def decide(self, now: float, signal: Signal) -> int:
        """Return how many workers there should be; call it every second or so.

        Args:
            now: clock time.
            signal: the state of things.
        """
        config = self.config
        workers = signal.workers
        if not config.minimum <= workers <= config.maximum:
            return self._settle(min(max(workers, config.minimum), config.maximum))
        wanted = min(max(self._wish(signal), config.minimum), config.maximum)
        direction = (wanted > workers) - (wanted < workers)
        if direction == 0:
            return self._settle(workers)
        if direction != self._direction:
            self._direction, self._since, self._wanted = direction, now, wanted
        self._wanted = wanted if direction > 0 else max(self._wanted, wanted)
        if now - self._since >= (config.up_after if direction > 0 else config.down_after):
            return self._settle(self._wanted)
        return workers

    def _wish(self, signal: Signal) -> int:
        """Return how many workers the signal alone asks for."""
        config, workers = self.config, signal.workers
        if signal.demand > config.high * workers:
            return math.ceil(signal.demand / config.target)
        if signal.queue_delay > config.queue_delay:
            return workers if signal.starting else workers + 1
        return min(math.ceil(signal.demand / config.low), workers)

    def _settle(self, workers: int) -> int:
        """Forget the reasons so far and return the number."""
        self._direction = self._wanted = 0
        return workers
