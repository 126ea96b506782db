"""Ids of images, categories and annotations as COCO files have them: 64-bit integers, larger ones, and text."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence

import numpy as np

from eyas.data.index import MOST_DIGITS
from eyas.types import Id, IntArray


class Ids:
    """A column of ids: an array of 64-bit integers, and a place beside it for the few files that have others.

    Attributes:
        numbers: int64, 0 at the rows in `others`.
        others: row -> an integer beyond 64 bits, or a text.
    """

    def __init__(self, values: Sequence[Id] = ()) -> None:
        self.numbers: array[int] = array("q")
        self.others: dict[int, Id] = {}
        for value in values:
            self.append(value)

    def append(self, value: Id) -> None:
        """Add an id as `plain_id` gives it."""
        try:
            self.numbers.append(value)  # type: ignore[arg-type]
        except (TypeError, OverflowError):
            self.others[len(self.numbers)] = value
            self.numbers.append(0)

    def __len__(self) -> int:
        """Return the number of ids."""
        return len(self.numbers)

    def __getitem__(self, row: int) -> Id:
        """Return the id at a row."""
        return self.others.get(row, self.numbers[row])

    def array(self) -> IntArray:
        """Return int64 [N], zeros where the id is no 64-bit integer."""
        return np.frombuffer(self.numbers, np.int64) if len(self.numbers) else np.zeros(0, np.int64)

    def values(self) -> list[Id]:
        """Return the ids as Python objects."""
        values: list[Id] = list(self.numbers)
        for row, value in self.others.items():
            values[row] = value
        return values

    def twice(self) -> list[tuple[Id, int]]:
        """Return (id, how often) of those that stand more than once."""
        if self.others:
            return [(value, count) for value, count in Counter(self.values()).items() if count > 1]
        values, counts = np.unique(self.array(), return_counts=True)
        return [(int(v), int(c)) for v, c in zip(values[counts > 1], counts[counts > 1], strict=True)]

    def alike(self) -> list[int]:
        """Return the integers that stand in the column as text, too: 1 beside "1"."""
        if not self.others:
            return []
        values = set(self.values())
        return sorted(value for value in values if isinstance(value, int) and str(value) in values)


def places(known: Ids, given: Ids) -> tuple[IntArray, int]:
    """Return (int64 [M], the row in `known` of each of `given`, -1 where there is none; how many differ in type).

    An id that is listed as text and referred to as a number (or the other way round) is found; the number of these is
    returned to be told.
    """
    if not known.others and not given.others:
        numbers, wanted = known.array(), given.array()
        order = np.argsort(numbers, kind="stable")
        found = order[np.minimum(np.searchsorted(numbers[order], wanted), len(numbers) - 1)]
        return np.where(numbers[found] == wanted, found, -1).astype(np.int64), 0
    rows = {value: row for row, value in enumerate(known.values())}
    result = np.empty(len(given), np.int64)
    differ = 0
    for i, value in enumerate(given.values()):
        row = rows.get(value, -1)
        if row < 0:
            row = rows.get(_other_type(value), -1)
            differ += row >= 0
        result[i] = row
    return result, differ


def _other_type(value: Id) -> Id:
    """Return the integer as text, the text as the integer that it writes without leading zeros; else the text."""
    if isinstance(value, int):
        return str(value)
    if value.removeprefix("-").isdecimal() and len(value) <= MOST_DIGITS and str(int(value)) == value:
        return int(value)
    return value
