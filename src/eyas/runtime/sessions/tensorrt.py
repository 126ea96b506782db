"""TensorRT and TensorRT-RTX as an engine. Written to their documentation; IT HAS NOT RUN ON A GPU YET.

Tensors go by name, execution is asynchronous, memory on both sides is allocated once a shape, the profile is the first
one that takes the shape, and what comes again is replayed as a CUDA graph: TensorRT's is captured here, copies
included; TensorRT-RTX captures its own, since only it knows when the kernels for a shape are compiled.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from eyas.artifacts.manifest import Manifest
from eyas.errors import UserError, missing_extra
from eyas.files import atomic_path
from eyas.runtime.sessions import cuda as cuda_module
from eyas.runtime.sessions.base import INPUT, describe
from eyas.runtime.sessions.batching import run_in_chunks
from eyas.runtime.sessions.cache import cache_folder
from eyas.runtime.sessions.contract import check_graph
from eyas.runtime.sessions.cuda import Bindings, Cuda, capability, check_capability, device_number
from eyas.runtime.sessions.tensorrt_slot import PendingSlot, Shape, Slot
from eyas.types import FloatArray, UInt8Array

MODULES: Mapping[str, str] = MappingProxyType({"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"})
_DTYPES: Mapping[str, str] = MappingProxyType({"UINT8": "uint8", "FLOAT": "float32"})
KEPT = 16  # slots that lie idle: each holds a context, and with it memory of the GPU


class TensorRtSession:
    """A bundle's model.engine on an NVIDIA GPU; calls from several threads overlap.

    Args:
        bundle_dir: the bundle.
        manifest: its manifest, already verified.
        threads: has no meaning on a GPU.
        device: "auto" or "cuda" (the first GPU), or "cuda:1".
        cache: whether TensorRT-RTX keeps the kernels that it compiles for this GPU in `cache_folder`.

    Raises:
        UserError: there is no GPU, the engine is for others, the package is not installed, or it can't open the file.
    """

    def __init__(
        self,
        bundle_dir: Path,
        manifest: Manifest,
        threads: int | None = None,  # noqa: ARG002  # the engines' common signature
        device: str = "auto",
        *,
        cache: bool = True,
    ) -> None:
        self.name = manifest.target
        path = bundle_dir / manifest.entry
        runtime = cuda_module.runtime(manifest.compute_capabilities, str(path))
        gpu = device_number(runtime, device)
        found = capability(runtime, gpu)
        check_capability([found], manifest.compute_capabilities, str(path))
        trt = bindings(manifest.target)
        self._cuda = Cuda(runtime, gpu)
        self._cuda.use()
        self._trt = trt
        self._runtime, self._engine = open_engine(trt, path, manifest.target)
        check_tensors(self._engine, manifest, path)
        stream_weights(self._engine)
        name = f"{manifest.files[manifest.entry][:16]}-{found}-{trt.__version__}.runtime_cache"
        folder = cache_folder("tensorrt") if cache else None
        self._cache_file = folder / name if folder else None
        self._cache: Any = None
        self._config = self._new_config()  # of TensorRT-RTX; None for TensorRT, which compiled everything at build time
        self._idle: dict[Shape, list[Slot]] = {}  # the shape that was used last comes last
        self._slots: set[Slot] = set()
        self._lock = threading.Lock()
        self._batch = manifest.batch
        self.description = describe(
            f"{MODULES[self.name]} {trt.__version__}",
            f"cuda:{gpu} (compute capability {found})",
            None,
            manifest.precision,
        )

    def run(self, images: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """Return (boxes, scores) of a batch; see `Session.run`."""
        return run_in_chunks(lambda part: self.submit(part).result(), images, self._batch)

    def submit(self, images: UInt8Array) -> PendingSlot:
        """Start an inference and return at once; the array may be written again then.

        Each one under way holds memory of the GPU until its `result` was taken.

        Args:
            images: uint8 [N, H, W, 3], N within the bundle's batch range.

        Raises:
            UserError: the engine was not built for that shape.
        """
        self._cuda.use()
        slot = self._take(images.shape)
        try:
            slot.start(images)
        except BaseException:
            self._drop(slot)
            raise
        return PendingSlot(slot, self._give)

    def close(self) -> None:
        """Free the device's memory; the kernels that were compiled for this GPU are kept."""
        self._cuda.use()
        with self._lock:
            slots, self._slots = self._slots, set()
            self._idle.clear()
            for slot in slots:
                slot.free()
            self._keep_kernels()

    def _take(self, shape: Shape) -> Slot:
        """Return a slot for the shape: an idle one, or a new one."""
        with self._lock:
            idle = self._idle.pop(shape, [])
            slot = idle.pop() if idle else self._make(shape)
            if idle:
                self._idle[shape] = idle
            self._slots.add(slot)
            return slot

    def _make(self, shape: Shape) -> Slot:
        config = self._new_config()
        context = self._engine.create_execution_context(**({} if config is None else {"runtime_config": config}))
        if context is None:
            raise RuntimeError("TensorRT created no execution context; the GPU's memory may be full")
        return Slot(self._cuda, context, shape, self._profile_of(shape), captures=self._config is None)

    def _give(self, slot: Slot) -> None:
        """Take an idle slot back; drop that of the shape that was not asked for longest if there are too many."""
        self._cuda.use()
        with self._lock:
            if slot not in self._slots:
                return  # the session was closed
            if slot.runs == 1:  # the first time, kernels were compiled
                self._keep_kernels()
            self._idle[slot.shape] = [*self._idle.pop(slot.shape, []), slot]
            surplus: list[Slot] = []
            while sum(map(len, self._idle.values())) > KEPT:
                oldest = next(iter(self._idle))
                surplus.append(self._idle[oldest].pop(0))
                if not self._idle[oldest]:
                    del self._idle[oldest]
            self._slots -= set(surplus)
        for one in surplus:
            one.free()

    def _drop(self, slot: Slot) -> None:
        with self._lock:
            self._slots.discard(slot)
        slot.free()

    def _new_config(self) -> Any:
        """Return TensorRT-RTX's settings for a context: its own CUDA graphs, and the cache; None for TensorRT."""
        try:
            config = self._engine.create_runtime_config()
            create = config.create_runtime_cache  # TensorRT has settings too, without this
            config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        except AttributeError:
            return None
        if self._cache is None:
            self._cache = self._open_cache(create)
        config.set_runtime_cache(self._cache)
        return config

    def _open_cache(self, create: Callable[[], Any]) -> Any:
        """Return the cache of compiled kernels, with what was kept of it; the library refuses what does not fit."""
        cache = create()
        if self._cache_file is not None and self._cache_file.is_file():
            cache.deserialize(self._cache_file.read_bytes())
        return cache

    def _keep_kernels(self) -> None:
        """Write the cache of compiled kernels into its file; a disk that is full costs the next start time only."""
        if self._cache is not None and self._cache_file is not None:
            with contextlib.suppress(OSError, UserError), atomic_path(self._cache_file) as temporary:
                temporary.write_bytes(bytes(self._cache.serialize()))

    def _profile_of(self, shape: Shape) -> int:
        """Return the first profile that takes the shape; builders put the narrowest first.

        Raises:
            UserError: none does.
        """
        for index in range(self._engine.num_optimization_profiles):
            least, _, greatest = self._engine.get_tensor_profile_shape(INPUT, index)
            if all(low <= each <= high for low, each, high in zip(least, shape, greatest, strict=True)):
                return index
        raise UserError(f"The engine was not built for images of shape {shape}.", fix="compile with that range")


