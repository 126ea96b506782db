"""Whole bundles for TensorRT-RTX, from a run to a judged folder, on a machine that can't run the engine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tests.export.graphs import write_graph
from tests.export.made import spare_export
from tests.runtime.fake_cuda import FakeCuda

from eyas.artifacts.bundle import Bundle
from eyas.artifacts.card import Card
from eyas.artifacts.manifest import Manifest
from eyas.cli.main import main
from eyas.errors import UserError
from eyas.export import validate as judging
from eyas.export.build import TrainedRun
from eyas.export.builders import tensorrt
from eyas.export.builders.onnx import export_graph
from eyas.export.builders.tensorrt_graph import fit_for_tensorrt
from eyas.export.emulation import EmulatedSession, in_float32
from eyas.export.gates import BOUNDS
from eyas.export.settings import BuildSettings
from eyas.export.timing import latency
from eyas.runtime.loading import load
from eyas.runtime.sessions import cuda

pytest.importorskip("tensorrt_rtx")

KINDS = {"fp32": "FLOAT", "bf16": "BF16", "int8": "INT8"}  # an fp16 engine is built in builders/test_tensorrt.py


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this a machine without a GPU, whatever it is."""
    monkeypatch.setattr(cuda, "gpus", lambda: ())
    monkeypatch.setattr(cuda, "import_module", lambda _: FakeCuda(()))


