"""The made-up CUDA and TensorRT have the names and parameters of the real ones, which can be imported without a GPU."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest
from tests.runtime import fake_tensorrt
from tests.runtime.fake_cuda import FakeCuda


def test_cuda_is_made_up_as_it_is() -> None:
    real = pytest.importorskip("cuda.bindings.runtime")
    if int(real.cudaGetDeviceCount()[0]) == 0:
        pytest.skip("a GPU is here, and would be asked odd things")
    fake = FakeCuda(())
    fake.memory = {0: (bytearray(1), -1)}
    given = {"attr": real.cudaDeviceAttr(75), "kind": real.cudaMemcpyKind(1), "mode": real.cudaStreamCaptureMode(1)}
    sizes = {"cudaGetDeviceCount": 2, "cudaGetErrorString": 2, "cudaDeviceGetAttribute": 2, "cudaMalloc": 2,
             "cudaMallocHost": 2, "cudaStreamCreateWithFlags": 2, "cudaStreamEndCapture": 2,
             "cudaGraphInstantiate": 2}  # fmt: skip
    functions = [name for name, value in vars(FakeCuda).items() if name.startswith("cuda") and callable(value)]
    functions = [name for name in functions if inspect.isfunction(vars(FakeCuda)[name])]
    assert len(functions) == 19
    for name in functions:
        own = list(inspect.signature(vars(FakeCuda)[name]).parameters)[1:]
        assert own == list(inspect.signature(getattr(real, name)).parameters), name
        if name != "cudaGetErrorString":
            answered = getattr(real, name)(*(given.get(one, 0) for one in own))
            assert isinstance(answered, tuple) and len(answered) == sizes.get(name, 1), name
    assert int(real.cudaStreamNonBlocking) == FakeCuda.cudaStreamNonBlocking
    assert int(real.cudaMemcpyKind.cudaMemcpyHostToDevice) == 1 and int(real.cudaMemcpyKind.cudaMemcpyDeviceToHost) == 2
    assert int(real.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal) == 1
    assert int(real.cudaDeviceAttr.cudaDevAttrComputeCapabilityMajor) == 75
    assert int(real.cudaStream_t(5)) == 5


def parameters(doc: str) -> list[list[str]]:
    """Return the parameters' names of each overload in a compiled method's docstring."""
    found = re.findall(r"\w+\(self: [\w.]+(?:, ([^\n]*))?\) -> ", doc)
    return [re.findall(r"(?:^|, )(\w+): ", each) for each in found]


@pytest.mark.parametrize(
    ("fake", "real"),
    [
        ("RtxRuntime", "Runtime"),
        ("Runtime", "Runtime"),
        ("ICudaEngine", "ICudaEngine"),
        ("RtxEngine", "ICudaEngine"),
        ("IRuntimeConfig", "IRuntimeConfig"),
        ("IRuntimeCache", "IRuntimeCache"),
        ("IExecutionContext", "IExecutionContext"),
    ],
)
def test_tensorrt_is_made_up_as_it_is(fake: str, real: str) -> None:
    kind = getattr(pytest.importorskip("tensorrt_rtx"), real)
    own = {name: value for name, value in vars(getattr(fake_tensorrt, fake)).items() if name[0] != "_"}
    assert own
    for name, value in own.items():
        names = list(inspect.signature(value).parameters)[1:]
        overloads = parameters(getattr(kind, name).__doc__)
        assert any(names == each[: len(names)] for each in overloads), (name, names, overloads)


def test_every_name_of_the_library_that_is_used_exists() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    places = {
        "_engine": trt.ICudaEngine, "engine": trt.ICudaEngine, "context": trt.IExecutionContext,
        "_context": trt.IExecutionContext, "config": trt.IRuntimeConfig, "cache": trt.IRuntimeCache,
        "_cache": trt.IRuntimeCache, "trt": trt, "_trt": trt,
    }  # fmt: skip
    used = set()
    for module in ("tensorrt", "tensorrt_slot"):
        text = Path(importlib.import_module(f"eyas.runtime.sessions.{module}").__file__ or "").read_text("utf-8")
        used |= {(one, name) for one, name in re.findall(r"\b(\w+)\.(\w+)", text) if one in places}
    used -= {("trt", "__version__"), ("_cache", "is_file")}
    assert len(used) >= 19
    assert trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE and int(trt.EngineInvalidityDiagnostics.UNSUPPORTED_CC) == 2
    assert [pair for pair in sorted(used) if pair[1] not in dir(places[pair[0]])] == []
    assert {"UINT8", "FLOAT"} <= set(trt.DataType.__members__) and {"INPUT", "OUTPUT"} <= set(
        trt.TensorIOMode.__members__
    )
    assert isinstance(trt.Runtime(trt.Logger(trt.Logger.ERROR)).get_engine_validity(b"x" * 64), tuple)
