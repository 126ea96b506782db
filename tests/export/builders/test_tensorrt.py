"""TensorRT-RTX engines, really built (no GPU is needed for that); what they compute is not run here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from tests.export.graphs import BATCHES, SIZES, SPEC, plan_of, write_graph, write_int8
from tests.runtime.fake_cuda import FakeCuda

from eyas.errors import UserError
from eyas.export.build import BuiltFiles
from eyas.export.builders import tensorrt
from eyas.export.builders.tensorrt import (
    RTX_CAPABILITIES,
    ShapeProfile,
    check_precision,
    check_quantized,
    profiles,
    run_job,
    timing_cache,
)
from eyas.export.builders.tensorrt_job import (
    BuildError,
    asked,
    configure,
    convolutions,
    keep_timing_cache,
    optional,
    set_timing_cache,
)
from eyas.export.options import TensorRtOptions, TensorRtRtxOptions
from eyas.export.quantize.executed import quantized_convolutions
from eyas.runtime.sessions import cuda

pytest.importorskip("tensorrt_rtx")

KINDS = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16", "int8": "INT8"}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The network as ONNX in every precision, any batch and size."""
    folder = tmp_path_factory.mktemp("graphs")
    found = {name: write_graph(folder / f"{name}.onnx", name) for name in ("fp32", "fp16", "bf16")}
    return found | {"int8": write_int8(folder / "int8.onnx", found["fp32"])}


@pytest.fixture(scope="module")
def built(graphs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, BuiltFiles]]:
    """An engine in every precision, with a profile of batches 1 to 4 and sizes 64 to 128."""
    found = {}
    for precision, path in graphs.items():
        folder = tmp_path_factory.mktemp(precision)
        found[precision] = folder, make(path, folder, precision)
    return found


def make(path: Path, folder: Path, precision: str, **options: Any) -> BuiltFiles:
    return tensorrt.build(onnx.load(path), plan_of(precision, "tensorrt-rtx", **options), folder)


@pytest.mark.parametrize("precision", KINDS)
def test_engine_is_built_in_the_precision_of_the_graph(
    precision: str, built: dict[str, tuple[Path, BuiltFiles]], graphs: dict[str, Path]
) -> None:
    folder, files = built[precision]
    assert files.entry == "model.engine" and {path.name for path in folder.iterdir()} == set(files.files)
    found, details = files.details["convolutions"], files.details
    assert max(found, key=found.get) == KINDS[precision]
    if precision != "int8":
        assert set(found) == {KINDS[precision]}
    else:
        quantized = details["deconvolutions"]["INT8"] + found["INT8"]
        assert (
            quantized == len(quantized_convolutions(onnx.load(graphs["int8"]))) > 60
            and details["layers"]["QUANTIZE"] > 30
            and details["layers"]["DEQUANTIZE"] > 60
        )
    assert details["layers"]["TOPK"] == 1 and "NMS" not in details["layers"]
    assert details["inputs"] == [{"name": "images", "dtype": "UINT8", "shape": [-1, -1, -1, 3]}]
    assert [(each["name"], each["dtype"]) for each in details["outputs"]] == [("boxes", "FLOAT"), ("scores", "FLOAT")]
    assert details["profiles"] == [{"least": (1, 64, 64, 3), "best": (4, 96, 96, 3), "greatest": (4, 128, 128, 3)}]
    assert details["engine_bytes"] == (folder / files.entry).stat().st_size
    assert files.compute_capabilities == RTX_CAPABILITIES and not details["not_in_this_version"]


def test_half_precision_halves_the_engine(built: dict[str, tuple[Path, BuiltFiles]]) -> None:
    sizes = {precision: files.details["engine_bytes"] for precision, (_, files) in built.items()}
    assert sizes["fp32"] > 3e6  # the weights are in it
    assert sizes["fp16"] < 0.8 * sizes["fp32"] and sizes["bf16"] < 0.8 * sizes["fp32"]


def test_a_graph_of_another_type_is_refused_and_leaves_nothing(graphs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"fp16 was requested, but the network's convolutions are \{'FLOAT': 7"):
        make(graphs["fp32"], tmp_path, "fp16")


