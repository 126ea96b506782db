"""The TensorRT session without a GPU: what is told then, and that the CUDA calls it makes exist with these names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eyas.errors import UserError
from eyas.runtime.manifest import Manifest
from eyas.runtime.sessions import tensorrt
from eyas.types import InputSpec, Thresholds

SOURCE = Path(tensorrt.__file__).read_text(encoding="utf-8")


def manifest(target: str) -> Manifest:
    """Return the manifest of a bundle with an engine."""
    return Manifest(
        name="test",
        classes=("a",),
        input=InputSpec(96, 96),
        batch=(1, 1),
        candidates=5,
        thresholds=Thresholds(),
        target=target,
        precision="fp16",
        files={"model.engine": "0"},
        entry="model.engine",
        created="2026-01-01T00:00:00+00:00",
        eyas="0",
    )


def test_a_machine_without_a_gpu_is_told(tmp_path: Path) -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    pytest.importorskip("tensorrt_rtx")
    if int(runtime.cudaGetDeviceCount()[0]) == 0:
        pytest.skip("a GPU is here")
    with pytest.raises(UserError, match=r"no NVIDIA GPU here that can be used: .*driver"):
        tensorrt.TensorRtSession(tmp_path, manifest("tensorrt-rtx"))


def test_a_package_that_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tensorrt.__dict__, "MODULES", {"tensorrt": "gone_with_the_wind"})
    with pytest.raises(UserError, match=r"eyas\[tensorrt\]"):
        tensorrt.TensorRtSession(tmp_path, manifest("tensorrt"))


def test_every_cuda_call_exists() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    names = set(re.findall(r"\bcuda\.(cuda\w+)", SOURCE)) | set(re.findall(r"_cuda\.(cuda\w+)", SOURCE))
    assert len(names) >= 12 and names <= set(dir(runtime))


def test_every_method_of_the_library_exists() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    engine = set(re.findall(r"\b_?engine\.(\w+)\(", SOURCE))
    context = set(re.findall(r"\bcontext\.(\w+)\(", SOURCE))
    assert len(engine) >= 3 and engine <= set(dir(trt.ICudaEngine))
    assert len(context) >= 5 and context <= set(dir(trt.IExecutionContext))
    assert {"create_runtime_cache", "set_runtime_cache"} <= set(dir(trt.IRuntimeConfig))


def test_a_failed_call_raises_its_meaning() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    error = runtime.cudaError_t.cudaErrorMemoryAllocation
    with pytest.raises(RuntimeError, match="out of memory"):
        tensorrt.checked(runtime, (error, 0))
    assert tensorrt.checked(runtime, (runtime.cudaError_t.cudaSuccess, 7)) == 7
    assert tensorrt.checked(runtime, (runtime.cudaError_t.cudaSuccess,)) is None
