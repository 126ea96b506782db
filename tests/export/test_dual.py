"""A run with the head "dual", from its weights to bundles: none of the dense branch, no suppression, the same boxes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.export.made import TINY, spare_export, write_run
from tests.runtime.fakes import make_image

from eyas.artifacts.manifest import Manifest
from eyas.artifacts.run import Run
from eyas.export.build import TrainedRun
from eyas.export.builders.onnx import export_graph
from eyas.export.bundle import compile_run
from eyas.export.graph import load_net
from eyas.export.settings import BuildSettings
from eyas.models.measure import num_parameters
from eyas.runtime.loading import load

IMAGES = [make_image(80, 120, (i, 10, i + 40, 60)) for i in range(0, 60, 20)]


@pytest.fixture(scope="module")
def run(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny network with the head "dual" and random weights."""
    spec = dataclasses.replace(TINY, head="dual")
    return write_run(tmp_path_factory.mktemp("dual") / "run", place / "shapes", spec=spec)


@pytest.fixture(scope="module")
def graph(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    trained, path = TrainedRun.read(run), tmp_path_factory.mktemp("graph") / "model.onnx"
    onnx.save(export_graph(trained, trained.plan(BuildSettings(batch=(1, 4)))), path)
    return path


def test_what_is_deployed_has_nothing_of_the_dense_branch(run: Path) -> None:
    net = load_net(Run.read(run))
    assert not any("dense" in name for name in net.state_dict())
    heads = net.get_submodule("heads")
    assert num_parameters(heads) == num_parameters(heads.get_submodule("one_to_one"))


@pytest.mark.parametrize(
    ("target", "precision"), [("onnx", "fp32"), ("onnx", "int8"), ("openvino", "fp32"), ("openvino", "int8")]
)
def test_bundles_find_what_the_run_finds(
    target: str, precision: str, run: Path, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(target)
    monkeypatch.setenv("EYAS_CACHE", str(tmp_path / "cache"))
    spare_export(monkeypatch, graph)
    settings = BuildSettings(target=target, precision=precision, batch=(1, 4), measured=0, timed=False)
    bundle = compile_run(run, tmp_path / "bundle", settings)
    manifest = Manifest.read(bundle.folder)
    assert (manifest.nms, manifest.thresholds.suppression, manifest.version) == ("none", "none", 2)
    with load(bundle.folder) as detector, load(run) as trained:
        ours, theirs = (each(IMAGES, batch=3) for each in (detector, trained))
    for one, other in zip(ours, theirs, strict=True):
        few = min(len(one), len(other), 10)
        assert few > 0
        np.testing.assert_allclose(one.scores[:few], other.scores[:few], atol=1e-3 if precision == "fp32" else 0.1)
    if target == "onnx":
        graph = onnx.load(bundle.folder / "model.onnx").graph
        assert not any(node.op_type == "NonMaxSuppression" for node in graph.node)
        weights = sum(int(np.prod(one.dims)) for one in graph.initializer if len(one.dims) == 4)
        kernels = sum(each.numel() for each in load_net(Run.read(run)).parameters() if each.dim() == 4)
        assert weights == kernels, "the graph has other convolutions than what is deployed"
