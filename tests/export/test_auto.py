"""Choosing by measurement: the fastest candidate within the budget, and a table of all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.export.made import spare_export

from eyas.artifacts.bundle import Bundle
from eyas.artifacts.card import Card
from eyas.artifacts.manifest import Manifest
from eyas.cli.main import main
from eyas.errors import UserError
from eyas.export.auto import Trial, candidates, choose, compile_auto
from eyas.export.settings import BuildSettings
from eyas.machine.gpus import Gpu
from eyas.runtime.loading import load

FP32 = Trial("onnx", "fp32", 40, 44, 0.500, 0.500)
INT8 = Trial("onnx", "int8", 10, 11, 0.480, 0.500)
BF16 = Trial("openvino", "bf16", 20, 22, 0.497, 0.500)
BROKEN = Trial("openvino", "int8", problem="it did not build")


def test_the_fastest_within_the_budget_is_chosen() -> None:
    trials = [FP32, INT8, BROKEN, BF16]
    assert choose(trials) == BF16
    assert choose(trials, budget=0.03) == INT8
    assert choose(trials, budget=0.0) == FP32
    with pytest.raises(UserError, match=r"No candidate is within 0.5 mAP") as error:
        choose([INT8, BROKEN])
    assert "it did not build" in str(error.value)


def test_candidates_are_those_that_run_here() -> None:
    assert candidates("onnx") == [("onnx", "fp32"), ("onnx", "int8")]
    assert ("onnx", "int8") in candidates(precision="int8")
    with pytest.raises(UserError, match="There are no candidates"):
        candidates("tensorrt")
    with pytest.raises(UserError, match="did you mean 'openvino'"):
        candidates("openvin")


def test_a_gpu_brings_its_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyas.export.auto.importlib.util.find_spec", lambda _: object())
    monkeypatch.setattr("eyas.export.auto.onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr("eyas.export.auto.gpus", lambda: ())
    assert not any(target.startswith("tensorrt") or kind == "fp16" for target, kind in candidates())
    monkeypatch.setattr("eyas.export.auto.gpus", lambda: (Gpu("a card", "8.9", "24 GiB", "580"),))
    found = candidates()
    assert {("tensorrt", "fp16"), ("tensorrt-rtx", "fp16"), ("tensorrt-rtx", "int8"), ("onnx", "fp16")} <= set(found)
    assert ("onnx", "fp32") in found
    monkeypatch.setattr("eyas.export.auto.onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    assert ("onnx", "fp16") not in candidates()


def test_a_choice_is_built_and_timed(
    bundle: Bundle, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = bundle.folder / "model.onnx"  # exported once already
    spare_export(monkeypatch, graph)
    pairs = [("onnx", "fp32"), ("onnx", "int8")]
    monkeypatch.chdir(tmp_path)
    settings = BuildSettings(batch=(1, 4), calibrated=3, compared=2, budget=-2)
    monkeypatch.setattr("eyas.export.auto.candidates", lambda *_: pairs)
    command = ["compile", str(place / "tiny"), "--target", "auto", "--batch", "1-4"]
    assert main([*command, "--out", "best", "--max-drop", "100"]) == 0
    printed = capsys.readouterr().out
    assert "<- chosen" in printed and "int8" in printed and "fp32" in printed
    manifest = Manifest.read(tmp_path / "best")
    assert (
        manifest.name == "best" and manifest.latency[0].median_ms > 0 and "onnxruntime" in manifest.latency[0].versions
    )
    Card.verify(tmp_path / "best")
    with load(tmp_path / "best") as detector:
        assert manifest.precision in detector.describe()
    with pytest.raises(UserError, match="Choosing a target needs mAP"):
        compile_auto(place / "tiny", "other", BuildSettings(measured=0))
    with pytest.raises(UserError, match="No candidate is within"):
        compile_auto(place / "tiny", "other", settings, pairs=pairs[:1])
    assert {path.name for path in tmp_path.iterdir()} == {"best"}
