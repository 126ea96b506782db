"""One quantization for all engines, in terms of the run's modules: saved, read, changed, refused."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.export.made import spare_export
from torch import nn

from eyas.artifacts.bundle import Bundle
from eyas.artifacts.card import CARD, Card
from eyas.artifacts.quantization import Quantization, QuantizedConvolution, check_listed
from eyas.artifacts.run import Run
from eyas.errors import UserError
from eyas.export.build import Build, TrainedRun
from eyas.export.bundle import make_graph
from eyas.export.gates import letterboxed, sample_images
from eyas.export.graph import load_net
from eyas.export.images import find_images
from eyas.export.quantize.ptq import calibrate, quantization_of
from eyas.export.quantize.qdq import quantize, weight_bits
from eyas.export.settings import BuildSettings
from eyas.files import read_json, write_json
from eyas.machine.processor import Processor
from eyas.runtime.loading import load


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> onnx.ModelProto:
    return onnx.load(bundle.folder / "model.onnx")


@pytest.fixture(scope="module")
def quantization(bundle: Bundle, model: onnx.ModelProto, place: Path) -> Quantization:
    images = sample_images(find_images(place / "tiny").calibrate, 3)
    return quantization_of(model, [letterboxed([one], bundle.manifest.input, 1) for one in images])


def test_it_speaks_of_the_runs_modules(quantization: Quantization, place: Path) -> None:
    net = load_net(Run.read(place / "tiny"))
    there = {name for name, each in net.named_modules() if isinstance(each, (nn.Conv2d, nn.ConvTranspose2d))}
    assert {*quantization.convolutions, *quantization.kept} == there
    assert len(quantization.kept) == 6 and all("pred" in name for name in quantization.kept)
    for name, numbers in quantization.convolutions.items():
        channels = net.get_submodule(name).out_channels
        assert len(numbers.weights) == channels and numbers.input[0] <= 0 < numbers.input[1]
    assert any(name.endswith("/Add") for name in quantization.activations)


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_saved_and_read_it_writes_the_same_graph(
    model: onnx.ModelProto, quantization: Quantization, tmp_path: Path, target: str
) -> None:
    quantization.write(tmp_path)
    read = Quantization.read(tmp_path)
    assert read is not None and read.convolutions == quantization.convolutions
    direct, saved = (quantize(model, one, target).model.SerializeToString() for one in (quantization, read))
    assert direct == saved
    name, numbers = next(iter(quantization.convolutions.items()))
    wider = replace(numbers, input=(numbers.input[0], 2 * numbers.input[1]))
    changed = replace(quantization, convolutions={**quantization.convolutions, name: wider})
    assert quantize(model, changed, target).model.SerializeToString() != direct


def test_a_run_that_carries_one_is_compiled_with_it(
    bundle: Bundle, quantization: Quantization, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spare_export(monkeypatch, bundle.folder / "model.onnx")
    run = Path(shutil.copytree(place / "tiny", tmp_path / "tiny"))
    images, told = find_images(run), list[str]()

    def make() -> tuple[bytes, dict[str, Any]]:
        trained = TrainedRun.read(run)
        plan = trained.plan(BuildSettings(precision="int8", calibrated=3))
        graph, details = make_graph(Build(trained, plan, images, told.append))
        return graph.SerializeToString(), details

    direct, _ = make()
    assert any("calibrating on 3" in line for line in told)
    quantization.write(run)
    told.clear()
    carried, details = make()
    assert not any("calibrating" in line for line in told)
    assert details["quantization"]["images"] == 3 and details["weight_bits"] in (7, 8)
    assert direct == carried
    with pytest.raises(UserError, match="not listed in the run's card"):
        check_listed(run)
    Card.extend(run, ["quantization.json"])
    check_listed(run)


def test_calibrating_a_run(quantization: Quantization, place: Path) -> None:
    found = calibrate(place / "tiny", images=3)
    assert found.convolutions.keys() == quantization.convolutions.keys()
    assert found.activations.keys() == quantization.activations.keys()
    for name, numbers in found.convolutions.items():
        np.testing.assert_allclose(numbers.input, quantization.convolutions[name].input, rtol=0.05, atol=1e-3)
        assert numbers.weights == quantization.convolutions[name].weights


def test_another_networks_is_refused(model: onnx.ModelProto, quantization: Quantization) -> None:
    name, numbers = next(iter(quantization.convolutions.items()))
    others = {key: one for key, one in quantization.convolutions.items() if key != name}
    with pytest.raises(UserError, match=f"lacks 1 of .*{name}"):
        quantize(model, replace(quantization, convolutions=others), "openvino")
    with pytest.raises(UserError, match="no convolution 'backbone"):
        quantize(model, replace(quantization, kept=("backbone.stm",)), "openvino")
    short = {**others, name: replace(numbers, weights=numbers.weights[:-1])}
    with pytest.raises(UserError, match="channels"):
        quantize(model, replace(quantization, convolutions=short), "openvino")
    with pytest.raises(UserError, match=r"lacks the output range of .*/Add"):
        kept = {key: one for key, one in quantization.activations.items() if not key.endswith("/Add")}
        quantize(model, replace(quantization, activations=kept), "onnxruntime")


def test_two_ranges_for_one_tensor_are_refused(model: onnx.ModelProto, quantization: Quantization) -> None:
    pair = [name for name in quantization.convolutions if name.startswith("backbone.stage1.blocks.conv")][:2]
    wider = replace(quantization.convolutions[pair[1]], input=(0.0, 1e3))
    changed = replace(quantization, convolutions={**quantization.convolutions, pair[1]: wider})
    with pytest.raises(UserError, match="read the same tensor"):
        quantize(model, changed, "onnxruntime")


def test_seven_bits_cover_the_same_range(model: onnx.ModelProto, quantization: Quantization) -> None:
    narrow = quantization.narrowed(7)
    for name, numbers in quantization.convolutions.items():
        assert narrow.convolutions[name].bits == 7
        np.testing.assert_allclose(64 * np.array(narrow.convolutions[name].weights), 127 * np.array(numbers.weights))
    assert narrow.narrowed(8) == narrow
    for one, most in ((quantization, 127), (narrow, 64)):
        written = quantize(model, one, "onnxruntime")
        values = [numpy_helper.to_array(w) for w in written.model.graph.initializer if w.data_type == 3 and w.dims]
        assert max(int(np.abs(each.astype(int)).max()) for each in values if each.ndim == 4) == most


@pytest.mark.parametrize(
    ("target", "architecture", "sets", "bits"),
    [
        ("onnxruntime", "x86_64", {"AVX2": True}, 7),
        ("openvino", "AMD64", {}, 7),
        ("onnxruntime", "x86_64", {"AVX-512 VNNI": True}, 8),
        ("openvino", "x86_64", {"AVX VNNI": True}, 8),
        ("onnxruntime", "aarch64", {"NEON": True}, 8),
        ("tensorrt", "x86_64", {"AVX2": True}, 8),
    ],
)
def test_bits_follow_the_machine(target: str, architecture: str, sets: dict[str, bool], bits: int) -> None:
    assert weight_bits(target, Processor("x", architecture, 1, None, sets)) == bits


def test_broken_files(quantization: Quantization, tmp_path: Path) -> None:
    assert Quantization.read(tmp_path) is None
    path = quantization.write(tmp_path)
    whole = read_json(path)
    for change, message in (
        ({"format": "x"}, "not a quantization"),
        ({"version": 9}, "format 9"),
        ({"convolutions": {"a": {"input": [1], "weights": [1], "bits": 8}}}, "not valid"),
    ):
        write_json(path, {**whole, **change})
        with pytest.raises(UserError, match=message):
            Quantization.read(tmp_path)
    for numbers in ({"input": (1, 2)}, {"weights": (0.0,)}, {"bits": 5}):
        with pytest.raises(UserError):
            QuantizedConvolution(**{"input": (0, 1), "weights": (1.0,), **numbers})  # type: ignore[arg-type]


@pytest.mark.parametrize(("bits", "sets", "warned"), [(8, {}, True), (7, {}, False), (8, {"AVX VNNI": True}, False)])
def test_weights_that_may_overflow_here_are_told_of(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int, sets: dict[str, bool], warned: bool
) -> None:
    copy = Path(shutil.copytree(bundle.folder, tmp_path / "copy"))
    (copy / CARD).unlink()
    bundle.manifest.model_copy(update={"details": {"weight_bits": bits}}).write(copy)
    monkeypatch.setattr("eyas.machine.processor.processor", lambda: Processor("x", "x86_64", 1, None, sets))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        load(copy).close()
    assert ["--weight-bits 7" in str(one.message) for one in told] == [True] * warned
