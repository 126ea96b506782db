"""TensorRT and TensorRT-RTX in pure Python, on `FakeCuda`: they refuse what the real ones refuse.

The network's "boxes" [N, 2, 4] are the mean of each image (plus the box's number), its "scores" [N, 2, 1] the first
byte. Names and parameters are held against the real bindings in test_tensorrt_session.py.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
from tests.runtime.fake_cuda import FakeCuda

Shape = tuple[int, ...]
Profile = tuple[Shape, Shape, Shape]
DTYPES = {"images": "UINT8", "boxes": "FLOAT", "scores": "FLOAT"}


class FakeTensorRt:
    """The package. What a version lacks is missing here too: TensorRT has no runtime cache and no graphs of its own.

    Args:
        cuda: the GPU.
        profiles: of the engines that are opened, each (least, best, greatest).
        rtx: whether it is TensorRT-RTX.
    """

    __version__ = "1.2.3"

    def __init__(self, cuda: FakeCuda, profiles: list[Profile], *, rtx: bool = False) -> None:
        self.cuda = cuda
        self.profiles = profiles
        self.rtx = rtx
        self.opens = True
        self.tensors = dict(DTYPES)
        self.capturable = True
        self.streamable = 0
        self.kept = b""  # what a runtime cache must hold to be taken
        self.engines: list[ICudaEngine] = []
        self.Logger = Logger
        if rtx:
            self.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
            self.EngineInvalidityDiagnostics = SimpleNamespace(
                __members__={"VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2, "OLD_CUDA_DRIVER": 4}
            )

    def Runtime(self, logger: Any) -> Any:
        return (RtxRuntime if self.rtx else Runtime)(self)


class Logger:
    ERROR = 1

    def __init__(self, min_severity: int) -> None:
        self.min_severity = min_severity


class Runtime:
    def __init__(self, trt: FakeTensorRt) -> None:
        self.trt = trt

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        if not self.trt.opens:
            return None
        self.trt.engines.append((RtxEngine if self.trt.rtx else ICudaEngine)(self.trt))
        return self.trt.engines[-1]


class RtxRuntime(Runtime):
    def get_engine_validity(self, buffer: bytes) -> tuple[str, int]:
        return "INVALID", 1 | 2


class ICudaEngine:
    def __init__(self, trt: FakeTensorRt) -> None:
        self.trt = trt
        self.device = trt.cuda.device
        self.contexts = 0
        self.streamable_weights_size = trt.streamable
        self.weight_streaming_budget_v2 = trt.streamable
        self.num_io_tensors = len(trt.tensors)
        self.num_optimization_profiles = len(trt.profiles)

    def get_tensor_name(self, index: int) -> str:
        return list(self.trt.tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return SimpleNamespace(name="INPUT" if name == "images" else "OUTPUT")

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.trt.tensors[name])

    def get_tensor_shape(self, name: str) -> Shape:
        ranges = zip(*(shape for profile in self.trt.profiles for shape in profile), strict=True)
        batch, *sides, colours = (each[0] if len(set(each)) == 1 else -1 for each in ranges)
        return {"images": (batch, *sides, colours), "boxes": (batch, 2, 4), "scores": (batch, 2, 1)}[name]

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Shape]:
        assert name == "images"
        return list(self.trt.profiles[profile_index])

    def get_weight_streaming_automatic_budget(self) -> int:
        return self.trt.streamable // 2

    def create_execution_context(self) -> IExecutionContext:
        self.contexts += 1
        return IExecutionContext(self)


class RtxEngine(ICudaEngine):
    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig(self.trt)

    def create_execution_context(self, runtime_config: IRuntimeConfig | None = None) -> IExecutionContext:
        assert runtime_config is not None and runtime_config.cuda_graph_strategy == "whole"
        assert runtime_config.cache is not None
        self.contexts += 1
        runtime_config.cache.compiled += 1
        return IExecutionContext(self)


class IRuntimeConfig:
    def __init__(self, trt: FakeTensorRt) -> None:
        self.trt = trt
        self.cuda_graph_strategy = "disabled"
        self.cache: IRuntimeCache | None = None

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache(self.trt)

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self.cache = cache
        return True


class IRuntimeCache:
    def __init__(self, trt: FakeTensorRt) -> None:
        self.trt = trt
        self.compiled = 0
        self.loaded = False

    def serialize(self) -> bytes:
        return b"kernels %d" % self.compiled

    def deserialize(self, blob: bytes) -> bool:
        self.loaded = blob.startswith(b"kernels")
        self.compiled = int(blob.split()[1]) if self.loaded else 0
        return self.loaded


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self.engine = engine
        self.profile: Profile | None = None
        self.shape: Shape | None = None
        self.addresses: dict[str, int] = {}
        self.ran = False

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert stream_handle in self.engine.trt.cuda.handles
        self.profile, self.shape = self.engine.trt.profiles[profile_index], None
        return True

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        assert name == "images" and self.profile is not None
        least, _, greatest = self.profile
        if not all(low <= each <= high for low, each, high in zip(least, shape, greatest, strict=True)):
            return False
        self.shape = shape
        return True

    def infer_shapes(self) -> list[str]:
        return [] if self.shape else ["images"]

    def get_tensor_shape(self, name: str) -> Shape:
        num = self.shape[0] if self.shape else -1
        return {"images": self.shape or (-1, -1, -1, 3), "boxes": (num, 2, 4), "scores": (num, 2, 1)}[name]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert self.engine.trt.cuda.memory[memory][1] == self.engine.device
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        cuda = self.engine.trt.cuda
        assert cuda.device == self.engine.device, "the thread's GPU is another one"
        stream = cuda.stream(stream_handle)
        if self.shape is None or set(self.addresses) != set(DTYPES):
            return False
        if stream.recording is not None and not (self.ran and self.engine.trt.capturable):
            stream.broken = True  # what is made late can't be made while recording
            return False
        self.ran = True
        cuda.put(stream, self._compute)
        return True

    def _compute(self) -> None:
        cuda, shape = self.engine.trt.cuda, self.shape
        assert shape is not None
        images = np.frombuffer(cuda.view(self.addresses["images"], math.prod(shape)), np.uint8).reshape(shape)
        boxes, scores = answer(images)
        for name, array in (("boxes", boxes), ("scores", scores)):
            cuda.view(self.addresses[name], array.nbytes)[:] = array.tobytes()


def answer(images: Any) -> tuple[Any, Any]:
    """Return what the network gives for images."""
    means = images.astype(np.float32).mean((1, 2, 3))
    boxes = means[:, None, None] + np.arange(2, dtype=np.float32)[None, :, None] + np.zeros((1, 1, 4), np.float32)
    scores = np.repeat(images[:, :1, 0, :1].astype(np.float32) / 255, 2, axis=1)
    return boxes, scores
