"""Progress bars of long work on datasets, and spreading it over processes."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")
Result = TypeVar("Result")

_FEW = 64  # below this a pool costs more than it brings


def track(items: Iterable[Item], total: int, text: str) -> Iterator[Item]:
    """Yield the items while a bar on stderr shows how many are done; it vanishes at the end, and without a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield from progress.track(items, total=total, description=text)


def spread(
    function: Callable[[Item], Result], items: Sequence[Item], text: str, *, workers: int | None = None
) -> Iterator[Result]:
    """Yield function(item) of each item in order, worked out by several processes, behind a progress bar.

    Args:
        function: a module-level function (it is sent to other processes).
        items: its arguments.
        text: what the progress bar says.
        workers: number of processes; as many as this process may use cores if None, none if 1.
    """
    count = workers if workers is not None else usable_cores()
    if count <= 1 or len(items) < _FEW:
        yield from track(map(function, items), len(items), text)
        return
    # Forking is unsafe once libraries run threads (OpenCV, torch); a fork server starts clean and is quick after that.
    context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    with ProcessPoolExecutor(count, mp_context=context) as pool:
        chunk = max(1, min(32, len(items) // (count * 4)))
        yield from track(pool.map(function, items, chunksize=chunk), len(items), text)


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
