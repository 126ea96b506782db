"""A bounded queue between two threads that can be ended from either side and may drop what waits too long."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """Nothing more will come, or nobody will take more."""


class Channel(Generic[T]):
    """A queue for one writer and one reader.

    Args:
        capacity: how many entries may wait.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: deque[T] = deque()
        self._changed = threading.Condition()
        self._finished = False
        self._cancelled = False

    def put(self, entry: T, droppable: Callable[[T], bool] | None = None) -> None:
        """Add an entry, waiting for room if need be.

        Args:
            entry: what to add.
            droppable: when full, the oldest entry for which this is true gives way instead of the writer waiting.

        Raises:
            Closed: the reader has gone.
        """
        with self._changed:
            if droppable is not None and len(self._entries) >= self._capacity:
                stale = next((old for old in self._entries if droppable(old)), None)
                self._entries = deque(old for old in self._entries if old is not stale)
            self._changed.wait_for(lambda: self._cancelled or len(self._entries) < self._capacity)
            if self._cancelled:
                raise Closed
            self._entries.append(entry)
            self._changed.notify_all()

    def get(self) -> T:
        """Return the oldest entry, waiting for one if need be.

        Raises:
            Closed: the writer has finished and nothing is left, or the channel was cancelled.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._cancelled or self._finished or bool(self._entries))
            if self._cancelled or not self._entries:
                raise Closed
            entry = self._entries.popleft()
            self._changed.notify_all()
            return entry

    def waiting(self) -> int:
        """Return how many entries can be had without waiting."""
        with self._changed:
            return len(self._entries)

    def finish(self) -> None:
        """Say, as the writer, that nothing more comes; what waits can still be had."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """Say, as the reader, that no more is wanted; the writer's next `put` raises."""
        with self._changed:
            self._cancelled = True
            self._entries.clear()
            self._changed.notify_all()
