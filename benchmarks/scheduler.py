"""The scheduler beside simple ones, in virtual time: goodput and the time that answers take, by offered load.

    python -m benchmarks.scheduler [--seconds 10]

One worker, batches of n take 5 + 0.5 n ms (an accelerator) with 5 % noise, at most 32, and an answer is worth something
within 50 ms. Prints the table of `scheduler.md` and keeps the numbers in `results/scheduler.json`. Also measures the
processor time that the scheduler itself takes of each request, with about 100 of them waiting.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from tests.serve.simulator import Policy, Result, Simulator, bursts, items, linear, poisson

from eyas.serve.scheduler.latency import LatencyProfile
from eyas.serve.scheduler.scheduler import Scheduler
from eyas.serve.scheduler.types import Admitted, Decision, Item, Lane, Outcome, Reason, ScheduledBatch, SchedulerEvent

SLO, MOST = 0.05, 32
BASE, PER_ITEM = 0.005, 0.0005
LOADS = {"800": 800, "1200": 1200, "1400": 1400, "1600": 1600, "2000": 2000, "3000": 3000, "1200 in bursts": -1200}


class Simple:
    """A queue in front of one worker that admits everybody.

    Args:
        take: called with (now, the queue) to take the next batch out of it, oldest first; may drop from its head by
            taking out and not returning.
        learn: called with (batch size, seconds) after each batch.
    """

    def __init__(
        self, take: Callable[[float, deque[float]], int], learn: Callable[[int, float], None] = lambda size, took: None
    ) -> None:
        self._take = take
        self._learn = learn
        self._queue: deque[Item] = deque()
        self._times: deque[float] = deque()  # arrivals of those in the queue
        self._running: tuple[float, ...] | None = None
        self._events: list[SchedulerEvent] = []

    def submit(self, now: float, item: Item) -> Decision:
        """Admit."""
        self._queue.append(item)
        self._times.append(now)
        return Admitted(now)

    def next_batch(self, now: float, worker: str) -> ScheduledBatch | None:
        """Let the policy take."""
        before = len(self._times)
        arrived = list(self._times)
        size = self._take(now, self._times)
        dropped = before - len(self._times)
        for index in range(dropped):
            item = self._queue.popleft()
            self._events.append(SchedulerEvent(item, Outcome.DROPPED, Reason.DEADLINE, arrived[index], now, False))
        if not size:
            return None
        self._running = tuple(self._times.popleft() for _ in range(size))
        return ScheduledBatch(worker, "m", tuple(self._queue.popleft() for _ in range(size)), now, now)

    def finished(self, now: float, worker: str, batch: ScheduledBatch, ok: bool = True) -> bool:
        """Answer."""
        assert self._running is not None
        self._learn(len(self._running), now - batch.started)
        for item, arrived in zip(batch.items, self._running, strict=True):
            late = now > arrived + SLO
            self._events.append(SchedulerEvent(item, Outcome.SERVED, Reason.NONE, arrived, now, late))
        self._running = None
        return True

    def expire(self, now: float) -> None:
        """Nothing expires."""

    def take_events(self) -> list[SchedulerEvent]:
        """Return what ended."""
        events, self._events = self._events, []
        return events

    def ready(self) -> list[str]:
        """Return the worker when it is idle and somebody waits."""
        return ["w"] if self._running is None and self._queue else []

    def wake_at(self) -> float | None:
        """Never."""
        return None


def single() -> Policy:
    """Return first come, first served, without batches."""
    return Simple(lambda now, times: 1)


def greedy() -> Policy:
    """Return a greedy batcher as Triton's is: all that waits, up to the largest batch."""
    return Simple(lambda now, times: min(len(times), MOST))


def clipper() -> Policy:
    """Return Clipper's AIMD: one more while batches stay within the goal, a tenth fewer when one does not."""
    limit = [1.0]

    def learn(size: int, took: float) -> None:
        limit[0] = max(limit[0] * 0.9, 1.0) if took > SLO else min(limit[0] + (size >= int(limit[0])), MOST)

    return Simple(lambda now, times: min(len(times), int(limit[0])), learn)


def earliest_deadline() -> Policy:
    """Return earliest deadline first: drop who can't make it alone, then the largest batch that saves the head."""

    def take(now: float, times: deque[float]) -> int:
        while times and now + BASE + PER_ITEM > times[0] + SLO:
            times.popleft()
        if not times:
            return 0
        room = int((times[0] + SLO - now - BASE) / PER_ITEM + 1e-9)
        return max(min(len(times), MOST, room), 1)

    return Simple(take)


def ours(wrong: float = 1.0) -> Policy:
    """Return our scheduler, with a profile that is wrong by a factor."""
    made = Scheduler()
    made.register("m", "w", LatencyProfile(BASE * wrong, PER_ITEM * wrong), slo=SLO, max_batch=MOST)
    return made


POLICIES: dict[str, Callable[[], Policy]] = {
    "one at a time": single,
    "greedy (as Triton)": greedy,
    "AIMD (as Clipper)": clipper,
    "EDF, largest batch that saves the head": earliest_deadline,
    "**Eyas**": ours,
    "Eyas, profile 40 % too fast": lambda: ours(0.6),
    "Eyas, profile 60 % too slow": lambda: ours(1.6),
}


def play(policy: Policy, load: float, seconds: float) -> Result:
    """Run a policy under a load; a negative one comes in bursts."""
    times = poisson(load, seconds) if load > 0 else bursts(-load, seconds)
    return Simulator(policy, linear(BASE, PER_ITEM)).run(items(times))


def cost(waiting: int = 100, rounds: int = 200) -> float:
    """Return microseconds of processor time a request, from submission to event, with so many waiting."""
    made = Scheduler()
    made.register("m", "w", LatencyProfile(BASE, PER_ITEM), slo=1.0, max_batch=20)
    now, number = 0.0, 0
    taken = 0.0
    for step in range(rounds):
        fresh = [Item(number + index, "m", lane=Lane.INTERACTIVE) for index in range(waiting if step == 0 else 20)]
        number += len(fresh)
        start = time.process_time()
        for item in fresh:
            made.submit(now, item)
        batch = made.next_batch(now, "w")
        now += 0.015
        if batch is not None:
            made.finished(now, "w", batch)
        made.take_events()
        taken += time.process_time() - start
    return 1e6 * taken / number


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="virtual seconds a cell")
    seconds = parser.parse_args().seconds
    cells: dict[str, dict[str, tuple[float, float]]] = {}
    print("| policy | " + " | ".join(LOADS) + " |\n|---" * 1 + "|---:" * len(LOADS) + "|")
    for name, make in POLICIES.items():
        row = {}
        for label, load in LOADS.items():
            result = play(make(), load, seconds)
            row[label] = (round(100 * result.goodput(), 1), round(1000 * result.percentile(0.99), 1))
        cells[name] = row
        print(f"| {name} | " + " | ".join(f"{good} ({late:.0f})" for good, late in row.values()) + " |", flush=True)
    best = MOST / (BASE + PER_ITEM * MOST)
    print(
        "| ceiling: full batches without a pause | "
        + " | ".join(f"{min(100, 100 * best / load):.1f}" if load > 0 else "" for load in LOADS.values())
        + " |"
    )
    micro = min(cost() for _ in range(5))
    print(f"\n{micro:.1f} microseconds of processor time a request")
    kept = {"seconds": seconds, "goodput_percent_and_p99_ms": cells, "microseconds_a_request": round(micro, 1)}
    path = Path(__file__).parent / "results" / "scheduler.json"
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
