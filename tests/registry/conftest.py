"""A registry whose tables MLflow has made already: that takes seconds, so it is done once and copied."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.registry.carded import write_bundle
from tests.serve import bundles as detecting

from eyas.artifacts.card import Card
from eyas.artifacts.layout import MANIFEST
from eyas.mlflow_store import DATABASE
from eyas.registry import Registry, open_registry


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry that has a model `other` with one version; nobody changes it."""
    folder = tmp_path_factory.mktemp("registry") / "registry"
    bundle = write_bundle(folder.parent / "first", "first")
    open_registry(folder).add(bundle, "other")
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """The folder of a registry that has a model `other` with one version."""
    return shutil.copytree(made, tmp_path / "registry")


@pytest.fixture
def registry(place: Path) -> Registry:
    """The registry there."""
    assert (place / DATABASE).is_file()
    return open_registry(place)


@pytest.fixture
def bundles(tmp_path: Path) -> list[Path]:
    """Three bundles that differ."""
    return [write_bundle(tmp_path / f"bundle{i}", f"bundle{i}") for i in range(3)]


@pytest.fixture
def cars(registry: Registry, tmp_path: Path) -> Registry:
    """A registry with two versions of `cars` whose scores differ by half."""
    for number, scale in ((1, 1.0), (2, 0.5)):
        folder = detecting.write_bundle(tmp_path / f"v{number}", scale=scale)
        Card.write(folder, "bundle", [MANIFEST, "model.onnx"], version="0", created="2026-01-01T00:00:00+00:00")
        registry.add(folder, "cars")
    return registry
