"""TensorRT-RTX engines, really built (no GPU is needed for that); what they compute is not run here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from tests.compile.graphs import BATCHES, SIZES, SPEC, write_graph, write_int8

from eyas.compile import tensorrt, tensorrt_rtx
from eyas.compile.built import BuiltFiles
from eyas.compile.tensorrt import Options, Profile, check_precision, profiles, run_job
from eyas.compile.tensorrt_graph import fit_for_tensorrt
from eyas.compile.tensorrt_job import convolutions, optional
from eyas.errors import UserError

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
    """Build for TensorRT-RTX."""
    return tensorrt_rtx.build(
        path, folder, precision=precision, input=SPEC, sizes=SIZES, batches=BATCHES, options=options
    )


@pytest.mark.parametrize("precision", KINDS)
def test_engine_is_built_in_the_precision_of_the_graph(
    precision: str, built: dict[str, tuple[Path, BuiltFiles]]
) -> None:
    folder, files = built[precision]
    assert files.entry == "model.engine" and {path.name for path in folder.iterdir()} == set(files.files)
    found, details = files.details["convolutions"], files.details
    assert max(found, key=found.get) == KINDS[precision]
    if precision != "int8":
        assert set(found) == {KINDS[precision]}
    else:
        assert found["INT8"] > 60 and details["layers"]["QUANTIZE"] > 30 and details["layers"]["DEQUANTIZE"] > 60
    assert details["layers"]["TOPK"] == 1 and "NMS" not in details["layers"]
    assert details["inputs"] == [{"name": "images", "dtype": "UINT8", "shape": [-1, -1, -1, 3]}]
    assert [(each["name"], each["dtype"]) for each in details["outputs"]] == [("boxes", "FLOAT"), ("scores", "FLOAT")]
    assert details["profiles"] == [{"least": (1, 64, 64, 3), "best": (4, 96, 96, 3), "greatest": (4, 128, 128, 3)}]
    assert details["engine_bytes"] == (folder / files.entry).stat().st_size


def test_half_precision_halves_the_engine(built: dict[str, tuple[Path, BuiltFiles]]) -> None:
    sizes = {precision: files.details["engine_bytes"] for precision, (_, files) in built.items()}
    assert sizes["fp32"] > 3e6  # the weights are in it
    assert sizes["fp16"] < 0.8 * sizes["fp32"] and sizes["bf16"] < 0.8 * sizes["fp32"]


def test_a_graph_of_another_type_is_refused_and_leaves_nothing(graphs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"fp16 was asked for, and the convolutions of the network are \{'FLOAT': 7"):
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


def test_compute_capabilities_are_passed_on(graphs: dict[str, Path], tmp_path: Path) -> None:
    files = make(
        graphs["fp16"],
        tmp_path,
        "fp16",
        compute_capabilities=("8.6", "8.9"),
        optimization_level=0,
        latency_profile=True,
    )
    assert files.details["compute_capabilities"] == ["8.6", "8.9"] and len(files.details["profiles"]) == 2
    with pytest.raises(UserError, match=r"does not build for compute capability 5\.0, only for .*8\.9"):
        make(graphs["fp16"], tmp_path, "fp16", compute_capabilities=("5.0",))


def test_tensorrt_that_is_not_installed_is_told(graphs: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    if tensorrt.find_spec("tensorrt") is not None:
        pytest.skip("it is installed")
    with pytest.raises(UserError, match="'tensorrt', which is not installed"):
        tensorrt.build(graphs["fp32"], tmp_path, precision="fp32", input=SPEC, sizes=None, batches=(1, 1), options={})


# What follows needs no library.


def test_profiles_cover_what_was_promised() -> None:
    assert profiles(SPEC, None, (1, 1), Options()) == (Profile((1, 96, 96, 3), (1, 96, 96, 3), (1, 96, 96, 3)),)
    single, ranging = profiles(SPEC, SIZES, BATCHES, Options(latency_profile=True, best_batch=2))
    assert single == Profile((1, 96, 96, 3), (1, 96, 96, 3), (1, 96, 96, 3))
    assert ranging == Profile((1, 64, 64, 3), (2, 96, 96, 3), (4, 128, 128, 3))
    assert len(profiles(SPEC, None, (1, 1), Options(latency_profile=True))) == 1


@pytest.mark.parametrize(
    ("found", "precision"),
    [({"FLOAT": 9}, "int8"), ({"HALF": 8, "FLOAT": 1}, "fp16"), ({}, "fp32"), ({"FLOAT": 9}, "bf16")],
)
def test_a_silent_change_of_precision_is_refused(found: dict[str, int], precision: str) -> None:
    with pytest.raises(UserError, match=f"{precision} was asked for"):
        check_precision(found, precision)
    check_precision({"INT8": 8, "FLOAT": 1}, "int8")


@pytest.mark.parametrize("wrong", [{"optimization_level": 6}, {"compute_capabilities": ("sm89",)}])
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Options(**wrong)


def test_a_job_that_crashes_or_takes_too_long_is_told() -> None:
    assert "exit code" in run_job({"module": "gone"}, 60)["error"]
    assert run_job({"module": "gone"}, 0.01)["error"] == "it took longer than 0.01 s"


def test_what_a_version_lacks_is_put_down() -> None:
    missing: list[str] = []
    optional(lambda: setattr(object(), "level", 1), "level", missing)
    assert missing == ["level"] and convolutions([], "CONVOLUTION") == {}


def test_the_graph_still_computes_the_same(graphs: dict[str, Path]) -> None:
    import numpy as np
    import onnxruntime

    model = onnx.load(graphs["fp32"])
    images = np.random.default_rng(0).integers(0, 255, (2, 96, 64, 3), dtype=np.uint8)
    answers = [
        onnxruntime.InferenceSession(each.SerializeToString()).run(None, {"images": images})
        for each in (model, fit_for_tensorrt(model))
    ]
    assert all(np.array_equal(a, b) for a, b in zip(*answers, strict=True))
