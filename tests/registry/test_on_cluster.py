"""A cluster follows a registry: aliases flip under load with no failed request, a spoilt version changes nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.staged import Cluster
from tests.meta.source import ROOT
from tests.registry.test_follow import WORKERS, Load, until
from tests.registry.test_watch import run
from tests.serve.started import started

from eyas.cluster.control import Control
from eyas.cluster.routing_table import Table
from eyas.registry import Registry
from eyas.registry.store import BundleRegistry
from eyas.serve.engine.watch import Change, RegistryWatcher


def test_the_follower_drives_a_cluster_as_it_does_an_engine(cars: Registry) -> None:
    async def work() -> None:
        def kinds() -> list[str]:
            return [change.kind for change in changes]

        changes: list[Change] = []
        cluster = Cluster()
        watcher = RegistryWatcher(cars, Control(cluster, Table()), on_change=changes.append)
        cars.promote("cars", "1")
        await watcher.look()
        cars.promote("cars", "2")
        await watcher.look()
        while kinds() != ["flipped", "flipped", "unloaded"]:
            await asyncio.sleep(0.01)
        assert cluster.defaults() == {"cars": "2"} and len(cluster.table.entries) == 1
        model = cars.resolve("cars", "1").bundle / "model.onnx"
        model.write_bytes(model.read_bytes()[:-1])
        assert isinstance(cars, BundleRegistry)
        cars._writer.set_alias("cars", "champion", "1")
        await watcher.look()
        assert cluster.defaults() == {"cars": "2"} and kinds()[3:] == ["failed"]
        assert [each.wanted.version for each in watcher.behind] == ["1"]

    run(work())


@pytest.fixture
def no_ray_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the command start a Ray of its own."""
    for name in [each for each in os.environ if each.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT)]))


@pytest.mark.usefixtures("no_ray_settings")
def test_aliases_flip_on_a_real_cluster_and_no_request_fails(cars: Registry, tmp_path: Path) -> None:
    pytest.importorskip("ray.serve", reason="pip install 'eyas[cluster]'")
    cars.promote("cars", "1")
    ray: tuple[Any, ...] = ("--on", "ray", "--replicas", "2", "--replica-cpus", "0.5")
    with started(tmp_path, "--registry", cars.location, "--model", "cars@champion", *WORKERS, *ray) as server:
        assert "Serving cars@champion, now version 1" in server.text
        with Load(server.address("REST"), clients=2) as load:
            for wanted in "2121":
                cars.promote("cars", wanted)
                # More in a row than there are clients: one may be the last that the version before was asked.
                until(lambda wanted=wanted: load.answers[-4:] == [(200, wanted)] * 4, f"version {wanted} is served")
            # Version 2's copy spoils, and an alias that another program sets points to it.
            broken = cars.resolve("cars", "2").bundle / "model.onnx"
            whole = broken.read_bytes()
            broken.write_bytes(whole[:-1])
            assert isinstance(cars, BundleRegistry)
            cars._writer.set_alias("cars", "champion", "2")
            until(lambda: "can't be served" in server.errors.read_text(), "the fault is told")
            assert load.answers[-1] == (200, "1")
            broken.write_bytes(whole)  # mended: it is tried again
            until(lambda: load.answers[-1] == (200, "2"), "the mended version is served")
        assert {status for status, _ in load.answers} == {200}
        print(f"{len(load.answers)} answers")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(120) == 0
