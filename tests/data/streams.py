"""Stands in for CUDA's streams and events: work that is put on a stream is done only when something waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch


class Event:
    """A place in a stream's work."""

    def __init__(self, stream: Stream, place: int) -> None:
        self.stream, self.place = stream, place


class Stream:
    """A queue of work."""

    def __init__(self, *_: object) -> None:
        self.work: list[Callable[[], object]] = []
        self.done = 0

    def record_event(self) -> Event:
        """Return an event for the work up to here."""
        return Event(self, len(self.work))

    def wait_event(self, event: Event) -> None:
        """Do what the event stands for: whoever works on this stream has it behind them."""
        while event.stream.done < event.place:
            event.stream.work[event.stream.done]()
            event.stream.done += 1


class FakeCuda:
    """One device whose copies lie zeroed until their stream was waited for.

    Attributes:
        current: what the trainer works on.
        devices: what threads have chosen as theirs.
        recorded: (address of the memory, stream) of each `record_stream`.
        pinned: how many tensors were page-locked.
        threads: names of the threads that copied.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.current = Stream()
        self.devices: list[torch.device] = []
        self.recorded: list[tuple[int, object]] = []
        self.pinned = 0
        self.threads: set[str] = set()
        self._chosen = threading.local()
        self._to = torch.Tensor.to
        patch.setattr(torch.cuda, "Stream", Stream)
        patch.setattr(torch.cuda, "stream", self._entered)
        patch.setattr(torch.cuda, "current_stream", lambda _=None: self.current)
        patch.setattr(torch.cuda, "set_device", self.devices.append)
        patch.setattr(torch.Tensor, "pin_memory", lambda tensor: self._pin(tensor))
        patch.setattr(torch.Tensor, "to", lambda tensor, *args, **options: self._moved(tensor, *args, **options))
        patch.setattr(torch.Tensor, "record_stream", lambda t, s: self.recorded.append((t.data_ptr(), s)))

    @contextmanager
    def _entered(self, stream: Stream) -> Iterator[None]:
        self._chosen.stream = stream
        yield
        self._chosen.stream = self.current

    def _pin(self, tensor: torch.Tensor) -> torch.Tensor:
        self.pinned += 1
        return tensor.clone()

    def _moved(self, tensor: torch.Tensor, device: torch.device, *, non_blocking: bool = False) -> torch.Tensor:
        if torch.device(device).type != "cuda":
            return self._to(tensor, device, non_blocking=non_blocking)
        assert non_blocking, "a copy that the host waits for"
        copy = torch.zeros_like(tensor)
        self.threads.add(threading.current_thread().name)
        self._chosen.stream.work.append(lambda: copy.copy_(tensor))
        return copy