def test_what_tensorrt_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    info, tensor = onnx.helper.make_tensor_value_info, onnx.TensorProto
    node = onnx.helper.make_node("Nonsense", ["images"], ["boxes"])
    graph = onnx.helper.make_graph(
        [node], "g", [info("images", tensor.UINT8, [1, 96, 96, 3])], [info("boxes", tensor.FLOAT, [1])]
    )
    path = tmp_path / "bad.onnx"
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(UserError, match=r"TensorRT-RTX could not build(.|\n)*its log:(.|\n)*Nonsense"):
        make(path, tmp_path, "fp32")


def test_several_compute_capabilities_in_one_build(graphs: dict[str, Path], tmp_path: Path) -> None:
    several = ("8.6", "8.9", "12.0")
    files = make(
        graphs["fp16"], tmp_path, "fp16", compute_capabilities=several, optimization_level=0, latency_profile=True
    )
    assert files.compute_capabilities == several and len(files.details["profiles"]) == 2
    with pytest.raises(UserError, match=r"can't build for compute capability 5\.0, only for .*8\.9"):
        make(graphs["fp16"], tmp_path, "fp16", compute_capabilities=("5.0",))
    with pytest.raises(UserError, match=r"could not build(.|\n)*its log:(.|\n)*sm75(.|\n)*b16"):
        make(graphs["bf16"], tmp_path, "bf16", compute_capabilities=("7.5",))


def test_nothing_is_left_of_a_build_that_failed(graphs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"could not build(.|\n)*workspace"):
        make(graphs["fp32"], tmp_path, "fp32", workspace_mb=1)
    assert list(tmp_path.iterdir()) == []


def test_weights_can_be_streamed_and_refitting_needs_a_gpu(graphs: dict[str, Path], tmp_path: Path) -> None:
    make(graphs["fp16"], tmp_path, "fp16", weight_streaming=True)
    if not cuda.why_not(RTX_CAPABILITIES):
        pytest.skip("a GPU is here")
    with pytest.raises(UserError, match="Refittable weights need a GPU while the engine is built"):
        make(graphs["fp16"], tmp_path, "fp16", refit=True)


def test_what_tensorrt_proper_needs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    if tensorrt.find_spec("tensorrt") is None:
        with pytest.raises(UserError, match=r"'tensorrt', which is not installed(.|\n)*pip install tensorrt cuda"):
            tensorrt.check_machine("tensorrt")
    monkeypatch.setattr(tensorrt, "find_spec", lambda _: object())
    monkeypatch.setattr(cuda, "import_module", lambda _: FakeCuda(()))
    monkeypatch.setattr(cuda, "gpus", lambda: ())
    with pytest.raises(UserError, match=r"builds on the GPU that will run the engine: There is no NVIDIA GPU") as error:
        tensorrt.check_machine("tensorrt")
    assert "--target tensorrt-rtx" in str(error.value)
    monkeypatch.setattr(cuda, "import_module", lambda _: FakeCuda())
    tensorrt.check_machine("tensorrt")
    assert tensorrt.capabilities_of(TensorRtOptions()) == ("8.9",)
    assert tensorrt.capabilities_of(TensorRtOptions(compatibility="ampere_plus")) == ("8.0+",)


# What follows needs no library.


def test_profiles_cover_what_was_promised() -> None:
    assert profiles(SPEC, None, (1, 1), TensorRtOptions()) == (
        ShapeProfile((1, 96, 96, 3), (1, 96, 96, 3), (1, 96, 96, 3)),
    )
    single, ranging = profiles(SPEC, SIZES, BATCHES, TensorRtOptions(latency_profile=True, best_batch=2))
    assert single == ShapeProfile((1, 96, 96, 3), (1, 96, 96, 3), (1, 96, 96, 3))
    assert ranging == ShapeProfile((1, 64, 64, 3), (2, 96, 96, 3), (4, 128, 128, 3))
    assert len(profiles(SPEC, None, (1, 1), TensorRtOptions(latency_profile=True))) == 1


@pytest.mark.parametrize(
    ("found", "precision"),
    [({"FLOAT": 9}, "int8"), ({"HALF": 8, "FLOAT": 1}, "fp16"), ({}, "fp32"), ({"FLOAT": 9}, "bf16")],
)
def test_a_silent_change_of_precision_is_refused(found: dict[str, int], precision: str) -> None:
    with pytest.raises(UserError, match=f"{precision} was requested"):
        check_precision(found, precision)
    check_precision({"INT8": 8, "FLOAT": 1}, "int8")


