"""NVIDIA's GPUs through `cuda.bindings.runtime`: which one is here, what fits it, memory, streams and graphs."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from eyas.errors import UserError, missing_extra
from eyas.machine.gpus import gpus

# CUDA's functions give (error, value...); the bindings are compiled code without annotations.
Bindings = Any
Handle = Any
NO_GPU = "there is no NVIDIA GPU here"


def runtime(listed: Sequence[str] = (), where: str = "") -> Bindings:
    """Return CUDA's runtime library, when there is a GPU that it can use.

    Args:
        listed: compute capabilities that an engine was built for.
        where: the engine's file.

    Raises:
        UserError: there is no GPU, its driver doesn't work, or the package is not installed; or no GPU fits, where
            only the driver's own program can tell.
    """
    try:
        cuda = import_module("cuda.bindings.runtime")
    except ModuleNotFoundError:
        here = gpus()
        if not here:
            raise _no_gpu(NO_GPU) from None
        check_capability([one.compute_capability for one in here], listed, where)
        raise missing_extra("cuda-bindings", "tensorrt") from None
    error, num = cuda.cudaGetDeviceCount()
    if int(error) == 0 and num:
        return cuda
    words = cuda.cudaGetErrorString(error)[1].decode()
    here = gpus()
    if not here:
        raise _no_gpu(f"{NO_GPU} that can be used ({words})")
    raise UserError(
        f"The {here[0].name} in this machine can't be used: {words}.",
        where=f"driver {here[0].driver}",
        fix="install a newer driver, or an older cuda-bindings",
    )


def _no_gpu(problem: str) -> UserError:
    return UserError(
        f"{problem[0].upper()}{problem[1:]}, and a TensorRT engine needs one.",
        where="device",
        fix="run it on a machine with a GPU and its driver, or compile the run for --target onnx or openvino",
    )


def why_not(listed: Sequence[str]) -> str:
    """Return why an engine for the listed compute capabilities can't run on this machine's first GPU, "" if it can.

    Raises:
        UserError: a GPU is here, and its driver doesn't work, or the package is not installed.
    """
    try:
        cuda = runtime()
    except UserError as error:
        if gpus():
            raise
        return error.problem.partition(", and")[0]
    found = capability(cuda)
    if runs_on(found, listed):
        return ""
    return f"The GPU has compute capability {found}, but the engine is for {' or '.join(listed)}"


def device_number(cuda: Bindings, device: str) -> int:
    """Return the number of the GPU that the word means: "auto", "cuda" or "cuda:1".

    Raises:
        UserError: there is no such GPU here.
    """
    num = cuda.cudaGetDeviceCount()[1]
    known = {"auto": 0, "cuda": 0, **{f"cuda:{index}": index for index in range(num)}}
    if device not in known:
        raise UserError(f"TensorRT has no device '{device}'.", where="device", expected="one of " + ", ".join(known))
    return known[device]


def capability(cuda: Bindings, device: int = 0) -> str:
    """Return the compute capability of a GPU, as "8.9"."""
    kinds = cuda.cudaDeviceAttr
    parts = (kinds.cudaDevAttrComputeCapabilityMajor, kinds.cudaDevAttrComputeCapabilityMinor)
    return ".".join(str(checked(cuda, cuda.cudaDeviceGetAttribute(part, device))) for part in parts)


def runs_on(found: str, listed: Sequence[str]) -> bool:
    """Return whether an engine for the listed compute capabilities runs on a GPU of capability `found`.

    Args:
        found: as "8.9".
        listed: as "8.9" for that one alone, or "12.0+" for that one and all newer ones; none at all fits every GPU.
    """
    own = _numbers(found)
    return not listed or any(own >= _numbers(one[:-1]) if one[-1] == "+" else own == _numbers(one) for one in listed)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def check_capability(found: Sequence[str], listed: Sequence[str], where: str) -> None:
    """Refuse an engine for other GPUs than those that are here.

    Args:
        found: the compute capabilities of the GPUs that it may run on.
        listed: those that the engine was built for.
        where: the engine's file.

    Raises:
        UserError: none of the GPUs fits.
    """
    if not any(runs_on(one, listed) for one in found):
        raise UserError(
            f"The engine was built for GPUs of compute capability {' or '.join(listed)}; this one has "
            f"{' and '.join(dict.fromkeys(found))}.",
            where=where,
            fix="compile the run again for this GPU: --target tensorrt here, or --target tensorrt-rtx "
            f"--option compute_capabilities={found[0]} (not for data-centre cards of 9.0 and 10.0)",
        )


def checked(cuda: Bindings, answer: tuple[Any, ...]) -> Any:
    """Return the value of a CUDA call's answer (error, value...), None if it has none.

    Raises:
        RuntimeError: the call failed.
    """
    error, *values = answer
    if int(error) != 0:
        raise RuntimeError(f"CUDA: {cuda.cudaGetErrorString(error)[1].decode()}")
    return values[0] if values else None


class Cuda:
    """One GPU: memory, streams and graphs; every call raises a RuntimeError where CUDA reports an error.

    Args:
        runtime: what `runtime()` returned.
        device: the GPU's number.
    """

    def __init__(self, runtime: Bindings, device: int) -> None:
        self.runtime = runtime
        self.device = device

    def use(self) -> None:
        """Make this GPU the calling thread's own: CUDA remembers it thread by thread."""
        self._check(self.runtime.cudaSetDevice(self.device))

    def allocate(self, size: int) -> int:
        """Return the address of `size` bytes of the GPU's memory."""
        return int(self._check(self.runtime.cudaMalloc(size)))

    def free(self, address: int) -> None:
        """Give memory of the GPU back."""
        self._check(self.runtime.cudaFree(address))

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> tuple[int, npt.NDArray[Any]]:
        """Return (address, array) of host memory that the GPU reads and writes itself, without a copy in between."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        address = int(self._check(self.runtime.cudaMallocHost(size)))
        return address, np.frombuffer(memoryview((ctypes.c_uint8 * size).from_address(address)), dtype).reshape(shape)

    def free_pinned(self, address: int) -> None:
        """Give pinned memory back."""
        self._check(self.runtime.cudaFreeHost(address))

    def to_device(self, target: int, source: int, size: int, stream: Handle) -> None:
        """Put a copy from pinned memory to the GPU into the stream."""
        kind = self.runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._check(self.runtime.cudaMemcpyAsync(target, source, size, kind, stream))

    def to_host(self, target: int, source: int, size: int, stream: Handle) -> None:
        """Put a copy from the GPU to pinned memory into the stream."""
        kind = self.runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._check(self.runtime.cudaMemcpyAsync(target, source, size, kind, stream))

    def stream(self) -> Handle:
        """Return a new stream, which does not wait for the default one."""
        return self._check(self.runtime.cudaStreamCreateWithFlags(self.runtime.cudaStreamNonBlocking))

    def wait(self, stream: Handle) -> None:
        """Return when all that was put into the stream is done."""
        self._check(self.runtime.cudaStreamSynchronize(stream))

    def free_stream(self, stream: Handle) -> None:
        """Give a stream back."""
        self._check(self.runtime.cudaStreamDestroy(stream))

    def capture(self, work: Callable[[], None], stream: Handle) -> Handle | None:
        """Return what `work` puts into the stream as a graph that can be launched; nothing of it is done yet.

        None where it can't be captured; the stream is usable as before then.
        """
        mode = self.runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._check(self.runtime.cudaStreamBeginCapture(stream, mode))
        try:
            work()
            possible = True
        except RuntimeError:
            possible = False
        error, graph = self.runtime.cudaStreamEndCapture(stream)
        if int(error) != 0:
            self.runtime.cudaGetLastError()  # forgets it
            return None
        try:
            return self._check(self.runtime.cudaGraphInstantiate(graph, 0)) if possible else None
        finally:
            self._check(self.runtime.cudaGraphDestroy(graph))

    def launch(self, graph: Handle, stream: Handle) -> None:
        """Put all of a captured graph into the stream."""
        self._check(self.runtime.cudaGraphLaunch(graph, stream))

    def free_graph(self, graph: Handle) -> None:
        """Give a graph back."""
        self._check(self.runtime.cudaGraphExecDestroy(graph))

    def _check(self, answer: tuple[Any, ...]) -> Any:
        return checked(self.runtime, answer)
