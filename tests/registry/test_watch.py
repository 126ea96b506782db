"""The watcher: an engine follows the registry's aliases, and nothing that goes wrong takes away what serves."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.registry.test_store import hurried

from eyas.artifacts.model_key import ModelKey
from eyas.mlflow_store import DATABASE
from eyas.registry import Registry
from eyas.serve.api import Answer, ModelStatus, Request
from eyas.serve.engine import watch
from eyas.serve.engine.watch import Change, RegistryWatcher
from eyas.serve.errors import ServeError


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks often."""
    monkeypatch.setattr(watch, "INTERVAL", 0.02)


class FakeEngine:
    """Keeps what it was told; a version is unloaded when `drained` is set."""

    def __init__(self) -> None:
        self.loaded: dict[ModelKey, Path] = {}
        self.aliases: dict[tuple[str, str], str] = {}
        self.broken: set[str] = set()
        self.hung: set[str] = set()
        self.drained = asyncio.Event()
        self.drained.set()

    async def detect(self, request: Request) -> Answer:
        raise NotImplementedError

    def models(self) -> tuple[ModelStatus, ...]:
        return ()

    async def load(self, name: str, version: str = "", bundle: Path | None = None) -> ModelKey:
        assert bundle is not None and (bundle / "manifest.json").is_file()
        key = ModelKey(name, version)
        assert key not in self.loaded, "loaded twice"
        if version in self.hung:
            await asyncio.Event().wait()
        if version in self.broken:
            raise ServeError("unavailable", "the worker ended")
        await asyncio.sleep(0)
        self.loaded[key] = bundle
        return key

    async def unload(self, name: str, version: str = "") -> None:
        assert version not in self.aliases.values(), "an alias still points to it"
        await self.drained.wait()
        del self.loaded[ModelKey(name, version)]

    def alias(self, name: str, alias: str, version: str) -> None:
        assert ModelKey(name, version) in self.loaded, "an alias to what does not serve"
        self.aliases[name, alias] = version

    def ready(self) -> bool:
        return True

    async def drain(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


class Watched:
    """A watcher with a clock of its own, its engine and what it told."""

    def __init__(self, registry: Registry, **options: Any) -> None:
        self.engine = FakeEngine()
        self.changes: list[Change] = []
        self.now = 0.0
        self.watcher = RegistryWatcher(
            registry, self.engine, on_change=self.changes.append, clock=lambda: self.now, **options
        )

    async def look(self) -> list[tuple[str, str]]:
        """Look once, let what was begun end, and return the (kind, version) of what was told since."""
        before = len(self.changes)
        await self.watcher.look()
        for _ in range(3):
            await asyncio.sleep(0)
        return [(change.kind, change.key.version if change.key else "") for change in self.changes[before:]]


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 120))


@pytest.fixture
def cars(registry: Registry, bundles: list[Path]) -> Registry:
    """A registry whose model `cars` has three versions and no alias."""
    for bundle in bundles:
        registry.add(bundle, "cars")
    return registry


def test_a_promotion_is_served_and_the_old_version_freed(cars: Registry) -> None:
    async def work() -> None:
        watched = Watched(cars)
        assert await watched.look() == []
        cars.promote("cars", "1")
        assert await watched.look() == [("flipped", "1")]
        assert await watched.look() == []
        cars.promote("cars", "2")
        assert await watched.look() == [("flipped", "2"), ("unloaded", "1")]
        assert watched.engine.loaded.keys() == {ModelKey("cars", "2")}
        assert watched.engine.loaded[ModelKey("cars", "2")] == cars.resolve("cars", "2").bundle
        cars.rollback("cars")
        assert await watched.look() == [("flipped", "1"), ("unloaded", "2")]

    run(work())


def test_a_version_with_another_alias_stays(cars: Registry) -> None:
    async def work() -> None:
        watched = Watched(cars)
        cars.promote("cars", "1")
        cars.promote("cars", "1", "challenger")
        assert await watched.look() == [("flipped", "1"), ("flipped", "1")]
        cars.promote("cars", "2")
        assert await watched.look() == [("flipped", "2")]
        assert watched.engine.aliases == {("cars", "champion"): "2", ("cars", "challenger"): "1"}

    run(work())


