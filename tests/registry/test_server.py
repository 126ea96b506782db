"""The registry through MLflow's client, as with a server: files hang on runs, are fetched where they are missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from eyas.errors import UserError
from eyas.mlflow_store import DATABASE
from eyas.registry.artifacts import Artifacts
from eyas.registry.record_reader import ServerRecords
from eyas.registry.record_writer import ServerWriter, server_client
from eyas.registry.store import BundleRegistry


def machine(place: Path, cache: Path) -> BundleRegistry:
    """Return the registry as a machine sees it that keeps its copies in `cache`."""
    client = server_client(f"sqlite:///{place / DATABASE}")
    artifacts = Artifacts(cache)
    writer = ServerWriter(client, artifacts)
    return BundleRegistry("server", ServerRecords(client), writer, artifacts, writer.fetch)


def test_two_machines(place: Path, bundles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here, there = machine(place, tmp_path / "here"), machine(place, tmp_path / "there")
    first = here.add(bundles[0], "cars")
    assert here.add(bundles[0], "cars") == first
    assert here.add(bundles[1], "cars").key.version == "2"
    for number in ("1", "2"):
        here.promote("cars", number)
    found = there.resolve("cars", "@champion")
    assert found.bundle.parent == tmp_path / "there"
    assert (found.bundle / "model.onnx").read_bytes() == (bundles[1] / "model.onnx").read_bytes()
    (found.bundle / "model.onnx").write_bytes(b"spoiled here")
    assert there.resolve("cars", "2").hashes == found.hashes  # fetched again
    assert there.rollback("cars").key.version == "1"
    assert here.show("cars").aliases == {"champion": "1"} and [m.name for m in here.list()] == ["cars", "other"]
    assert [event.action for event in here.show("cars").events] == ["promote", "promote", "rollback"]
    shutil.rmtree(tmp_path / "there")
    shutil.rmtree(tmp_path / "mlruns", ignore_errors=True)
    for folder in tmp_path.glob("mlartifacts"):
        shutil.rmtree(folder)
    with pytest.raises(UserError):
        there.resolve("cars", "2")
