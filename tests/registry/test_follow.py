"""`eyas serve --registry` as it is really started, under load, while the registry's aliases move and files spoil."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from tests.serve.bundles import jpeg
from tests.serve.started import Started, started

from eyas.artifacts.model_key import ModelKey
from eyas.errors import UserError
from eyas.registry import Registry
from eyas.registry.store import BundleRegistry
from eyas.serve.engine.engine import LocalEngine
from eyas.serve.engine.follow import Follower, Wanted, wanted_of
from eyas.serve.engine.settings import EngineSettings

WORKERS = ("--workers", "1", "--threads", "1", "--slo", "20000")


@pytest.fixture
def cars(cars: Registry) -> Registry:
    """A registry with two versions of `cars` whose scores differ by half; the first is the champion."""
    cars.promote("cars", "1")
    return cars


class Load:
    """Clients that ask again and again until the block ends, and what they were answered."""

    def __init__(self, url: str, clients: int = 3) -> None:
        self.url, self.answers, self._over = url, list[tuple[int, str]](), threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        with httpx.Client(timeout=60) as client:
            while not self._over.is_set():
                answer = client.post(f"{self.url}/v1/detect", content=jpeg(), headers={"content-type": "image/jpeg"})
                document = answer.json()
                self.answers.append((answer.status_code, document.get("model", document).get("version", "")))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)


def until(ready: Callable[[], Any], what: str) -> None:
    """Wait until something is true; it is an error if that takes far too long."""
    end = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < end, what
        time.sleep(0.02)


@pytest.fixture
def server(cars: Registry, tmp_path: Path) -> Iterator[Started]:
    with started(tmp_path, "--registry", cars.location, "--model", "cars@champion", *WORKERS) as server:
        yield server


def test_what_the_champion_is_is_served_and_no_request_fails(server: Started, cars: Registry) -> None:
    assert "Serving cars@champion, now version 1" in server.text
    url = server.address("REST")
    told = httpx.get(f"{url}/readyz").json()
    assert told == {"ready": True, "registry": {"readable": True, "behind": []}}
    with Load(url) as load:
        for wanted in "212":
            cars.promote("cars", wanted)
            until(lambda wanted=wanted: load.answers[-1:] == [(200, wanted)], f"version {wanted} is served")
        # Version 1's copy spoils, and an alias that another program sets points to it.
        broken = cars.resolve("cars", "1").bundle / "model.onnx"
        whole = broken.read_bytes()
        broken.write_bytes(whole[:-1])
        assert isinstance(cars, BundleRegistry)
        cars._writer.set_alias("cars", "champion", "1")
        until(lambda: httpx.get(f"{url}/readyz").json()["registry"]["behind"], "the fault is told")
        told = httpx.get(f"{url}/readyz")
        assert told.status_code == 200, "the old version serves, so requests are welcome"
        (behind,) = told.json()["registry"]["behind"]
        assert (behind["version"], behind["serving"]) == ("1", "2") and "damaged" in behind["reason"]
        assert cars.location not in told.text, "no file of this machine is named"
        text = httpx.get(f"{url}/metrics").text
        assert 'eyas_registry_behind{alias="champion",model="cars"} 1.0' in text
        assert 'eyas_registry_changes_total{kind="failed"} 1.0' in text
        assert "cars/1 of the registry can't be served" in server.errors.read_text()
        assert load.answers[-1] == (200, "2")
        broken.write_bytes(whole)  # mended: it is tried again
        until(lambda: load.answers[-1] == (200, "1"), "the mended version is served")
        assert httpx.get(f"{url}/readyz").json()["registry"]["behind"] == []
    assert {status for status, _ in load.answers} == {200}
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0


def started_follower(registry: Registry, wanted: Wanted) -> tuple[list[str], dict[str, Any], list[ModelKey]]:
    """Return the words of a follower that has started, what it tells, and what the engine serves."""

    async def work() -> tuple[list[str], dict[str, Any], list[ModelKey]]:
        async with LocalEngine(EngineSettings(in_process=True, workers=1, threads=1)) as engine:
            follower = Follower(registry, engine, wanted)
            lines = await follower.start()
            return lines, follower.document(), [each.key for each in engine.models() if each.state == "ready"]

    return asyncio.run(asyncio.wait_for(work(), 120))


def test_references_say_what_is_followed_and_what_stays() -> None:
    assert wanted_of([]) == Wanted(None)
    assert wanted_of(["a@champion", "a@challenger", "b", "c:3"]) == Wanted(
        {"a": ("champion", "challenger"), "b": ()}, (ModelKey("c", "3"),)
    )
    assert wanted_of(["a@champion", "a"]) == Wanted({"a": ()})
    with pytest.raises(UserError):
        wanted_of(["a:x"])


def test_a_version_can_be_named_and_stays(cars: Registry) -> None:
    lines, _, served = started_follower(cars, wanted_of(["cars:2"]))
    assert served == [ModelKey("cars", "2")] and lines[0].startswith("Serving cars, version 2")


def test_the_whole_registry_is_served_where_no_model_is_named(cars: Registry) -> None:
    assert started_follower(cars, wanted_of([]))[2] == [ModelKey("cars", "1")]


@pytest.mark.parametrize(
    ("reference", "words"),
    [("carz", "did you mean 'cars'"), ("cars@gone", "no alias 'gone'"), ("other", "no alias 'champion'")],
)
def test_a_name_that_is_not_there_is_told_at_the_start(cars: Registry, reference: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        started_follower(cars, wanted_of([reference]))


def test_a_start_with_a_spoiled_version_serves_the_others_and_tells(cars: Registry) -> None:
    cars.promote("cars", "2", "challenger")
    path = cars.resolve("cars", "2").bundle / "model.onnx"
    whole = path.read_bytes()
    path.unlink()
    lines, told, served = started_follower(cars, wanted_of(["cars"]))
    assert served == [ModelKey("cars", "1")]
    assert any(line.startswith("warning: cars@challenger is not served") for line in lines)
    assert told["behind"][0]["serving"] is None
    path.write_bytes(whole)
    first = cars.resolve("cars", "1").bundle / "model.onnx"
    first.unlink()
    with pytest.raises(UserError, match="Nothing in the registry"):
        started_follower(cars, wanted_of(["cars@champion"]))
