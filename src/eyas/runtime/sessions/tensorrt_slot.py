"""One inference of TensorRT at a time, for one input shape: everything it needs is made once and used again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from eyas.runtime.sessions.base import INPUT, OUTPUTS
from eyas.runtime.sessions.cuda import Cuda
from eyas.types import FloatArray, UInt8Array

Shape = tuple[int, ...]
# Tensor -> its type, in TensorRT's words.
TENSORS: Mapping[str, str] = MappingProxyType({INPUT: "UINT8", **dict.fromkeys(OUTPUTS, "FLOAT")})
_DTYPES: Mapping[str, type[np.generic]] = MappingProxyType({"UINT8": np.uint8, "FLOAT": np.float32})


class Slot:
    """A context with profile, shape and addresses set, its memory on both sides, a stream, and a graph of it all.

    Args:
        cuda: the GPU.
        context: a new execution context; a captured graph holds its scratch memory, so no two slots share one.
        shape: of the images, [N, H, W, 3].
        profile: the number of the engine's profile that takes it.
        captures: whether to capture a CUDA graph, once a first run has made everything that is made late.
    """

    def __init__(self, cuda: Cuda, context: Any, shape: Shape, profile: int, *, captures: bool) -> None:
        self.shape = shape
        self.runs = 0
        self._cuda = cuda
        self._context = context
        self._captures = captures
        self._graph: Any = None
        self._device: dict[str, int] = {}
        self._pinned: dict[str, int] = {}
        self._host: dict[str, Any] = {}
        self._stream = cuda.stream()
        try:
            self._prepare(profile)
        except BaseException:
            self.free()
            raise

    def _prepare(self, profile: int) -> None:
        """Set profile, shape and addresses, and allocate memory."""
        context = self._context
        done = context.set_optimization_profile_async(profile, int(self._stream))
        if not (done and context.set_input_shape(INPUT, self.shape)):
            raise RuntimeError(f"TensorRT rejects images of shape {self.shape}; see its log")
        missing = context.infer_shapes()
        if missing:
            raise RuntimeError(f"TensorRT does not know the shape of {', '.join(missing)}")
        for name, kind in TENSORS.items():
            shape, dtype = tuple(context.get_tensor_shape(name)), _DTYPES[kind]
            if min(shape) < 1:
                raise RuntimeError(f"the shape of '{name}' depends on the image: {shape}")
            self._pinned[name], self._host[name] = self._cuda.pinned(shape, dtype)
            self._device[name] = self._cuda.allocate(math.prod(shape) * np.dtype(dtype).itemsize)
            if not context.set_tensor_address(name, self._device[name]):
                raise RuntimeError(f"TensorRT rejects the address for '{name}'")

    def start(self, images: UInt8Array) -> None:
        """Take a copy of the images and start the inference: plainly at first, then as a captured graph."""
        np.copyto(self._host[INPUT], images)
        if self._captures and self.runs == 1:
            self._graph = self._cuda.capture(self._enqueue, self._stream)
        if self._graph is None:
            self._enqueue()
        else:
            self._cuda.launch(self._graph, self._stream)
        self.runs += 1

    def _enqueue(self) -> None:
        """Put copy, network and copies back into the stream."""
        for name in TENSORS:
            if name == INPUT:
                self._cuda.to_device(self._device[name], self._pinned[name], self._host[name].nbytes, self._stream)
                if not self._context.execute_async_v3(int(self._stream)):
                    raise RuntimeError("TensorRT did not enqueue the network; see its log")
            else:
                self._cuda.to_host(self._pinned[name], self._device[name], self._host[name].nbytes, self._stream)

    def finish(self) -> tuple[FloatArray, FloatArray]:
        """Wait for the inference and return copies of (boxes, scores)."""
        if not self._host:
            raise RuntimeError("the session was closed before its result was read")
        self._cuda.wait(self._stream)
        return self._host[OUTPUTS[0]].copy(), self._host[OUTPUTS[1]].copy()

    def free(self) -> None:
        """Wait for what is under way, and give everything back."""
        self._cuda.wait(self._stream)
        if self._graph is not None:
            self._cuda.free_graph(self._graph)
        self._context = None  # before the memory that it points to
        for address in self._device.values():
            self._cuda.free(address)
        self._host.clear()
        for address in self._pinned.values():
            self._cuda.free_pinned(address)
        self._device.clear()
        self._pinned.clear()
        self._cuda.free_stream(self._stream)


class PendingSlot:
    """An inference under way, from `TensorRtSession.submit`; `result` waits for it and may be called once."""

    def __init__(self, slot: Slot, give: Callable[[Slot], None]) -> None:
        self._slot: Slot | None = slot
        self._give = give

    def result(self) -> tuple[FloatArray, FloatArray]:
        """Return (boxes, scores), see `Session.run`.

        Raises:
            RuntimeError: it was taken before.
        """
        slot, self._slot = self._slot, None
        if slot is None:
            raise RuntimeError("the result was already read")
        found = slot.finish()
        self._give(slot)
        return found
