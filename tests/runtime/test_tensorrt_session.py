"""The TensorRT session on a made-up GPU, whose names and parameters test_tensorrt_names.py holds against the real ones.

None of this has run on a GPU: see docs/targets/tensorrt.md.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.runtime import fake_tensorrt
from tests.runtime.fake_cuda import FakeCuda
from tests.runtime.fake_tensorrt import FakeTensorRt, answer

from eyas.artifacts.manifest import Manifest
from eyas.errors import UserError
from eyas.machine.gpus import Gpu
from eyas.runtime.sessions import cuda, tensorrt
from eyas.runtime.sessions.tensorrt import KEPT, TensorRtSession
from eyas.types import InputSpec, Thresholds, UInt8Array

PROFILES = [((1, 32, 32, 3),) * 3, ((1, 32, 32, 3), (4, 64, 64, 3), (4, 64, 64, 3))]


class Place:
    """A machine with a made-up GPU and a bundle."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.cuda = FakeCuda()
        self.trt: dict[str, FakeTensorRt] = {}
        self.gpus: tuple[Gpu, ...] = ()
        self.missing: set[str] = set()
        for name in tensorrt.MODULES.values():
            self.trt[name] = FakeTensorRt(self.cuda, PROFILES, rtx=name == "tensorrt_rtx")  # type: ignore[arg-type]
        (folder / "model.engine").write_bytes(b"plan")
        monkeypatch.setenv("EYAS_CACHE", str(folder / "cache"))
        monkeypatch.setattr(cuda, "gpus", lambda: self.gpus)
        monkeypatch.setattr(cuda, "import_module", self.load)
        monkeypatch.setattr(tensorrt, "import_module", self.load)

    def load(self, name: str) -> Any:
        if name in self.missing:
            raise ModuleNotFoundError(name=name)
        return self.cuda if name == "cuda.bindings.runtime" else self.trt[name]

    def open(self, target: str = "tensorrt", device: str = "auto", listed: tuple[str, ...] = ()) -> TensorRtSession:
        return TensorRtSession(self.folder, manifest(target, listed), device=device)

    def kept(self) -> list[Path]:
        return sorted((self.folder / "cache").rglob("*.runtime_cache"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    found = Place(tmp_path, monkeypatch)
    yield found
    assert not found.cuda.memory and not found.cuda.handles, "something was not given back"


def manifest(target: str, listed: tuple[str, ...] = ()) -> Manifest:
    """Return the manifest of a bundle with an engine for 1 to 4 images."""
    return Manifest(
        name="test",
        classes=("a",),
        input=InputSpec(64, 64),
        batch=(1, 4),
        candidates=2,
        thresholds=Thresholds(),
        target=target,
        precision="fp16",
        files={"model.engine": "0123456789abcdef" * 4},
        entry="model.engine",
        compute_capabilities=listed,
        created="2026-01-01T00:00:00+00:00",
        eyas="0",
    )


def make_images(num: int, side: int = 64, seed: int = 0) -> UInt8Array:
    return np.random.default_rng(seed).integers(0, 256, (num, side, side, 3), np.uint8)


def same(found: tuple[Any, Any], images: UInt8Array) -> bool:
    """Return whether these are the network's answers for the images."""
    expected = answer(images)
    return all(np.allclose(one, other) and one.dtype == np.float32 for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("target", tensorrt.MODULES)
def test_answers_are_the_networks_for_every_shape_and_again(place: Place, target: str) -> None:
    session = place.open(target)
    for turn in range(4):
        for num, side in ((1, 32), (3, 64), (1, 64), (9, 48)):
            images = make_images(num, side, seed=turn)
            assert same(session.run(images), images)
    session.close()
    assert "compute capability 8.9" in session.description and "1.2.3" in session.description


def test_memory_and_context_are_made_once_a_shape(place: Place) -> None:
    session = place.open()
    for turn in range(5):
        session.run(make_images(2, seed=turn))
    made = place.cuda.calls["allocated"], place.trt["tensorrt"].engines[0].contexts
    session.close()
    assert made == (6, 1)  # three tensors, here and on the GPU


def test_a_shape_that_comes_again_is_captured_once_and_replayed(place: Place) -> None:
    session = place.open()
    counts = []
    for turn in range(4):
        images = make_images(2, seed=turn)
        assert same(session.run(images), images)
        counts.append((place.cuda.calls["instantiated"], place.cuda.calls["launched"]))
    session.close()
    assert counts == [(0, 0), (1, 1), (1, 2), (1, 3)]


def test_what_can_not_be_captured_runs_all_the_same(place: Place) -> None:
    place.trt["tensorrt"].capturable = False
    session = place.open()
    for turn in range(4):
        images = make_images(2, seed=turn)
        assert same(session.run(images), images)
    session.close()
    assert place.cuda.calls["instantiated"] == 0


def test_rtx_captures_its_own_graphs(place: Place) -> None:
    session = place.open("tensorrt-rtx")
    for _ in range(3):
        session.run(make_images(2))
    session.close()
    assert place.cuda.calls["instantiated"] == 0  # and the made-up engine checks the strategy it was given


def test_the_first_profile_that_fits_is_taken(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    real = fake_tensorrt.IExecutionContext.set_optimization_profile_async

    def spy(self: Any, profile_index: int, stream_handle: int) -> bool:
        chosen.append(profile_index)
        return real(self, profile_index, stream_handle)

    monkeypatch.setattr(fake_tensorrt.IExecutionContext, "set_optimization_profile_async", spy)
    session = place.open()
    session.run(make_images(1, 32))
    session.run(make_images(1, 64))
    with pytest.raises(UserError, match=r"not built for images of shape \(1, 96, 96, 3\)"):
        session.run(make_images(1, 96))
    session.close()
    assert chosen == [0, 1]


def test_several_are_under_way_at_once_and_the_array_is_free_again(place: Place) -> None:
    session = place.open()
    batches = [make_images(2, seed=seed) for seed in range(3)]
    buffer = np.empty_like(batches[0])
    pending = []
    for images in batches:
        buffer[:] = images
        pending.append(session.submit(buffer))
    buffer[:] = 0
    assert all(same(one.result(), images) for one, images in reversed(list(zip(pending, batches, strict=True))))
    with pytest.raises(RuntimeError, match="already read"):
        pending[0].result()
    contexts = place.trt["tensorrt"].engines[0].contexts
    session.run(batches[0])
    assert contexts == place.trt["tensorrt"].engines[0].contexts == 3
    last = session.submit(batches[0])
    session.close()
    with pytest.raises(RuntimeError, match="closed"):
        last.result()


def test_threads_overlap_on_the_second_gpu(place: Place) -> None:
    place.cuda.capabilities = ("7.5", "8.9")
    session = place.open(device="cuda:1")
    wrong: list[int] = []

    def work(seed: int) -> None:
        for turn in range(6):
            images = make_images(1 + (seed + turn) % 4, seed=seed * 10 + turn)
            if not same(session.run(images), images):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    session.close()
    assert not wrong and "cuda:1" in session.description


def test_idle_memory_is_bounded(place: Place) -> None:
    place.trt["tensorrt"].profiles = [((1, 1, 1, 3), (1, 8, 8, 3), (4, 99, 99, 3))]
    session = place.open()
    for side in range(2, 2 + KEPT + 5):
        images = make_images(1, side)
        assert same(session.run(images), images)
    assert len(place.cuda.memory) == 6 * KEPT
    before = place.cuda.calls["allocated"]
    session.run(make_images(1, 2 + KEPT + 4))  # the last ones are those that stayed
    assert place.cuda.calls["allocated"] == before
    session.close()


def test_a_gpu_that_is_full_is_told_and_leaks_nothing(place: Place) -> None:
    session = place.open()
    place.cuda.full = True
    with pytest.raises(RuntimeError, match="out of memory"):
        session.run(make_images(1))
    place.cuda.full = False
    assert same(session.run(make_images(1)), make_images(1))
    session.close()


def test_compiled_kernels_are_kept_from_the_first_answer_on(place: Place) -> None:
    session = place.open("tensorrt-rtx")
    session.run(make_images(1))
    assert [path.name for path in place.kept()] == ["0123456789abcdef-8.9-1.2.3.runtime_cache"]
    assert place.kept()[0].read_bytes() == b"kernels 1"
    session.run(make_images(2))
    session.close()
    again = place.open("tensorrt-rtx")
    again.run(make_images(1))
    again.close()
    assert place.kept()[0].read_bytes() == b"kernels 3"  # two were there
    place.kept()[0].write_bytes(b"of another driver")
    refused = place.open("tensorrt-rtx")
    refused.run(make_images(1))
    refused.close()
    assert place.kept()[0].read_bytes() == b"kernels 1"
    place.cuda.capabilities = ("12.0",)
    other = place.open("tensorrt-rtx")
    other.close()
    assert len(place.kept()) == 2


def test_a_cache_folder_that_can_not_be_written_is_no_reason_to_fail(place: Place) -> None:
    (place.folder / "cache").write_text("a file")
    session = place.open("tensorrt-rtx")
    assert same(session.run(make_images(1)), make_images(1))
    session.close()


def test_tensorrt_has_no_runtime_cache(place: Place) -> None:
    session = place.open("tensorrt")
    session.run(make_images(1))
    session.close()
    assert place.kept() == []


def test_weights_are_streamed_where_the_engine_was_built_for_it(place: Place) -> None:
    place.trt["tensorrt"].streamable = 1000
    place.open().close()
    place.trt["tensorrt"].streamable = 0
    place.open().close()
    first, second = place.trt["tensorrt"].engines
    assert (first.weight_streaming_budget_v2, second.weight_streaming_budget_v2) == (500, 0)


@pytest.mark.parametrize(
    ("found", "listed", "fits"),
    [
        ("8.9", ("8.9",), True),
        ("8.6", ("8.9",), False),
        ("9.0", ("8.0", "8.6", "8.9", "12.0+"), False),
        ("12.1", ("8.0", "8.6", "8.9", "12.0+"), True),
        ("8.7", ("8.0+",), True),
        ("7.5", ("8.0+",), False),
        ("10.0", ("8.0+",), True),
        ("7.5", (), True),
    ],
)
def test_an_engine_for_another_architecture_is_refused(
    place: Place, found: str, listed: tuple[str, ...], fits: bool
) -> None:
    place.cuda.capabilities = (found,)
    if fits:
        place.open(listed=listed).close()
        return
    with pytest.raises(UserError, match=rf"built for GPUs of compute capability .*; this one has {found}") as error:
        place.open(listed=listed)
    assert "compile the run again" in str(error.value) and not place.trt["tensorrt"].engines


def test_the_gpu_that_was_asked_for_counts(place: Place) -> None:
    place.cuda.capabilities = ("8.6", "8.9")
    place.open(device="cuda:1", listed=("8.9",)).close()
    with pytest.raises(UserError, match=r"this one has 8\.6"):
        place.open(device="cuda:0", listed=("8.9",))
    with pytest.raises(UserError, match=r"no device 'cuda:2'"):
        place.open(device="cuda:2")


def test_what_is_missing_is_told(place: Place) -> None:
    place.cuda.capabilities = ()
    with pytest.raises(UserError, match=r"no NVIDIA GPU here that can be used \(CUDA driver version is insuff"):
        place.open()
    place.gpus = (Gpu("RTX 4090", "8.9", "24 GiB", "470.1"),)
    with pytest.raises(
        UserError, match=r"The RTX 4090 in this machine can't be used: CUDA driver version(.|\n)*newer driver"
    ):
        place.open()
    place.missing.add("cuda.bindings.runtime")
    with pytest.raises(UserError, match=r"this one has 8\.9"):  # nothing that can be installed would help
        place.open(listed=("12.0",))
    with pytest.raises(UserError, match=r"'cuda-bindings', which is not installed(.|\n)*eyas\[tensorrt\]"):
        place.open(listed=("8.9",))
    place.gpus = ()
    with pytest.raises(UserError, match="There is no NVIDIA GPU here, and a TensorRT engine needs one"):
        place.open()
    place.missing = {"tensorrt", "tensorrt_rtx"}
    place.cuda.capabilities = ("8.9",)
    with pytest.raises(UserError, match=r"'tensorrt', which is not installed(.|\n)*pip install tensorrt cuda-bind"):
        place.open("tensorrt")
    with pytest.raises(UserError, match=r"'tensorrt_rtx', which is not installed(.|\n)*eyas\[tensorrt\]"):
        place.open("tensorrt-rtx")


def test_a_file_that_can_not_be_opened_is_told_with_the_librarys_reasons(place: Place) -> None:
    for trt in place.trt.values():
        trt.opens = False
    with pytest.raises(
        UserError, match=r"can't be opened by tensorrt_rtx 1\.2\.3 .*: version mismatch, unsupported cc"
    ):
        place.open("tensorrt-rtx")
    with pytest.raises(UserError, match=r"can't be opened by tensorrt 1\.2\.3 on this GPU\."):
        place.open("tensorrt")


def test_an_engine_of_something_else_is_refused(place: Place) -> None:
    place.trt["tensorrt"].tensors["scores"] = "HALF"
    with pytest.raises(UserError, match="gives scores as half"):
        place.open()


def test_a_failed_call_raises_its_meaning() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    error = runtime.cudaError_t.cudaErrorMemoryAllocation
    with pytest.raises(RuntimeError, match="out of memory"):
        cuda.checked(runtime, (error, 0))
    assert cuda.checked(runtime, (runtime.cudaError_t.cudaSuccess, 7)) == 7
    assert cuda.checked(runtime, (runtime.cudaError_t.cudaSuccess,)) is None


def test_why_an_engine_can_not_run_here(place: Place) -> None:
    assert cuda.why_not(("8.9",)) == ""
    assert cuda.why_not(("12.0+",)) == "The GPU has compute capability 8.9, but the engine is for 12.0+"
    place.cuda.capabilities = ()
    assert cuda.why_not(()).startswith("There is no NVIDIA GPU here that can be used (CUDA driver")
    place.gpus = (SimpleNamespace(name="RTX 4090", compute_capability="8.9", driver="470"),)  # type: ignore[assignment]
    with pytest.raises(UserError, match="can't be used"):
        cuda.why_not(())
