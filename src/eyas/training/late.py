"""Values of each step, read some steps late, so that the GPU never waits for the host to have looked at them."""

from __future__ import annotations

from collections import deque
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
MOST_ON_THE_WAY = 8  # steps that the host may be ahead of what it has seen


class _OnTheWay(NamedTuple, Generic[T]):
    values: Tensor
    there: torch.cuda.Event | None  # None: reading the values waits by itself
    note: T


class LateValues(Generic[T]):
    """Brings small tensors to the host in the order of the steps; from a GPU without waiting."""

    def __init__(self) -> None:
        self._queue: deque[_OnTheWay[T]] = deque()

    def put(self, values: Tensor, note: T) -> None:
        """Send the present values of a tensor on their way, with what is to be known of them then."""
        if not values.is_cuda:
            self._queue.append(_OnTheWay(values.clone(), None, note))
            return
        host = torch.empty_like(values, device="cpu", pin_memory=True).copy_(values, non_blocking=True)
        there = torch.cuda.Event()  # type: ignore[no-untyped-call]
        there.record()
        self._queue.append(_OnTheWay(host, there, note))

    def take(self, *, everything: bool = False) -> list[tuple[list[float], T]]:
        """Return what has come and its notes, oldest first; wait for `everything`, or where too much is on its way."""
        taken: list[tuple[list[float], T]] = []
        while self._queue:
            values, there, note = self._queue[0]
            if there is not None and not there.query():  # type: ignore[no-untyped-call]
                if not everything and len(self._queue) <= MOST_ON_THE_WAY:
                    break
                there.synchronize()
            self._queue.popleft()
            taken.append((values.tolist(), note))
        return taken
