"""What a load showed: goodput, latencies, refusals, and whether the generator itself could keep up."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyas.benchmark.load.generator import TIMED_OUT, Played
from eyas.benchmark.load.http import BROKEN
from eyas.files import write_json
from eyas.machine.processor import Processor
from eyas.renamed import with_old_keys

BUSY = 0.9  # of a core: a generator that takes more is what is being measured
LATE = 0.05  # of the latency goal: a generator that sends later than that, in 1 of 100 requests, spoils the percentiles


@dataclass(frozen=True)
class Step:
    """One load. Rates are requests a second; latencies are milliseconds from the intended start to the answer.

    Attributes:
        load: share of the capacity that was offered; 0 where there is none to compare with.
        offered: rate of the schedule.
        sent: rate at which requests were really sent.
        served: rate of answers.
        good: rate of answers within the latency goal.
        goodput: share of all requests that were answered within the goal.
        p50, p99, p999: latencies of the answered requests; NaN if none was.
        codes: how often each status came; "broken" and "timeout" for no answer.
        requests: how many were sent.
        seconds: length of the schedule.
        lag_p99, lag_max: milliseconds by which the generator sent later than intended.
        busy: share of a core that the generator took.
        limited: whether the generator was the bottleneck: it was too busy, or too late for the goal.
    """

    load: float
    offered: float
    sent: float
    served: float
    good: float
    goodput: float
    p50: float
    p99: float
    p999: float
    codes: Mapping[str, int]
    requests: int
    seconds: float
    lag_p99: float
    lag_max: float
    busy: float
    limited: bool


@dataclass(frozen=True)
class LoadReport:
    """Everything that `eyas bench serve` tells.

    Attributes:
        server: what was asked.
        goal: latency goal in milliseconds.
        arrivals: "poisson" or "bursts".
        capacity: answers a second that the server gave to clients that wait for their answers.
        clients: how many such clients it took; 0 where the capacity was given.
        steps: the loads, in order.
        machine: the processor that the generator ran on.
        images: what was sent, for people.
        created: ISO 8601 time, UTC.
        eyas: version.
    """

    server: str
    goal: float
    arrivals: str
    capacity: float
    clients: int
    steps: tuple[Step, ...]
    machine: Processor
    images: str
    created: str
    eyas: str

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know to read the numbers right."""
        limited = [f"{step.load:.0%}" for step in self.steps if step.limited]
        found = []
        if limited:
            found.append(
                f"the load generator was the bottleneck at {', '.join(limited)}: those rows say little about the server"
            )
        broken = sum(step.codes.get("broken", 0) for step in self.steps)
        if broken:
            found.append(f"{broken} connections broke: the server closed them or could not accept more")
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON: a latency of nobody is None."""
        fields = dataclasses.asdict(self)
        fields["machine"]["instruction_sets"] = dict(self.machine.instruction_sets)
        for step in fields["steps"]:
            for name, value in step.items():
                step[name] = None if isinstance(value, float) and math.isnan(value) else value
        found: dict[str, Any] = with_old_keys(fields | {"notes": list(self.notes)})
        return found

    def save(self, path: str | Path) -> None:
        """Write the report as JSON."""
        write_json(Path(path), self.to_dict())


def summarize(played: Played, goal: float, load: float = 0.0) -> Step:
    """Return what a load showed.

    Args:
        played: its requests.
        goal: latency goal in seconds.
        load: share of the capacity that was offered.
    """
    samples, seconds = played.samples, played.seconds
    latencies = sorted(sample.ended - sample.intended for sample in samples if sample.served)
    good = sum(latency <= goal for latency in latencies)
    lags = sorted(sample.sent - sample.intended for sample in samples)
    last = max((sample.sent for sample in samples), default=0.0)
    lag = percentile(lags, 0.99)
    return Step(
        load=load,
        offered=len(samples) / seconds,
        sent=len(samples) / max(seconds, last),
        served=len(latencies) / seconds,
        good=good / seconds,
        goodput=good / len(samples) if samples else 0.0,
        p50=1e3 * percentile(latencies, 0.5),
        p99=1e3 * percentile(latencies, 0.99),
        p999=1e3 * percentile(latencies, 0.999),
        codes=dict(sorted(Counter(named(sample.status) for sample in samples).items())),
        requests=len(samples),
        seconds=seconds,
        lag_p99=1e3 * lag,
        lag_max=1e3 * percentile(lags, 1.0),
        busy=played.busy,
        limited=played.busy > BUSY or lag > LATE * goal,
    )


def percentile(ascending: Sequence[float], share: float) -> float:
    """Return the least value that at least `share` of the values do not exceed; NaN of nothing."""
    if not ascending:
        return math.nan
    return ascending[max(math.ceil(share * len(ascending)) - 1, 0)]


def named(status: int) -> str:
    """Return a status in a word."""
    return {BROKEN: "broken", TIMED_OUT: "timeout"}.get(status, str(status))