@pytest.fixture(scope="module")
def graph(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run exported once, as it is for every precision that is written into it afterwards."""
    trained = TrainedRun.read(place / "tiny")
    path = tmp_path_factory.mktemp("graph") / "any.onnx"
    onnx.save(export_graph(trained, trained.plan(BuildSettings(size=(64, 128), batch=(1, 3)))), path)
    return path


@pytest.mark.parametrize("precision", KINDS)
def test_a_bundle_is_built_and_its_graph_judged(
    precision: str,
    place: Path,
    graph: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if precision in ("fp32", "int8"):
        spare_export(monkeypatch, graph)
    if precision == "fp16":  # the quick old exporter does
        half = write_graph(tmp_path / "half.onnx", "fp16", run=place / "tiny")
        spare_export(monkeypatch, half)
    # One flipped maximum moves a random network's boxes further than the gate of a trained one allows.
    halves = dict.fromkeys(("fp16", "bf16"), BOUNDS["int8"])
    monkeypatch.setattr(judging, "BOUNDS", {**BOUNDS, **halves})
    out = tmp_path / "bundle"
    command = ["compile", str(place / "tiny"), "--target", f"tensorrt-rtx-{precision}"]
    command += ["--size", "64-128", "--batch", "1-3", "--out", str(out), "--option", "optimization_level=1"]
    if precision == "fp32":  # Turing takes no float32 product of matrices
        command += ["--option", "compute_capabilities=7.5"]
    assert main(command) == 0
    printed, told = capsys.readouterr()
    assert "NOT RUN:   no GPU here can run the engine. The results below are for the ONNX graph" in printed
    assert "There is no NVIDIA GPU here" in told and "so its graph is validated instead" in told
    manifest = Manifest.read(out)
    assert (
        manifest.judged == "graph"
        and manifest.latency == ()
        and manifest.target == "tensorrt-rtx"
        and manifest.entry == "model.engine"
    )
    assert manifest.compute_capabilities == (("7.5",) if precision == "fp32" else tensorrt.RTX_CAPABILITIES)
    assert manifest.parity is not None and manifest.accuracy is not None and manifest.accuracy.images == 4
    if precision == "fp32":
        assert manifest.parity.boxes_px < 0.01 and abs(manifest.accuracy.map - manifest.accuracy.map_fp32) < 1e-3
    else:
        assert manifest.parity.scores > 1e-5  # the type's rounding shows
    assert max(manifest.details["convolutions"].items(), key=lambda each: each[1])[0] == KINDS[precision]
    assert manifest.details["profiles"] == [{"least": [1, 64, 64, 3], "best": [3, 96, 96, 3],
                                             "greatest": [3, 128, 128, 3]}]  # fmt: skip
    assert Card.read(out).recipe["options"]["optimization_level"] == 1
    assert {path.name for path in out.iterdir()} == {"manifest.json", "card.json", "model.engine"}
    with pytest.raises(UserError, match=r"no NVIDIA GPU here(.|\n)*machine with a GPU"):
        load(out)


def test_on_a_gpu_the_file_itself_is_judged(
    place: Path, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def emulation(folder: Path, manifest: object) -> EmulatedSession:
        opened.append((folder / "model.engine").name)
        return EmulatedSession(onnx.load(graph), (1, 3))

    spare_export(monkeypatch, graph)
    monkeypatch.setattr(tensorrt, "why_not", lambda _: "")
    monkeypatch.setattr(judging, "open_bundle", emulation)
    monkeypatch.setattr(judging, "time_bundle", lambda _, manifest, threads: latency([2.0], manifest, threads))
    out = tmp_path / "bundle"
    assert main(["compile", str(place / "tiny"), "--target", "tensorrt-rtx-fp32", "--size", "64-128", "--batch", "1-3",
                 "--measure", "0", "--out", str(out)]) == 0  # fmt: skip
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    assert opened == ["model.engine"] and manifest["judged"] == "file" and manifest["latency"][0]["median_ms"] == 2.0


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("optimisation_level=3", "has no option 'optimisation_level' (did you mean 'optimization_level'?)"),
        ("optimization_level=9", "optimization_level is 9"),
        ("timing_cache=x", "has no option 'timing_cache'"),
        ("compute_capabilities=sm89", "'sm89' is not a compute capability"),
        ("refit=true", "Refittable weights need a GPU while the engine is built"),
    ],
)
def test_a_wrong_option_leaves_nothing(
    option: str,
    words: str,
    place: Path,
    graph: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spare_export(monkeypatch, graph)
    command = ["compile", str(place / "tiny"), "--target", "tensorrt-rtx-fp32", "--out", str(tmp_path / "bundle")]
    assert main([*command, "--option", option]) == 2
    assert words in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_half_precision_is_rounded_in_the_stand_in() -> None:
    helper, half, single = onnx.helper, onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT
    bits = np.array([0x3F81, 0x4040], np.uint16)  # 1 + 2^-7 and 3
    weight = helper.make_tensor("weight", half, [2], bits.tobytes(), raw=True)
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=half),
        helper.make_node("Mul", ["half", "weight"], ["product"]),
        helper.make_node("Cast", ["product"], ["y"], to=single),
    ]
    shapes = [helper.make_tensor_value_info(name, single, [2]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", shapes[:1], shapes[1:], [weight])
    model = in_float32(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10))
    x = np.array([1.00390625 * 3, 1.7], np.float32)
    found = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    factors = torch.tensor([1 + 2**-7, 3.0], dtype=torch.bfloat16)
    assert np.array_equal(found, (torch.from_numpy(x).bfloat16() * factors).float().numpy())
    assert not np.array_equal(found, x * factors.float().numpy())


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_stand_in_gives_nearly_the_float_networks_answers(precision: str, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (2, 96, 64, 3), dtype=np.uint8)
    answers = []
    for kind in ("fp32", precision):
        path = write_graph(tmp_path / f"{kind}.onnx", kind)
        session = EmulatedSession(fit_for_tensorrt(onnx.load(path)), (1, 2))
        answers.append(session.run(images)[1])
        session.close()
    difference = np.abs(np.sort(answers[0].max(2)) - np.sort(answers[1].max(2))).max()
    assert 1e-6 < difference < 0.1


def test_products_with_a_vector_are_written_as_sums(graph: Path) -> None:
    model = onnx.load(graph)
    changed = fit_for_tensorrt(model)
    assert any(node.op_type == "MatMul" for node in model.graph.node)
    assert not any(node.op_type == "MatMul" for node in changed.graph.node)
    images = np.random.default_rng(0).integers(0, 255, (2, 96, 64, 3), dtype=np.uint8)
    answers = [onnxruntime.InferenceSession(one.SerializeToString()).run(None, {"images": images})
               for one in (model, changed)]  # fmt: skip
    assert all(np.allclose(one, other, atol=1e-3) for one, other in zip(*answers, strict=True))


def test_what_runs_here_is_judged_itself(bundle: Bundle) -> None:
    assert bundle.manifest.judged == "file" and bundle.manifest.compute_capabilities == ()
