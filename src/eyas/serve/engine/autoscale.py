"""How many workers there should be: from demand and queue delay, with hysteresis. A state machine without a clock."""

from __future__ import annotations

import math
from dataclasses import dataclass

from eyas.errors import UserError

# Demand a worker: above the first workers are added, so many that it comes to the second; they are taken away as far
# as it stays below the third.
HIGH, TARGET, LOW = 0.85, 0.7, 0.5


@dataclass(frozen=True)
class ScaleConfig:
    """When to add workers and when to take some away.

    Attributes:
        minimum, maximum: bounds of the number of workers.
        queue_delay: seconds in the queue above which a worker is added, whatever the demand; about half the latency
            goal.
        up_after, down_after: seconds for which there must have been a reason. Down is slow: a worker that is missing
            costs answers, one too many only costs power.

    Raises:
        UserError: a value is out of range.
    """

    minimum: int = 1
    maximum: int = 8
    queue_delay: float = 0.05
    up_after: float = 1.0
    down_after: float = 30.0

    def __post_init__(self) -> None:
        """Refuse bounds that contradict each other."""
        if not 1 <= self.minimum <= self.maximum:
            raise UserError(
                f"{self.minimum} to {self.maximum} workers is not a range.", expected="1 <= minimum <= maximum"
            )
        if not (self.queue_delay > 0 and self.up_after >= 0 and self.down_after >= 0):
            raise UserError(f"{self} has an invalid time.", expected="queue_delay > 0, the others >= 0")


@dataclass(frozen=True)
class Signal:
    """What the decision is made from.

    Attributes:
        workers: how many there are, those that are starting included.
        starting: how many of them do not serve yet.
        demand: how many workers would be busy without a pause; see `ModelStats`.
        queue_delay: seconds from admission to dispatch.
    """

    workers: int
    starting: int
    demand: float
    queue_delay: float


class Autoscaler:
    """Turns signals into a number of workers.

    Args:
        config: bounds, thresholds, times.
    """

    def __init__(self, config: ScaleConfig) -> None:
        self.config = config
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
        config, workers = self.config, signal.workers
        if signal.demand > HIGH * workers:
            return math.ceil(signal.demand / TARGET)
        if signal.queue_delay > config.queue_delay:
            return workers if signal.starting else workers + 1
        return min(math.ceil(signal.demand / LOW), workers)

    def _settle(self, workers: int) -> int:
        self._direction = self._wanted = 0
        return workers
