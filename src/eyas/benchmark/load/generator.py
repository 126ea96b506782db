"""Requests on a schedule (open loop), and requests by clients that wait for their answers (closed loop)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

TIMED_OUT = -1  # in place of a status: no answer within the time that a client waits
PAUSE = 0.01  # seconds after which a client of the closed loop that was refused tries again
REFUSED_FROM = 300  # statuses from here on are no answers

# Sends the request of that number, waits at most so many seconds; returns the status, or raises TimeoutError.
Ask = Callable[[int, float], Awaitable[int]]


@dataclass(frozen=True)
class RequestSample:
    """One request; times in seconds from the start.

    Attributes:
        intended: when it was to be sent. Latency counts from here: what a client waits because the generator or the
            server kept an earlier request waiting is not forgotten (no coordinated omission).
        sent: when it was really sent.
        ended: when the answer was there, or given up.
        status: of the answer; `TIMED_OUT`, or `eyas.benchmark.load.http.BROKEN`.
    """

    intended: float
    sent: float
    ended: float
    status: int

    @property
    def served(self) -> bool:
        """Whether it was answered, and not refused."""
        return 200 <= self.status < REFUSED_FROM


@dataclass(frozen=True)
class Played:
    """What came of a schedule.

    Attributes:
        samples: one for each request.
        seconds: length of the schedule.
        busy: share of a processor core that the generator took while it sent.
    """

    samples: Sequence[RequestSample]
    seconds: float
    busy: float = field(default=0.0)


async def open_loop(ask: Ask, times: Sequence[float], seconds: float, *, patience: float = 10.0) -> Played:
    """Send requests at the given times, however slow the answers, and wait for all of them.

    Args:
        ask: sends one.
        times: seconds from the start, ascending.
        seconds: length of the schedule.
        patience: seconds that a request waits for its answer.
    """
    loop, samples = asyncio.get_running_loop(), list[RequestSample]()
    tasks: set[asyncio.Task[None]] = set()
    start, processor = loop.time(), time.process_time()

    async def one(number: int, intended: float) -> None:
        sent = loop.time() - start
        status = await _asked(ask, number, patience)
        samples.append(RequestSample(intended, sent, loop.time() - start, status))

    for number, intended in enumerate(times):
        delay = start + intended - loop.time()
        if delay > 0:
            await asyncio.sleep(delay)
        task = loop.create_task(one(number, intended))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.sleep(max(start + seconds - loop.time(), 0.0))
    wall, processor = loop.time() - start, time.process_time() - processor
    while tasks:
        await asyncio.wait(tasks)
    return Played(samples, seconds, processor / wall)


async def closed_loop(ask: Ask, clients: int, seconds: float, *, patience: float = 10.0) -> Played:
    """Let clients send one request after the other, each when its last one was answered, for some seconds.

    Args:
        ask: sends one.
        clients: how many there are.
        seconds: how long they go on; what is under way then is awaited and counted.
        patience: seconds that a request waits for its answer.
    """
    loop, samples = asyncio.get_running_loop(), list[RequestSample]()
    start, processor = loop.time(), time.process_time()

    async def client(number: int) -> None:
        while (sent := loop.time() - start) < seconds:
            status = await _asked(ask, number, patience)
            sample = RequestSample(sent, sent, loop.time() - start, status)
            samples.append(sample)
            number += clients
            if not sample.served:
                await asyncio.sleep(PAUSE)

    await asyncio.gather(*map(client, range(clients)))
    wall, processor = loop.time() - start, time.process_time() - processor
    return Played(samples, wall, processor / wall)


async def _asked(ask: Ask, number: int, patience: float) -> int:
    try:
        return await ask(number, patience)
    except TimeoutError:
        return TIMED_OUT
