"""Replays work on a GPU as CUDA graphs, and goes on without where that can't be done."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch

from eyas.text import printable

WARM_UP = 3  # calls before a capture: libraries choose their kernels and allocate their workspaces in them
MOST = 64  # graphs: one takes a few MB of the GPU beside the memory that they share


@dataclass
class _Work:
    """One function: how often it was called, and its graph once there is one."""

    calls: int = 0
    graph: torch.cuda.CUDAGraph | None = None


class CudaGraphs:
    """Calls functions of static tensors, each from its fourth call on by replaying a CUDA graph of it.

    The first calls are real ones, on the stream that is captured later, so nothing is done twice and nothing has to be
    undone. All graphs share one pool of memory: they are replayed one after another, and none reads what another left
    in it. A function may be replayed if it reads and writes only tensors that stay where they are, has no shape that
    depends on their values, and does not wait for the device (https://docs.pytorch.org/docs/stable/notes/cuda.html).

    Args:
        device: the GPU.
        tell: is told once, in a line, why there will be no more graphs; the calls go on without.

    Attributes:
        why: that line, "" while all is well.
    """

    def __init__(self, device: torch.device, tell: Callable[[str], None]) -> None:
        self.device = device
        self.why = ""
        self._tell = tell
        self._work: dict[Hashable, _Work] = {}
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    @property
    def captured(self) -> int:
        """Return how many graphs there are."""
        return sum(work.graph is not None for work in self._work.values())

    def __call__(self, key: Hashable, function: Callable[[], None]) -> None:
        """Call a function, which is always the same one for a key, or replay it."""
        work = self._work.setdefault(key, _Work())
        work.calls += 1
        if work.graph is None and work.calls > WARM_UP and not self.why:
            work.graph = self._capture(function)
        if work.graph is not None:
            work.graph.replay()
        else:
            self._call(function)

    def _call(self, function: Callable[[], None]) -> None:
        """Call a function, if need be in the place of the graphs, whose memory is kept from it."""
        try:
            self._call_on_stream(function)
            return
        except torch.cuda.OutOfMemoryError:
            if not self.captured:
                raise
        # Only here is what the failed call held let go of: its frames belong to the error.
        for work in self._work.values():
            work.graph = None
        torch.cuda.empty_cache()
        self._give_up("the GPU has too little memory for them and for steps of other shapes")
        self._call_on_stream(function)

    def _call_on_stream(self, function: Callable[[], None]) -> None:
        """Call a function on the stream of the captures, in its turn."""
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                function()
        finally:
            current.wait_stream(self._stream)

    def _capture(self, function: Callable[[], None]) -> torch.cuda.CUDAGraph | None:
        """Return a graph of the function, whose work is not done by that, or None if it can't be captured."""
        if self.captured >= MOST:
            self._give_up(f"there are {MOST} of them, one for each image size and number of boxes")
            return None
        graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream(self.device)
        try:
            # Threads that fetch and pin batches meanwhile call CUDA too: only this thread is held to the rules.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                function()
        except torch.cuda.OutOfMemoryError:
            self._give_up("the GPU has no memory left for another one")
        except Exception as error:  # PyTorch, a library, the network or the loss: each refuses in its own way
            self._give_up(_cause(error))
        else:
            return graph
        torch.cuda.set_stream(current)  # a capture that fails at its end leaves its own stream
        return None

    def _give_up(self, why: str) -> None:
        self.why = f"no more CUDA graphs of the training step, which continues without: {why}"
        self._tell(self.why)


def _cause(error: BaseException) -> str:
    """Return what went wrong first, in a line: the end of a capture that was broken off only says that it was."""
    while error.__context__ is not None:
        error = error.__context__
    text = printable(str(error)).strip()
    return text.splitlines()[0] if text else type(error).__name__
