"""A network with a backbone of timm is compiled as any other, and its bundle says the licence that its run says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.export.made import TINY, write_data, write_run
from tests.runtime.fakes import make_image

from eyas.artifacts.bundle import Bundle
from eyas.artifacts.card import CARD, Card
from eyas.cli.lineage import describe
from eyas.export.bundle import compile_run
from eyas.export.settings import BuildSettings
from eyas.runtime.loading import load

pytest.importorskip("timm", reason='timm is not installed: pip install "eyas[timm]"')

LICENCE = "cc-by-nc-4.0 (timm's x from hf-hub:timm/x)"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "shapes")


def run_of(name: str, folder: Path, data: Path) -> Path:
    """Return a run with a backbone of timm, of random weights, at 64 px."""
    return write_run(folder, data, 64, dataclasses.replace(TINY, backbone=f"timm:{name}"))


@pytest.mark.parametrize(
    ("name", "target"), [("mobilenetv3_small_100", "onnx"), ("convnext_atto", "onnx"), ("resnet18", "openvino")]
)
def test_a_compiled_network_answers_as_the_run_does(name: str, target: str, data: Path, tmp_path: Path) -> None:
    if target == "openvino":
        pytest.importorskip("openvino")
    run = run_of(name, tmp_path / "run", data)
    bundle = compile_run(run, tmp_path / "bundle", BuildSettings(target=target, measured=0))
    assert bundle.manifest.parity is not None and bundle.manifest.parity.scores < 1e-3
    if target == "onnx":
        operators = {node.op_type for node in onnx.load(bundle.folder / "model.onnx").graph.node}
        assert "Conv" in operators and "BatchNormalization" not in operators
    images = [make_image(80, 120, (i, 10, i + 40, 60)) for i in range(0, 60, 20)]
    with load(run) as trained, load(bundle.folder, threads=1) as compiled:
        for one, other in zip(trained(images), compiled(images), strict=True):
            assert len(one) > 5
            best = min(len(one), len(other), 20)
            np.testing.assert_allclose(one.scores[:best], other.scores[:best], atol=1e-3)


def test_int8_after_training_quantizes_the_backbones_convolutions(data: Path, tmp_path: Path) -> None:
    run = run_of("resnet18", tmp_path / "run", data)
    settings = BuildSettings(target="onnx", precision="int8", measured=0, data=data, calibrated=4)
    details = compile_run(run, tmp_path / "bundle", settings).manifest.details
    kept = details["kept_in_float"]
    assert not [name for name in kept if name.startswith("backbone.")], kept
    assert int(details["convolutions"].split()[0] if isinstance(details["convolutions"], str) else 20) >= 20


def test_a_bundle_says_the_licence_that_its_run_says(data: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", data, 64)
    card = json.loads((run / CARD).read_text("utf-8"))
    (run / CARD).write_text(json.dumps({**card, "recipe": {"licence": LICENCE}}), "utf-8")
    lines: list[str] = []
    bundle = compile_run(run, tmp_path / "bundle", BuildSettings(target="onnx", measured=0), tell=lines.append)
    assert isinstance(bundle, Bundle) and any(LICENCE in line for line in lines)
    sealed = Card.verify(bundle.folder)
    assert f"licence of the weights: {LICENCE}" in describe(0, bundle.folder, sealed, "unchanged")
