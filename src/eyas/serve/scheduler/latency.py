"""How long a batch takes: two parameters for each worker, learned while serving."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from eyas.errors import UserError

EFFICIENT = 0.97  # of the best throughput: a larger batch than this needs only makes everybody wait
CLIP = 4.0  # one observation counts as no more than this many times too slow or too fast
ANCHOR = 0.02  # weight of the profile's shape, in observations: matters only where a single batch size is ever seen
KEEP = 1 - 1 / 40  # of what was seen, at each batch: after about 40 an observation is forgotten
FLOOR = 1e-7  # seconds; a batch takes some time, whatever a clock says


@dataclass(frozen=True)
class LatencyProfile:
    """What is known before serving: a batch of n takes `base + per_item * n` seconds.

    Attributes:
        base: seconds a batch, whatever its size.
        per_item: seconds an image.
        deviation: relative deviation of single measurements.

    Raises:
        UserError: a number is negative or not finite, or the two times are both zero.
    """

    base: float
    per_item: float
    deviation: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what can't be a latency."""
        values = (self.base, self.per_item, self.deviation)
        if not all(math.isfinite(value) and value >= 0 for value in values) or self.base + self.per_item <= 0:
            raise UserError(f"{self} is not a latency profile.", expected="seconds >= 0, not both 0")

    @classmethod
    def measured(cls, pairs: Iterable[tuple[int, float]]) -> LatencyProfile:
        """Return the profile nearest to measured (batch size, seconds) pairs, by relative least squares.

        Raises:
            UserError: there is no pair, or one is not positive.
        """
        rows = list(pairs)
        if not rows or any(size < 1 or not 0 < seconds < math.inf for size, seconds in rows):
            raise UserError("A latency profile needs measured batch sizes >= 1 and times > 0.", where=f"{rows}")
        sums = [0.0] * 5
        for size, seconds in rows:
            _add(sums, size, seconds, 1 / seconds**2)
        if len({size for size, _ in rows}) == 1:  # nothing tells the two apart: as if no batch gained anything
            return cls(0.0, sums[4] / sums[2])
        base, per_item = non_negative(sums)
        errors = [(seconds / (base + per_item * size) - 1) ** 2 for size, seconds in rows]
        return cls(base, per_item, math.sqrt(sum(errors) / len(errors)))


class LatencyModel:
    """L(n) = a + b n, fitted by non-negative least squares that forget exponentially.

    A table of times by batch size would suffer a winner's curse (the size that was lucky is used ever after), and
    ordinary least squares, clipped, are biased while a single size is seen. Here both parameters are at least zero,
    errors are relative, and where the data do not tell a from b the profile's shape does, rescaled to what was seen.

    Args:
        profile: what to believe at first.
    """

    __slots__ = ("_profile", "_sums", "_variance", "base", "per_item", "safety")

    def __init__(self, profile: LatencyProfile) -> None:
        self._profile = profile
        self._variance = profile.deviation**2
        self._sums = [0.0] * 5  # of w, w n, w n², w y, w n y, with w = 1 / expected²
        for size in (1, 8, 32):
            seconds = profile.base + profile.per_item * size
            _add(self._sums, size, seconds, 1 / seconds**2)
        self.base, self.per_item = profile.base, profile.per_item
        self.safety = 1 + 2 * profile.deviation

    def mean(self, size: int) -> float:
        """Return the expected seconds of a batch of `size`."""
        return self.base + self.per_item * size

    def upper(self, size: int) -> float:
        """Return the seconds that a batch of `size` hardly ever exceeds: the mean and two deviations."""
        return (self.base + self.per_item * size) * self.safety

    def observe(self, size: int, seconds: float) -> None:
        """Learn that a batch of `size` took `seconds`. A hiccup is clipped: it may not poison the model."""
        expected = self.mean(size)
        seconds = min(max(seconds, expected / CLIP, FLOOR), expected * CLIP)
        self._sums = [value * KEEP for value in self._sums]
        _add(self._sums, size, seconds, 1 / expected**2)
        error = seconds / expected - 1
        self._variance = KEEP * self._variance + (1 - KEEP) * error * error
        self._fit()

    def _fit(self) -> None:
        """Solve for a and b, the profile's shape standing in with a small weight for sizes that were not seen."""
        ones, n1, n2, y1, ny = self._sums
        a0, b0 = self._profile.base, self._profile.per_item
        scale = (a0 * y1 + b0 * ny) / (a0 * a0 * ones + 2 * a0 * b0 * n1 + b0 * b0 * n2)
        sums = list(self._sums)
        for size in (1, 32):
            seconds = max(scale * (a0 + b0 * size), FLOOR)
            _add(sums, size, seconds, ANCHOR / seconds**2)
        self.base, self.per_item = non_negative(sums)
        self.safety = 1 + 2 * math.sqrt(self._variance)

    def best_batch(self, limit: float, max_batch: int) -> int:
        """Return the smallest batch with 97 % of the best throughput n / L(n) among those with U(n) <= limit.

        Args:
            limit: seconds that a batch may take, deviation included; a batch of 1 is always allowed.
            max_batch: the largest batch that the worker can run.
        """
        a, b = self.base, self.per_item
        mean = limit / self.safety
        most = max_batch if a + b * max_batch <= mean else int((mean - a) / b + 1e-9) if mean > a and b > 0 else 1
        if most <= 1:
            return 1
        rate = EFFICIENT * most / (a + b * most)  # n / (a + b n) grows with n: the largest batch is the fastest
        return min(max(math.ceil(rate * a / (1 - rate * b) - 1e-9), 1), most)


def _add(sums: list[float], size: int, seconds: float, weight: float) -> None:
    sums[0] += weight
    sums[1] += weight * size
    sums[2] += weight * size * size
    sums[3] += weight * seconds
    sums[4] += weight * size * seconds


def non_negative(sums: list[float]) -> tuple[float, float]:
    """Return the a >= 0 and b >= 0 that minimise the weighted squares of a + b n - y.

    Args:
        sums: sums of w, w n, w n², w y and w n y.
    """
    ones, n1, n2, y1, ny = sums
    determinant = ones * n2 - n1 * n1
    if determinant > 1e-9 * ones * n2:
        a, b = (n2 * y1 - n1 * ny) / determinant, (ones * ny - n1 * y1) / determinant
        if a >= 0 and b >= 0:
            return a, b
    # The minimum lies on an edge: y1²/ones and ny²/n2 are what the two edges take off the sum of squares.
    return (y1 / ones, 0.0) if y1 * y1 * n2 >= ny * ny * ones else (0.0, ny / n2)
