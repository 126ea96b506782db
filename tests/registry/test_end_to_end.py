"""The watcher with the real engine: promotions and rollbacks under load lose no request."""

from __future__ import annotations

import asyncio

import pytest
from tests.serve.bundles import jpeg

from eyas.errors import UserError
from eyas.registry import Registry
from eyas.registry.store import BundleRegistry
from eyas.serve.api import Request
from eyas.serve.engine import watch
from eyas.serve.engine.engine import LocalEngine
from eyas.serve.engine.settings import EngineSettings
from eyas.serve.engine.watch import Change, RegistryWatcher


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks often."""
    monkeypatch.setattr(watch, "INTERVAL", 0.02)


def test_swaps_under_load_lose_nothing(cars: Registry) -> None:
    async def work() -> None:
        answers: list[tuple[str, float]] = []
        changes: list[Change] = []
        stop = asyncio.Event()

        async def ask(engine: LocalEngine, client: int) -> None:
            while not stop.is_set():
                request = Request(f"{client}-{len(answers)}", "cars", "@champion", (jpeg(200),))
                answer = await engine.detect(request)
                answers.append((answer.model.version, float(answer.detections[0].scores[0])))

        async with LocalEngine(EngineSettings(in_process=True, workers=1, threads=1, goal=60.0)) as engine:
            watcher = RegistryWatcher(cars, engine, on_change=changes.append)
            cars.promote("cars", "1")
            await watcher.look()
            following = asyncio.create_task(watcher.run())
            clients = [asyncio.create_task(ask(engine, client)) for client in range(2)]
            for number in range(6):
                wanted = "12"[(number + 1) % 2]
                await asyncio.to_thread(cars.promote, "cars", wanted)
                while answers[-1:] == [] or answers[-1][0] != wanted:
                    await asyncio.sleep(0.01)
            broken = cars.resolve("cars", "2").bundle / "model.onnx"
            broken.write_bytes(broken.read_bytes()[:-1])
            while [status.key.version for status in engine.models() if status.state == "ready"] != ["1"]:
                await asyncio.sleep(0.01)
            with pytest.raises(UserError, match="damaged"):
                cars.promote("cars", "2")
            assert isinstance(cars, BundleRegistry)
            await asyncio.to_thread(cars._writer.set_alias, "cars", "champion", "2")  # as with another program
            while changes[-1].kind != "failed":
                await asyncio.sleep(0.01)
            count = len(answers)
            while len(answers) < count + 5:
                await asyncio.sleep(0.01)
            stop.set()
            await asyncio.gather(*clients)  # raises if a request was refused or lost
            following.cancel()
        assert {version for version, _ in answers} == {"1", "2"}
        for version, score in answers:  # a request was answered by the version that it names
            assert score == pytest.approx(200 / 255 / int(version), abs=0.02)
        assert answers[-1][0] == "1" and "damaged" in changes[-1].message
        flips = [change.key.version for change in changes if change.kind == "flipped" and change.key]
        assert flips == ["1", "2", "1", "2", "1", "2", "1"]
        assert [change.kind for change in changes].count("failed") == 1

    asyncio.run(asyncio.wait_for(work(), 120))