def test_a_network_with_fewer_int8_convolutions_than_the_graph_is_refused(graphs: dict[str, Path]) -> None:
    model = onnx.load(graphs["int8"])
    wanted = len(quantized_convolutions(model))
    check_quantized({"convolutions": {"INT8": wanted - 2}, "deconvolutions": {"INT8": 2}}, model)
    with pytest.raises(UserError, match=f"has {wanted} quantized convolutions, but .* has {wanted - 1}"):
        check_quantized({"convolutions": {"INT8": wanted - 1}, "deconvolutions": {"HALF": 2}}, model)


class FakeConfig:
    """A builder's configuration with a timing cache, which takes caches that begin with "ours"."""

    def __init__(self) -> None:
        self.held = b"?"

    def create_timing_cache(self, serialized_timing_cache: bytes) -> bytes:
        return serialized_timing_cache

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        fits = not cache or cache.startswith(b"ours")
        self.held = cache if fits else self.held
        return fits

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: b"ours, " + self.held)


def test_measured_times_of_kernels_are_kept_from_build_to_build(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cache"
    first, second, third = FakeConfig(), FakeConfig(), FakeConfig()
    assert not set_timing_cache(first, path)
    keep_timing_cache(first, path)
    assert set_timing_cache(second, path) and second.held == b"ours, "
    keep_timing_cache(second, path)
    assert path.read_bytes() == b"ours, ours, "
    path.write_bytes(b"another GPU's")
    assert not set_timing_cache(third, path) and third.held == b""
    with pytest.raises(BuildError, match="no option 'timing_cache'"):
        set_timing_cache(object(), path)
    library = pytest.importorskip("tensorrt_rtx")  # the names are the real ones
    assert {"create_timing_cache", "set_timing_cache", "get_timing_cache"} <= set(dir(library.IBuilderConfig))


def test_where_measured_times_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EYAS_CACHE", str(tmp_path))
    assert timing_cache(TensorRtOptions(), ("8.9",)) == str(tmp_path / "tensorrt" / "8.9.timing_cache")
    assert timing_cache(TensorRtOptions(timing_cache=str(tmp_path / "own")), ("8.9",)) == str(tmp_path / "own")
    assert timing_cache(TensorRtOptions(timing_cache="off"), ("8.9",)) is None
    assert timing_cache(TensorRtRtxOptions(), ("8.9",)) is None


def test_what_was_asked_for_and_is_not_in_this_version_is_an_error() -> None:
    with pytest.raises(BuildError, match="this version has no option 'refit'"):
        asked(lambda: setattr(object(), "refit", 1), "refit")


def test_options_reach_the_librarys_configuration() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    config = trt.Builder(trt.Logger(trt.Logger.ERROR)).create_builder_config()
    options = {"optimization_level": 2, "workspace_mb": 64, "refit": True, "weight_streaming": True}
    missing: list[str] = []
    configure(trt, config, options, missing)
    assert config.builder_optimization_level == 2 and missing == []
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 64 << 20
    assert config.get_flag(trt.BuilderFlag.REFIT) and config.get_flag(trt.BuilderFlag.WEIGHT_STREAMING)
    with pytest.raises(BuildError, match="can't build for further GPUs"):
        configure(trt, config, options | {"compatibility": "ampere_plus"}, missing)
    configure(trt, config, options | {"compute_capabilities": ["8.6", "12.0"]}, missing)
    assert config.num_compute_capabilities == 2
    assert config.get_compute_capability(1) == trt.ComputeCapability.SM120


def test_a_job_that_crashes_or_takes_too_long_is_told() -> None:
    failed = run_job({"module": "onnx"}, 60)
    assert failed["error"] == "its process failed" and "AttributeError" in failed["log"][-1]
    with pytest.raises(ModuleNotFoundError, match="gone"):
        run_job({"module": "gone"}, 60)
    assert run_job({"module": "gone"}, 0.01)["error"] == "it took longer than 0.01 s"


def test_what_a_version_lacks_is_put_down() -> None:
    missing: list[str] = []
    optional(lambda: setattr(object(), "level", 1), "level", missing)
    assert missing == ["level"] and convolutions([], "CONVOLUTION") == {}
