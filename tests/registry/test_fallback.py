"""A start while the champion's files are damaged: the champion before it answers, and everybody is told."""

from __future__ import annotations

from pathlib import Path

import httpx2 as httpx
import pytest
from tests.registry.test_follow import WORKERS, started_follower, until
from tests.registry.test_watch import Watched, run
from tests.serve import bundles as detecting
from tests.serve.bundles import jpeg
from tests.serve.started import started

from eyas.artifacts.card import Card
from eyas.artifacts.layout import MANIFEST
from eyas.artifacts.model_key import ModelKey
from eyas.errors import UserError
from eyas.registry import Registry
from eyas.serve.engine.follow import wanted_of


@pytest.fixture
def cars(registry: Registry, tmp_path: Path) -> Registry:
    """A registry with four versions of `cars`; 1, then 4, then 2 and then 3 were the champion, and 4 was taken back."""
    for number in range(1, 5):
        folder = detecting.write_bundle(tmp_path / f"v{number}", scale=1 / number)
        Card.write(folder, "bundle", [MANIFEST, "model.onnx"], version="0", created="2026-01-01T00:00:00+00:00")
        registry.add(folder, "cars")
    registry.promote("cars", "1")
    registry.promote("cars", "4")
    registry.rollback("cars")
    registry.promote("cars", "2")
    registry.promote("cars", "3")
    return registry


def spoil(registry: Registry, version: str) -> tuple[Path, bytes]:
    """Damage a version's file, and return it and what it held."""
    path = registry.resolve("cars", version).bundle / "model.onnx"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    return path, whole


def test_a_server_started_with_a_damaged_champion_serves_the_one_before(cars: Registry, tmp_path: Path) -> None:
    path, whole = spoil(cars, "3")
    with started(tmp_path, "--registry", cars.location, "--model", "cars", *WORKERS) as server:
        url = server.address("REST")
        assert "Serving cars@champion, now version 2" in server.text
        assert "warning: cars@champion is version 3, which can't be served, and version 2" in server.text
        assert "@champion answers with cars/2, an earlier version" in server.errors.read_text()
        told = httpx.get(f"{url}/readyz")
        assert told.status_code == 200
        (behind,) = told.json()["registry"]["behind"]
        assert (behind["version"], behind["serving"], behind["fallback"]) == ("3", "2", True)
        assert "damaged" in behind["reason"] and cars.location not in told.text
        text = httpx.get(f"{url}/metrics").text
        assert 'eyas_registry_fallback{alias="champion",model="cars"} 1.0' in text
        assert 'eyas_registry_behind{alias="champion",model="cars"} 1.0' in text

        def version() -> str:
            asked = httpx.post(f"{url}/v1/detect", content=jpeg(), headers={"content-type": "image/jpeg"}, timeout=60)
            return str(asked.raise_for_status().json()["model"]["version"])

        assert version() == "2"
        path.write_bytes(whole)
        until(lambda: version() == "3", "the mended champion answers")
        until(lambda: not httpx.get(f"{url}/readyz").json()["registry"]["behind"], "nothing lags behind")
        assert 'eyas_registry_fallback{alias="champion",model="cars"} 0.0' in httpx.get(f"{url}/metrics").text


def test_the_last_whole_one_is_taken_and_never_one_that_was_taken_back(cars: Registry) -> None:
    spoil(cars, "3")
    spoil(cars, "2")
    lines, told, served = started_follower(cars, wanted_of(["cars"]))
    assert served == [ModelKey("cars", "1")]
    assert (told["behind"][0]["serving"], told["behind"][0]["fallback"]) == ("1", True)
    assert lines[1].startswith("warning: cars@champion is version 3")
    spoil(cars, "1")
    with pytest.raises(UserError, match="Nothing in the registry"):
        started_follower(cars, wanted_of(["cars"]))


def test_a_running_server_keeps_what_serves_and_falls_back_to_nothing_older(cars: Registry) -> None:
    async def work() -> None:
        watched = Watched(cars)
        assert await watched.look() == [("flipped", "3")]
        path, whole = spoil(cars, "4")
        path.write_bytes(whole)
        cars.promote("cars", "4")
        path.write_bytes(whole[:-1])
        assert await watched.look() == [("failed", "4")]
        (behind,) = watched.watcher.behind
        assert (behind.serving, behind.fallback) == (ModelKey("cars", "3"), False)

    run(work())


def test_a_fallback_that_is_promoted_is_one_no_longer(cars: Registry) -> None:
    async def work() -> None:
        spoil(cars, "3")
        watched = Watched(cars)
        assert await watched.look() == [("failed", "3"), ("fallback", "2")]
        assert watched.watcher.behind[0].fallback
        assert await watched.look() == []
        cars.rollback("cars")
        assert await watched.look() == []
        assert watched.watcher.behind == ()
        cars.promote("cars", "1")
        assert await watched.look() == [("flipped", "1"), ("unloaded", "2")]

    run(work())
