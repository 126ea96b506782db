"""Spreading long work on a data set over the cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from eyas.machine.cores import usable_cores
from eyas.progress import track
from eyas.read_ahead import ahead

Item = TypeVar("Item")
Result = TypeVar("Result")


def spread(
    function: Callable[[Item], Result], items: Sequence[Item], text: str, *, workers: int | None = None
) -> Iterator[Result]:
    """Yield function(item) of each item in order, worked out by `workers` threads (one a core if None), behind a bar.

    Args:
        function: called from several threads.
        items: its arguments.
        text: what the progress bar says.
        workers: number of threads.
    """
    threads = workers or usable_cores()
    yield from track(ahead(function, items, 4 * threads, threads), len(items), text)
