"""The data, the runs and the graphs of the parity matrix, made once for each file of tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from tests.export.made import write_data, write_run
from tests.export.parity.matrix import SIDE, Graphs, write_row

from eyas.artifacts.run import Run
from eyas.export.build import TrainedRun
from eyas.export.builders.onnx import export_graph
from eyas.export.settings import BuildSettings


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few synthetic images, splits train and val."""
    return write_data(tmp_path_factory.mktemp("data") / "shapes")


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Row of the zoo -> a run of it, with random weights whose activations are as a trained network's."""
    folder, made = tmp_path_factory.mktemp("runs"), dict[str, Path]()

    def run(row: str) -> Path:
        if row not in made:
            made[row] = write_row(folder / row, row, data)
        return made[row]

    return run


@pytest.fixture(scope="module")
def tiny(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the network that exports in seconds."""
    run = write_run(tmp_path_factory.mktemp("tiny") / "tiny", data, SIDE)
    config = Run.read(run).config
    Run(run, replace(config, thresholds=replace(config.thresholds, iou=0.2))).write()  # so that boxes are dropped
    return run


@pytest.fixture(scope="module")
def graphs() -> Graphs:
    """(run, settings) -> the exported graph, made once for each kind."""
    made = dict[tuple[object, ...], onnx.ModelProto]()

    def graph(run: Path, settings: BuildSettings) -> onnx.ModelProto:
        trained = TrainedRun.read(run)
        plan = trained.plan(settings)
        key = (run, plan.graph_precision, settings.batch, settings.size, settings.nms)
        if key not in made:
            made[key] = export_graph(trained, plan)
        return made[key]

    return graph


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep OpenVINO's compiled models in the test's folder."""
    monkeypatch.setenv("EYAS_CACHE", str(tmp_path / "cache"))
