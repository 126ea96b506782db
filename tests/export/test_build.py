"""On the way to a bundle a run is read once: its settings, its weights, its quantization."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from tests.export.made import write_run
from tests.reads import counted

from eyas.artifacts.bundle import Bundle
from eyas.artifacts.layout import CONFIG, WEIGHTS
from eyas.export.auto import compile_auto
from eyas.export.build import TrainedRun
from eyas.export.bundle import compile_run
from eyas.export.graph import deployed
from eyas.export.settings import BuildSettings


@pytest.fixture
def run(place: Path, tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", place / "shapes")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_run_is_read_once_on_the_way_to_a_bundle(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    loads = list[object]()
    parse = onnx.load
    monkeypatch.setattr(onnx, "load", lambda path, *rest, **more: loads.append(path) or parse(path, *rest, **more))
    # With fewer candidates there is a second reference: the network as it is evaluated.
    settings = BuildSettings(precision=precision, candidates=50, calibrated=2, measured=2, budget=1.0, timed=False)
    with counted(monkeypatch) as opened:
        compile_run(run, tmp_path / "bundle", settings)
    assert opened[f"weights of {run / WEIGHTS}"] == 1
    assert opened[str(run / WEIGHTS)] == 1  # for its hash
    assert opened[str(run / CONFIG)] == 2  # once read, once for its hash
    # What ONNX Runtime writes when it quantizes, and what it says that it executes; never a graph of ours.
    own = ["model-inferred.onnx", "executed.onnx"] if precision == "int8" else []
    assert [Path(str(path)).name for path in loads] == own


def test_all_candidates_share_what_was_read(
    run: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = onnx.load(bundle.folder / "model.onnx")
    monkeypatch.setattr("eyas.export.bundle.export_graph", lambda *_: graph)
    settings = BuildSettings(calibrated=2, measured=2, budget=1.0, batch=(1, 4))
    with counted(monkeypatch) as opened:
        compile_auto(run, tmp_path / "auto", settings, pairs=[("onnx", "fp32"), ("onnx", "int8")])
    assert opened[f"weights of {run / WEIGHTS}"] == 1 and opened[str(run / WEIGHTS)] == 1
    assert opened[str(run / CONFIG)] == 2


def test_what_is_shared_is_left_as_it_is(place: Path) -> None:
    trained = TrainedRun.read(place / "tiny")
    before = {name: tensor.clone() for name, tensor in trained.net.state_dict().items()}
    deployed(trained.net, trained.run.config, precision="bf16")
    after = trained.net.state_dict()
    assert all(after[name].dtype == tensor.dtype and after[name].equal(tensor) for name, tensor in before.items())
