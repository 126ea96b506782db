"""CUDA graphs on a CPU: what PyTorch was asked to do is recorded once, and done again without any of the Python code.

What a graph would get wrong shows here as well: numbers of the host that were burnt in, tensors that are others next
time, values that the host would have to wait for. Capturing does nothing, as on a GPU: what it changes is put back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "unique2", "_unique2", "repeat_interleave"}


class EmulatedGraph:
    """Stands for torch.cuda.CUDAGraph."""

    def __init__(self) -> None:
        self.work: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def replay(self) -> None:
        """Do the recorded operations again, and put the results where they were."""
        with torch.no_grad():
            for function, args, kwargs, old in self.work:
                new = function(*args, **kwargs)
                if any(result.alias_info is not None for result in function._schema.returns):
                    continue  # a view, or the argument itself
                for before, after in zip(tree_leaves(old), tree_leaves(new), strict=True):
                    if isinstance(before, Tensor) and before.data_ptr() != after.data_ptr():
                        before.copy_(after)


class _Recorder(TorchDispatchMode):
    def __init__(self, graph: EmulatedGraph) -> None:
        super().__init__()
        self.graph = graph
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage | None]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function._schema.name.removeprefix("aten::") in WAITS:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        for memory in _memory((args, kwargs)):
            if memory.data_ptr() not in self.before:
                self.before[memory.data_ptr()] = (memory, memory.clone())
        result = function(*args, **kwargs)
        for memory in _memory(result):
            self.before.setdefault(memory.data_ptr(), (memory, None))  # made by the capture itself
        self.graph.work.append((function, args, kwargs, result))
        return result

    def undo(self) -> None:
        """Give all memory that is older than the capture the values that it had."""
        for memory, values in self.before.values():
            if values is not None:
                memory.copy_(values)


def _memory(values: Any) -> list[torch.UntypedStorage]:
    return [value.untyped_storage() for value in tree_leaves(values) if isinstance(value, Tensor)]


@contextlib.contextmanager
def _capture(graph: EmulatedGraph, pool: Any, stream: Any, capture_error_mode: str) -> Iterator[None]:
    assert capture_error_mode == "thread_local"  # loaders pin memory in a thread of their own
    recorder = _Recorder(graph)
    try:
        with recorder:
            yield
    finally:
        recorder.undo()


class _Stream:
    def __init__(self, device: Any = None) -> None:
        """Stand for a stream, of which a CPU has one only."""

    def wait_stream(self, other: _Stream) -> None:
        """Wait for nothing: all is done in its turn."""


def emulate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch.cuda capture and replay what a CPU does."""
    monkeypatch.setattr(torch.cuda, "CUDAGraph", EmulatedGraph)
    monkeypatch.setattr(torch.cuda, "graph", _capture)
    monkeypatch.setattr(torch.cuda, "Stream", _Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: _Stream())
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
