"""Work that threads do before its results are wanted, in order: reading and decoding images, above all.

Decoding, resizing and encoding images release Python's lock, so threads use all cores; measured on two, they were a
quarter faster than processes and need no pickling.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice, repeat
from pathlib import Path
from typing import TypeVar

from eyas.decode import read_image
from eyas.errors import UserError
from eyas.types import UInt8Array

Item = TypeVar("Item")
Result = TypeVar("Result")

READERS = 2  # threads that read and decode; more than a detector needs to be kept busy on a CPU


def ahead(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int = READERS, depth: int | None = None
) -> Iterator[Result]:
    """Yield function(item) of each item in order, worked out by threads.

    Args:
        function: called from several threads; what it raises is raised here, in its place.
        items: its arguments, which may have no end.
        threads: how many.
        depth: how many items are begun, at most, before they are wanted; None for four a thread.
    """
    order = iter(items)
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="eyas-read")
    try:
        waiting.extend(pool.submit(function, item) for item in islice(order, depth or 4 * threads))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(order, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def prefetched(items: Iterator[Item], depth: int) -> Iterator[Item]:
    """Yield the items, which are made one after another in a thread, at most `depth` before they are wanted."""
    end = object()
    with closing(ahead(lambda _: next(items, end), repeat(None), 1, depth)) as made:  # type: ignore[type-var]
        for item in made:
            if item is end:
                return
            yield item  # type: ignore[misc]


def read_images(paths: Iterable[Path], depth: int) -> Iterator[UInt8Array | UserError]:
    """Yield each image, uint8 RGB [H, W, 3], or why it can't be read, in order; `depth` are read ahead."""
    return ahead(_read, paths, depth=depth)


def _read(path: Path) -> UInt8Array | UserError:
    try:
        return read_image(path)
    except UserError as error:
        return error
