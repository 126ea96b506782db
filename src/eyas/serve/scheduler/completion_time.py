"""When the request at a place in the queue will be done, given several workers that pull batches."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

Server = tuple[float, int, float]  # free in seconds, requests a batch, seconds a batch


def finish_after(position: int, servers: Sequence[Server]) -> float:
    """Return in how many seconds the request at `position` (1 is next) is done when each worker pulls full batches.

    Full batches, because later arrivals will fill the one that the request goes into: the time of the batch as it
    stands now would admit too many. The cost does not grow with the position: whole rounds are counted at once.

    Args:
        position: its place in the queue, from 1.
        servers: for each worker the seconds until it is free, its batch, and the seconds of one.
    """
    if len(servers) == 1:
        free, batch, seconds = servers[0]
        return free - (-position // batch) * seconds
    before = _no_later_than(position, servers)
    starts, taken = [], 0
    for free, batch, seconds in servers:
        done = max(math.ceil((before - free) / seconds) - 1, 0)
        taken += done * batch
        starts.append((free + done * seconds, seconds, batch))
    heapq.heapify(starts)
    while True:
        start, seconds, batch = starts[0]
        taken += batch
        if taken >= position:
            return start + seconds
        heapq.heapreplace(starts, (start + seconds, seconds, batch))


def _no_later_than(position: int, servers: Sequence[Server]) -> float:
    """Return a time before which the request's batch does not start: requests flow like water, a batch ahead."""
    now, rate, done = 0.0, 0.0, 0.0
    for begin, batch, seconds in sorted((free - seconds, batch, seconds) for free, batch, seconds in servers):
        if rate > 0:
            if done + rate * (begin - now) >= position:
                break
            done += rate * (begin - now)
        now = begin
        rate += batch / seconds
    return now + (position - done) / rate


def less_spread(answer: float, servers: Sequence[Server], safety: Sequence[float]) -> float:
    """Return when a request is done at the latest to expect, given that batches deviate independently of each other.

    Each server's seconds hold a margin for a slow batch. Of several batches in a row not all are slow: their margins
    together grow with the root of their number, not with the number.

    Args:
        answer: seconds until it is done if every batch took as long as the servers say.
        servers: as for `finish_after`.
        safety: of each, its seconds over what a batch takes on average.
    """
    count = len(servers)
    seconds = sum(server[2] for server in servers) / count
    margin = seconds - sum(server[2] / each for server, each in zip(servers, safety, strict=True)) / count
    batches = (answer - min(server[0] for server in servers)) / seconds
    return answer - max(batches - math.sqrt(max(batches, 1.0)), 0.0) * margin
