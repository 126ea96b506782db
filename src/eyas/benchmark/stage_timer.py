"""What a measurement cost: wall time, processor time, and time spent waiting for a processor that others had."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Moment:
    """A reading of the clocks, in seconds.

    Attributes:
        wall: of an arbitrary beginning.
        cpu: that this process has used, all threads together.
        waited: that its threads were ready to run and got no core; None where the system does not tell (Linux does).
    """

    wall: float
    cpu: float
    waited: float | None


@dataclass(frozen=True)
class Cost:
    """What lies between two moments, in seconds; see `Moment`."""

    wall: float
    cpu: float
    waited: float | None

    @property
    def starved(self) -> float | None:
        """Return which part of the processor time that the process asked for it did not get, 0..1."""
        if self.waited is None:
            return None
        wanted = self.cpu + self.waited
        return self.waited / wanted if wanted > 0 else 0.0


def now() -> Moment:
    """Return the clocks as they are."""
    waited = _waited()  # first: reading it takes a tenth of a millisecond, which belongs to nothing that is measured
    return Moment(time.perf_counter(), time.process_time(), waited)


def since(start: Moment) -> Cost:
    """Return what has passed since `start`."""
    cpu = time.process_time() - start.cpu
    wall = time.perf_counter() - start.wall
    end = _waited()
    # A thread that has ended takes its waiting time with it; less than nothing means that.
    waited = None if start.waited is None or end is None else max(0.0, end - start.waited)
    return Cost(wall, cpu, waited)


def _waited() -> float | None:
    """Return how long the threads of this process have waited for a core, from Linux's scheduler."""
    total = 0
    try:
        for task in Path("/proc/self/task").iterdir():
            total += int((task / "schedstat").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return total / 1e9
