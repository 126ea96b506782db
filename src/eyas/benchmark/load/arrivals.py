"""When requests arrive: schedules that are made beforehand, seeded, so that every server sees the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Literal, get_args

from eyas.errors import UserError

Kind = Literal["poisson", "bursts"]
BURST_SECONDS = 0.25  # mean length of a burst, and of the pause after it


def arrivals(kind: Kind, rate: float, seconds: float, seed: int = 0) -> list[float]:
    """Return the seconds from the start at which requests arrive, ascending.

    Args:
        kind: "poisson": independent of one another. "bursts": Poisson at twice the rate in bursts of random length,
            0.25 s on average, and nothing in pauses as long.
        rate: requests a second on average.
        seconds: length of the schedule.
        seed: of the random numbers.

    Raises:
        UserError: the kind is not known, or a number is not positive.
    """
    if kind not in get_args(Kind):
        raise UserError(
            f"There is no arrival process '{kind}'.", expected=" or ".join(get_args(Kind)), where="arrivals"
        )
    if not (0 < rate < 1e6 and 0 < seconds < 1e6):
        raise UserError(
            f"{rate} requests per second for {seconds} s is not a valid load.", expected="two numbers above 0"
        )
    random = Random(seed)
    return list(_poisson(random, rate, 0.0, seconds) if kind == "poisson" else _bursts(random, rate, seconds))


def _poisson(random: Random, rate: float, start: float, end: float) -> Iterator[float]:
    now = start + random.expovariate(rate)
    while now < end:
        yield now
        now += random.expovariate(rate)


def _bursts(random: Random, rate: float, seconds: float) -> Iterator[float]:
    start = 0.0
    while start < seconds:
        end = start + random.expovariate(1 / BURST_SECONDS)
        yield from _poisson(random, 2 * rate, start, min(end, seconds))
        start = end + random.expovariate(1 / BURST_SECONDS)
