"""A GPU in pure Python: memory, streams that work only when waited for, and graphs, as CUDA's runtime has them.

Names, parameters and what is given back are held against `cuda.bindings.runtime` in test_tensorrt_session.py.
"""

from __future__ import annotations

import ctypes
import threading
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

Answer = tuple[Any, ...]
Work = Callable[[], None]
GARBAGE = 0xAB
OK, INVALID, NO_DRIVER, NOT_CAPTURABLE = 0, 1, 35, 901


class Handle:
    """What CUDA gives for a stream or a graph: an object that has a number."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.queue: list[Work] = []
        self.recording: list[Work] | None = None
        self.broken = False

    def __int__(self) -> int:
        return self.number


class FakeCuda:
    """The functions of `cuda.bindings.runtime` that the session calls.

    Args:
        capabilities: of the GPUs, as "8.9".
    """

    cudaStreamNonBlocking = 1
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaDeviceAttr = SimpleNamespace(cudaDevAttrComputeCapabilityMajor=75, cudaDevAttrComputeCapabilityMinor=76)

    def __init__(self, capabilities: tuple[str, ...] = ("8.9",)) -> None:
        self.capabilities = capabilities
        self.calls: Counter[str] = Counter()
        self.memory: dict[int, tuple[Any, int]] = {}  # address -> (buffer, the GPU it lies on, -1 for the host)
        self.handles: dict[int, Handle] = {}
        self.full = False
        self._lock = threading.RLock()
        self._thread = threading.local()
        self._number = 100

    @property
    def device(self) -> int:
        """Return the GPU of the calling thread."""
        return int(vars(self._thread).get("device", 0))

    def stream(self, number: int) -> Handle:
        """Return the stream with a number."""
        return self.handles[number]

    def put(self, stream: Handle, work: Work) -> None:
        """Put work into a stream, or into the graph that it is recording."""
        with self._lock:
            (stream.queue if stream.recording is None else stream.recording).append(work)

    def view(self, address: int, size: int) -> memoryview:
        """Return memory at an address; it must be there."""
        buffer = self.memory[address][0]
        assert size <= len(buffer)
        return memoryview(buffer).cast("B")[:size]

    def cudaGetDeviceCount(self) -> Answer:
        return (OK, len(self.capabilities)) if self.capabilities else (NO_DRIVER, None)

    def cudaGetErrorString(self, error: int) -> Answer:
        return OK, {NO_DRIVER: b"CUDA driver version is insufficient", INVALID: b"invalid argument"}.get(
            error, b"out of memory"
        )

    def cudaGetLastError(self) -> Answer:
        return (OK,)

    def cudaSetDevice(self, device: int) -> Answer:
        self._thread.device = device
        return (OK,)

    def cudaDeviceGetAttribute(self, attr: int, device: int) -> Answer:
        return OK, int(self.capabilities[device].split(".")[attr - 75])

    def cudaMalloc(self, size: int) -> Answer:
        return (2, None) if self.full else (OK, self._allocate(size, self.device))

    def cudaMallocHost(self, size: int) -> Answer:
        return OK, self._allocate(size, -1)

    def _allocate(self, size: int, device: int) -> int:
        with self._lock:
            self.calls["allocated"] += 1
            buffer = (ctypes.c_uint8 * size)(*([GARBAGE] * size))
            address = ctypes.addressof(buffer)
            self.memory[address] = buffer, device
            return address

    def cudaFree(self, devPtr: int) -> Answer:
        assert self.memory[devPtr][1] == self.device
        with self._lock:
            del self.memory[devPtr]
        return (OK,)

    def cudaFreeHost(self, ptr: int) -> Answer:
        assert self.memory[ptr][1] == -1
        with self._lock:
            del self.memory[ptr]
        return (OK,)

    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: int, stream: Handle) -> Answer:
        places = (self.memory[src][1] == -1, self.memory[dst][1] == -1)
        assert places == ((True, False) if kind == 1 else (False, True)), "the wrong way, or not pinned"

        def work() -> None:
            self.view(dst, count)[:] = self.view(src, count)

        self.put(stream, work)
        return (OK,)

    def cudaStreamCreateWithFlags(self, flags: int) -> Answer:
        assert flags == self.cudaStreamNonBlocking
        return OK, self._handle()

    def _handle(self) -> Handle:
        with self._lock:
            self._number += 1
            self.handles[self._number] = Handle(self._number)
            return self.handles[self._number]

    def cudaStreamDestroy(self, stream: Handle) -> Answer:
        assert not stream.queue
        del self.handles[int(stream)]
        return (OK,)

    def cudaStreamSynchronize(self, stream: Handle) -> Answer:
        assert int(stream) in self.handles and stream.recording is None
        while stream.queue:
            stream.queue.pop(0)()
        return (OK,)

    def cudaStreamBeginCapture(self, stream: Handle, mode: int) -> Answer:
        assert stream.recording is None and mode == 1
        stream.recording, stream.broken = [], False
        return (OK,)

    def cudaStreamEndCapture(self, stream: Handle) -> Answer:
        assert stream.recording is not None
        recorded, stream.recording = stream.recording, None
        if stream.broken:
            return NOT_CAPTURABLE, None
        graph = self._handle()
        graph.queue = recorded
        return OK, graph

    def cudaGraphInstantiate(self, graph: Handle, flags: int) -> Answer:
        assert flags == 0
        self.calls["instantiated"] += 1
        ready = self._handle()
        ready.queue = list(graph.queue)
        return OK, ready

    def cudaGraphDestroy(self, graph: Handle) -> Answer:
        del self.handles[int(graph)]
        return (OK,)

    def cudaGraphLaunch(self, graphExec: Handle, stream: Handle) -> Answer:
        self.calls["launched"] += 1
        assert int(graphExec) in self.handles
        for work in graphExec.queue:
            self.put(stream, work)
        return (OK,)

    def cudaGraphExecDestroy(self, graphExec: Handle) -> Answer:
        del self.handles[int(graphExec)]
        return (OK,)
