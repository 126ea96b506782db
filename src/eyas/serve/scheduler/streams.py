"""Streams: of each, so many frames run, and at most one waits: the newest."""

from __future__ import annotations

from collections.abc import Hashable

from eyas.serve.scheduler.queues import Entry


class _Stream:
    """One stream with a frame that has not ended."""

    __slots__ = ("in_flight", "waiting")

    def __init__(self) -> None:
        self.in_flight = 0
        self.waiting: Entry | None = None


class Streams:
    """The waiting frame of every stream, and how many of its frames run. Streams with neither are not kept.

    Args:
        limit: frames of a stream that may run at once; its next one is parked meanwhile.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._streams: dict[Hashable, _Stream] = {}

    def waiting(self, stream: Hashable | None) -> Entry | None:
        """Return the frame of a stream that waits, in line or parked; None when there is none or no stream."""
        known = self._streams.get(stream) if stream is not None else None
        return known.waiting if known is not None else None

    def wait(self, stream: Hashable, entry: Entry) -> bool:
        """Take note that a stream's frame waits, and return whether it must be parked until another has landed."""
        known = self._streams.setdefault(stream, _Stream())
        known.waiting = entry
        return known.in_flight >= self._limit

    def leave(self, entry: Entry) -> None:
        """Take note that an entry, a frame or not, ended while it waited."""
        stream = entry.item.stream
        known = self._streams.get(stream) if stream is not None else None
        if known is not None and known.waiting is entry:
            known.waiting = None
            self._forget(stream, known)

    def depart(self, entry: Entry) -> None:
        """Take note that a waiting frame was dispatched."""
        known = self._streams[entry.item.stream]
        known.waiting = None
        known.in_flight += 1

    def land(self, entry: Entry) -> Entry | None:
        """Take note that a running frame has ended, and return the parked frame that may line up now."""
        stream = entry.item.stream
        known = self._streams[stream]
        known.in_flight -= 1
        self._forget(stream, known)
        following = known.waiting
        return following if following is not None and following.parked else None

    def parked(self) -> int:
        """Return how many frames are parked."""
        return sum(known.waiting is not None and known.waiting.parked for known in self._streams.values())

    def _forget(self, stream: Hashable, known: _Stream) -> None:
        """Forget a stream of which nothing waits or runs."""
        if not known.in_flight and known.waiting is None:
            self._streams.pop(stream, None)
