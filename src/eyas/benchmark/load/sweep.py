"""The measurement: find what the server can do, then offer it from a tenth to twice of that."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from eyas.benchmark.load.arrivals import Kind, arrivals
from eyas.benchmark.load.generator import Ask, Played, closed_loop, open_loop
from eyas.benchmark.load.http import Client, Target
from eyas.benchmark.load.report import LoadReport, Step, summarize
from eyas.errors import UserError
from eyas.machine.processor import processor

LOADS = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.15, 1.5, 2.0)
MOST_CLIENTS = 128
GAIN = 1.05  # more clients are tried as long as they give this much more
DESCRIPTORS = 1 << 16  # a server that answers late has thousands of requests open, each on its own connection

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class SweepPlan:
    """What is measured.

    Attributes:
        goal: latency goal in seconds.
        loads: shares of the capacity to offer, in order.
        seconds: length of each load.
        arrivals: how requests come.
        capacity: answers a second; None finds it out.
        patience: seconds after which a client gives up.
        seed: of the schedules.

    Raises:
        UserError: a number is out of range.
    """

    goal: float = 0.25
    loads: Sequence[float] = LOADS
    seconds: float = 10.0
    arrivals: Kind = "poisson"
    capacity: float | None = None
    patience: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        numbers = {"goal": self.goal, "seconds": self.seconds, "patience": self.patience, "capacity": self.capacity}
        for name, value in numbers.items():
            if value is not None and not 0 < value < 1e6:
                raise UserError(f"{name} is {value}.", expected="a number above 0", where=name)
        if not self.loads or not all(0 < load <= 100 for load in self.loads):
            raise UserError(
                "The loads must be fractions of the capacity.", expected="numbers above 0, such as 0.5", where="loads"
            )


async def bench_serve(
    target: Target, plan: SweepPlan, *, server: str = "", images: str = "", progress: Progress = lambda *_: None
) -> LoadReport:
    """Measure a server.

    Args:
        target: where it is, and what it is sent.
        plan: what is measured.
        server: what it is, for people; its URL by default.
        images: what is sent, for people.
        progress: called with what is done, how much there is to do, and what comes now.

    Raises:
        UserError: the server can't be reached, or answers nothing.
    """
    allow_connections()
    client, total = Client(target), len(plan.loads) + 1
    try:
        await reach(client, target.url, plan.patience)
        progress(0, total, "capacity")
        clients = 0
        capacity = plan.capacity
        if capacity is None:
            capacity, clients = await find_capacity(client.ask, max(plan.seconds / 4, 0.05), plan.patience)
            if not capacity:
                raise UserError("The server answered no request.", where=target.url, fix="check the server's log")
        steps = []
        for number, load in enumerate(plan.loads):
            progress(number + 1, total, f"{load:.0%}")
            steps.append(await offer(client.ask, load, capacity, plan))
    finally:
        await client.close()
    return LoadReport(
        server=server or target.url,
        goal=1e3 * plan.goal,
        arrivals=plan.arrivals,
        capacity=capacity,
        clients=clients,
        steps=tuple(steps),
        machine=processor(),
        images=images or f"{len(target.bodies)} bodies",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        eyas=version("eyas"),
    )


async def reach(client: Client, url: str, patience: float) -> None:
    """Send one request, to see that there is a server that answers it.

    Raises:
        UserError: nobody answers, or it is refused.
    """
    try:
        status = await client.ask(0, max(patience, 10.0))
    except TimeoutError:
        raise UserError("The server does not answer.", where=url) from None
    if not status:
        raise UserError(
            "There is no server at this address.", where=url, fix="start one with 'eyas serve', or give a bundle"
        )
    if status >= 300 and status != 429:
        told = {401: "it needs a key: --header 'X-API-Key: KEY'", 404: "check the path"}
        raise UserError(
            f"The server answered with status {status}.", where=url, fix=told.get(status, "check the server's log")
        )


async def find_capacity(ask: Ask, seconds: float, patience: float) -> tuple[float, int]:
    """Return the most answers a second to clients that wait for their answers, and how many clients it took."""
    best, found, clients = 0.0, 1, 1
    misses = 0
    while clients <= MOST_CLIENTS and misses < 2:  # one miss may be a machine that was busy with something else
        step = summarize(await closed_loop(ask, clients, seconds, patience=patience), patience)
        misses = 0 if step.served > GAIN * best else misses + 1
        if step.served > best:
            best, found = step.served, clients
        clients *= 2
    return best, found


async def offer(ask: Ask, load: float, capacity: float, plan: SweepPlan) -> Step:
    """Offer a share of the capacity and return what came of it."""
    times = arrivals(plan.arrivals, load * capacity, plan.seconds, seed=plan.seed + round(1000 * load))
    played: Played = await open_loop(ask, times, plan.seconds, patience=plan.patience)
    return summarize(played, plan.goal, load)


def allow_connections() -> None:
    """Let this process have as many connections as the system grants."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = DESCRIPTORS if hard < 0 else min(DESCRIPTORS, hard)
        if 0 <= soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def measure(
    target: Target, plan: SweepPlan, *, server: str = "", images: str = "", progress: Progress = lambda *_: None
) -> LoadReport:
    """Measure a server, from outside of any event loop; see `bench_serve`."""
    return asyncio.run(bench_serve(target, plan, server=server, images=images, progress=progress))