def bindings(target: str) -> Bindings:
    """Return TensorRT's or TensorRT-RTX's bindings.

    Raises:
        UserError: they are not installed.
    """
    try:
        return import_module(MODULES[target])
    except ModuleNotFoundError:
        raise missing_package(target) from None


def missing_package(target: str) -> UserError:
    """Return the error for TensorRT or TensorRT-RTX that is not installed."""
    if target == "tensorrt-rtx":
        return missing_extra(MODULES[target], "tensorrt")
    return UserError(
        "This needs the package 'tensorrt', which is not installed.",
        fix="pip install tensorrt cuda-bindings; on a Jetson, TensorRT comes with JetPack",
    )


def open_engine(trt: Bindings, path: Path, target: str) -> tuple[Any, Any]:
    """Return (runtime, engine) of a file; the runtime must live as long as the engine.

    Raises:
        UserError: the library can't open the file on this GPU.
    """
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    data = path.read_bytes()
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        why = invalid(trt, runtime, data)
        raise UserError(
            f"The engine {path.name} can't be opened by {MODULES[target]} {trt.__version__} on this GPU"
            + (f": {why}." if why else "."),
            expected="the TensorRT version, and for TensorRT the GPU type, that it was built with",
            where=str(path),
            fix=f"compile the run again on this machine: eyas compile RUN --target {target}",
        )
    return runtime, engine


def invalid(trt: Bindings, runtime: Any, data: bytes) -> str:
    """Return why TensorRT-RTX finds an engine invalid, "" where it does not say."""
    try:
        found = int(runtime.get_engine_validity(data)[1])
        reasons = trt.EngineInvalidityDiagnostics.__members__
    except AttributeError:  # TensorRT has no such question
        return ""
    return ", ".join(name.lower().replace("_", " ") for name, flag in reasons.items() if found & int(flag))


def check_tensors(engine: Any, manifest: Manifest, path: Path) -> None:
    """Refuse an engine that does not take and give what its bundle's manifest says."""
    sides: dict[str, dict[str, tuple[str, list[int | None]]]] = {"INPUT": {}, "OUTPUT": {}}
    for name in (engine.get_tensor_name(index) for index in range(engine.num_io_tensors)):
        dtype = engine.get_tensor_dtype(name).name
        shape = [None if side < 0 else side for side in engine.get_tensor_shape(name)]
        mode = "INPUT" if engine.get_tensor_mode(name).name == "INPUT" else "OUTPUT"
        sides[mode][name] = _DTYPES.get(dtype, dtype.lower()), shape
    check_graph(sides["INPUT"], sides["OUTPUT"], manifest, path)


def stream_weights(engine: Any) -> None:
    """Leave as many weights in the host's memory as the library advises, where the engine was built for that."""
    with contextlib.suppress(AttributeError):  # older versions
        if engine.streamable_weights_size > 0:
            engine.weight_streaming_budget_v2 = engine.get_weight_streaming_automatic_budget()
