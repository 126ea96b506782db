"""TensorRT and TensorRT-RTX as an engine. Written to their documentation; IT HAS NOT RUN ON A GPU YET.

Tensors go by name, execution is asynchronous on one stream, output memory is allocated once a shape, the profile is
the first one that takes the shape, and a shape that comes again is replayed as a CUDA graph.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from eyas.errors import UserError, missing_extra
from eyas.runtime.manifest import Manifest
from eyas.runtime.sessions.chunks import run_in_chunks
from eyas.types import FloatArray, UInt8Array

MODULES: Mapping[str, str] = MappingProxyType({"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"})
INPUT = "images"
OUTPUTS = ("boxes", "scores")
Shape = tuple[int, ...]


@dataclass
class _Bucket:
    """What is kept for one input shape. A captured graph holds its context's scratch memory: each shape has its own.

    Attributes:
        context: with profile, shape and addresses set.
        memory: tensor name -> (device pointer, bytes).
        results: output name -> the host array that it is copied into.
        graph: of the execution; None before it was captured.
        seen: how often the shape came.
    """

    context: Any
    memory: dict[str, tuple[int, int]]
    results: dict[str, FloatArray]
    graph: Any = None
    seen: int = 0


class TensorRtSession:
    """A bundle's model.engine on an NVIDIA GPU. Calls from several threads wait for one another.

    Args:
        bundle_dir: the bundle.
        manifest: its manifest, already verified.
        threads: has no meaning on a GPU.
        device: "auto" or "cuda" (the first GPU), or "cuda:1".

    Raises:
        UserError: the package is not installed, there is no GPU, or the engine is not for this GPU or version.
    """

    def __init__(
        self,
        bundle_dir: Path,
        manifest: Manifest,
        threads: int | None = None,  # noqa: ARG002  # the engines' common signature
        device: str = "auto",
    ) -> None:
        self.name = manifest.target
        trt, self._cuda = _bindings(manifest.target)
        gpu = _device_number(self._cuda, device)
        self._check(self._cuda.cudaSetDevice(gpu))
        self._logger = trt.Logger(trt.Logger.ERROR)
        path = bundle_dir / manifest.entry
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise UserError(
                f"The engine {path.name} can't be opened by {MODULES[self.name]} {trt.__version__} on this GPU.",
                expected="the version, and for TensorRT the kind of GPU, that it was built with",
                where=str(path),
                fix=f"compile the run again on this machine: eyas compile RUN --target {self.name}",
            )
        self._cache = path.with_suffix(".runtime_cache")
        self._config, self._runtime_cache = self._runtime_config()
        self._stream = self._check(self._cuda.cudaStreamCreate())
        self._buckets: dict[Shape, _Bucket] = {}
        self._lock = threading.Lock()
        self._batch = manifest.batch
        self.description = f"{MODULES[self.name]} {trt.__version__} on cuda:{gpu}, {manifest.precision}"

    def run(self, images: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """Return (boxes, scores) of a batch; see `Session.run`."""
        with self._lock:
            return run_in_chunks(self._run, images, self._batch)

    def close(self) -> None:
        """Free the device's memory, and keep what was compiled for this GPU beside the engine."""
        for bucket in self._buckets.values():
            if bucket.graph is not None:
                self._check(self._cuda.cudaGraphExecDestroy(bucket.graph))
            for pointer, _ in bucket.memory.values():
                self._check(self._cuda.cudaFree(pointer))
        self._buckets.clear()
        self._check(self._cuda.cudaStreamDestroy(self._stream))
        if self._runtime_cache is not None:
            with contextlib.suppress(OSError):  # a bundle may lie on a disk that can't be written
                self._cache.write_bytes(bytes(self._runtime_cache.serialize()))

    def _runtime_config(self) -> tuple[Any, Any]:
        """Return TensorRT-RTX's settings of contexts and its cache of what it compiled; (None, None) for TensorRT."""
        try:
            config = self._engine.create_runtime_config()
            cache = config.create_runtime_cache()
        except AttributeError:  # TensorRT has compiled everything at build time
            return None, None
        if self._cache.is_file():
            cache.deserialize(self._cache.read_bytes())
        config.set_runtime_cache(cache)
        return config, cache

    def _run(self, images: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """Run pictures that are as many as the engine takes."""
        bucket = self._buckets.get(images.shape)
        if bucket is None:
            bucket = self._buckets[images.shape] = self._make_bucket(images.shape)
        kinds, copy = self._cuda.cudaMemcpyKind, self._cuda.cudaMemcpyAsync
        pointer, size = bucket.memory[INPUT]
        self._check(copy(pointer, images.ctypes.data, size, kinds.cudaMemcpyHostToDevice, self._stream))
        self._execute(bucket)
        for name, array in bucket.results.items():
            pointer, size = bucket.memory[name]
            self._check(copy(array.ctypes.data, pointer, size, kinds.cudaMemcpyDeviceToHost, self._stream))
        self._check(self._cuda.cudaStreamSynchronize(self._stream))
        return bucket.results["boxes"].copy(), bucket.results["scores"].copy()

    def _execute(self, bucket: _Bucket) -> None:
        """Enqueue the network: plainly the first time, captured the second, replayed from then on."""
        context, bucket.seen = bucket.context, bucket.seen + 1
        if bucket.seen == 2:
            mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
            self._check(self._cuda.cudaStreamBeginCapture(self._stream, mode))
            done = context.execute_async_v3(int(self._stream))
            graph = self._check(self._cuda.cudaStreamEndCapture(self._stream))
            bucket.graph = self._check(self._cuda.cudaGraphInstantiate(graph, 0)) if done else None
        if bucket.graph is not None:
            self._check(self._cuda.cudaGraphLaunch(bucket.graph, self._stream))
        elif not context.execute_async_v3(int(self._stream)):
            raise RuntimeError("TensorRT did not enqueue the network; its log says why")

    def _make_bucket(self, shape: Shape) -> _Bucket:
        """Open a context for a shape and allocate what it needs."""
        engine = self._engine
        context = engine.create_execution_context(*([] if self._config is None else [self._config]))
        context.set_optimization_profile_async(self._profile_of(shape), int(self._stream))
        context.set_input_shape(INPUT, shape)
        results = {name: np.empty(tuple(context.get_tensor_shape(name)), np.float32) for name in OUTPUTS}
        sizes = {INPUT: int(np.prod(shape)), **{name: array.nbytes for name, array in results.items()}}
        memory = {name: (int(self._check(self._cuda.cudaMalloc(size))), size) for name, size in sizes.items()}
        for name, (pointer, _) in memory.items():
            context.set_tensor_address(name, pointer)
        return _Bucket(context, memory, results)

    def _profile_of(self, shape: Shape) -> int:
        """Return the first profile that takes the shape; builders put the narrowest first.

        Raises:
            UserError: none does.
        """
        for index in range(self._engine.num_optimization_profiles):
            least, _, greatest = self._engine.get_tensor_profile_shape(INPUT, index)
            if all(low <= each <= high for low, each, high in zip(least, shape, greatest, strict=True)):
                return index
        raise UserError(f"The engine was not built for pictures of shape {shape}.", fix="compile with that range")

    def _check(self, answer: tuple[Any, ...]) -> Any:
        """Return what a CUDA call gave; raise if it failed."""
        return checked(self._cuda, answer)


def checked(cuda: Any, answer: tuple[Any, ...]) -> Any:
    """Return the value of a CUDA call's answer (error, value...), None if it has none.

    Raises:
        RuntimeError: the call failed.
    """
    error, *values = answer
    if int(error) != 0:
        raise RuntimeError(f"CUDA: {cuda.cudaGetErrorString(error)[1].decode()}")
    return values[0] if values else None


def _bindings(target: str) -> tuple[Any, Any]:
    """Return TensorRT's bindings and CUDA's.

    Raises:
        UserError: one of them is not installed.
    """
    try:
        return import_module(MODULES[target]), import_module("cuda.bindings.runtime")
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or MODULES[target], "tensorrt") from None


def _device_number(cuda: Any, device: str) -> int:
    """Return the number of the GPU that the word means.

    Raises:
        UserError: there is no such GPU here.
    """
    error, num = cuda.cudaGetDeviceCount()
    if int(error) != 0 or num < 1:
        raise UserError(
            f"There is no NVIDIA GPU here that can be used: {cuda.cudaGetErrorString(error)[1].decode()}.",
            where="device",
            fix="run it on a machine with a GPU and its driver, or compile for --target onnx or openvino",
        )
    known = {"auto": 0, "cuda": 0, **{f"cuda:{index}": index for index in range(num)}}
    if device not in known:
        raise UserError(f"TensorRT has no device '{device}'.", where="device", expected="one of " + ", ".join(known))
    return known[device]