def test_only_the_models_and_aliases_asked_for(cars: Registry) -> None:
    async def work() -> None:
        cars.promote("other", "1")
        cars.promote("cars", "1")
        cars.promote("cars", "2", "challenger")
        watched = Watched(cars, follow={"cars": ["champion"]})
        await watched.look()
        assert watched.engine.aliases == {("cars", "champion"): "1"}

    run(work())


@pytest.mark.parametrize("fault", ["changed", "missing", "worker"])
def test_what_cannot_be_served_keeps_the_old_version(cars: Registry, bundles: list[Path], fault: str) -> None:
    async def work() -> None:
        watched = Watched(cars)
        cars.promote("cars", "1")
        cars.promote("cars", "2", "challenger")
        await watched.look()
        cars.promote("cars", "3")
        model = cars.resolve("cars", "3").bundle / "model.onnx"
        held = model.read_bytes()
        if fault == "changed":
            model.write_bytes(held[:-1] + b"?")
        elif fault == "missing":
            model.unlink()
        else:
            watched.engine.broken.add("3")
        assert await watched.look() == [("failed", "3")]
        assert watched.changes[-1].message
        assert watched.engine.aliases["cars", "champion"] == "1" and ModelKey("cars", "1") in watched.engine.loaded
        watched.now += 1
        assert await watched.look() == []  # not tried again yet
        watched.now += 2
        assert await watched.look() == []  # tried, the same fault: told once
        model.write_bytes(held)
        watched.engine.broken.clear()
        watched.now += 10
        assert await watched.look() == [("flipped", "3"), ("unloaded", "1")]

    run(work())


def test_a_version_called_back_while_it_drains(cars: Registry) -> None:
    async def work() -> None:
        watched = Watched(cars)
        cars.promote("cars", "1")
        await watched.look()
        watched.engine.drained.clear()
        cars.promote("cars", "2")
        assert await watched.look() == [("flipped", "2")]
        cars.rollback("cars")
        looking = asyncio.create_task(watched.look())
        await asyncio.sleep(0.05)
        assert watched.engine.aliases["cars", "champion"] == "2"
        watched.engine.drained.set()
        await looking
        assert watched.engine.aliases["cars", "champion"] == "1"
        assert ModelKey("cars", "1") in watched.engine.loaded

    run(work())


def test_a_load_that_hangs_does_not_hold_up_the_way_back(cars: Registry) -> None:
    async def work() -> None:
        watched = Watched(cars)
        cars.promote("cars", "1")
        await watched.look()
        watched.engine.hung.add("2")
        cars.promote("cars", "2")
        looking = asyncio.create_task(watched.look())
        await asyncio.sleep(0.05)
        assert not looking.done() and watched.engine.aliases["cars", "champion"] == "1"
        cars.promote("cars", "3")
        await looking
        assert watched.watcher.behind == ()
        assert await watched.look() == [("flipped", "3"), ("unloaded", "1")]

    run(work())


def test_a_registry_that_cannot_be_read_changes_nothing(cars: Registry, place: Path) -> None:
    async def work() -> None:
        watched = Watched(hurried(place))
        cars.promote("cars", "1")
        await watched.look()
        with closing(sqlite3.connect(place / DATABASE)) as other:
            other.execute("BEGIN EXCLUSIVE")
            assert await watched.look() == [("unreadable", "")]
            assert await watched.look() == []  # told once
            other.rollback()
        cars.promote("cars", "2")
        assert await watched.look() == [("readable", ""), ("flipped", "2"), ("unloaded", "1")]

    run(work())


def test_it_goes_on_until_it_is_cancelled(cars: Registry) -> None:
    async def work() -> None:
        watched = Watched(cars)
        task = asyncio.create_task(watched.watcher.run())
        for version in ("1", "2"):
            cars.promote("cars", version)
            while watched.engine.aliases.get(("cars", "champion")) != version:
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(work())
