"""Changing what a cluster serves, without Ray: replicas first, ingresses then."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import TypeVar

import pytest
from tests.cluster.staged import Cluster
from tests.serve.bundles import write_bundle

from eyas.artifacts.model_key import ModelKey
from eyas.cluster.control import Control
from eyas.cluster.engine import Refusal
from eyas.cluster.routing_table import Table, read_entry
from eyas.errors import UserError
from eyas.serve.errors import ServeError

T = TypeVar("T")


def run(coroutine: Coroutine[None, None, T]) -> T:
    """Return what the coroutine returns, within a time that no test needs."""
    return asyncio.run(asyncio.wait_for(coroutine, 120))


@pytest.fixture
def bundles(tmp_path: Path) -> list[Path]:
    """Three bundles that differ."""
    return [write_bundle(tmp_path / f"shapes-{scale}" / "shapes", scale=scale) for scale in (1.0, 0.5, 0.25)]


def test_doors_route_to_a_version_when_the_replicas_hold_it(bundles: list[Path]) -> None:
    async def main() -> None:
        control = Control(cluster, Table())
        assert await control.load("shapes", "1", bundles[0]) == ModelKey("shapes", "1")
        assert cluster.told == ["put shapes/1", "warm shapes/1", "show"]
        await control.load("shapes", "2", bundles[1])
        control.alias("shapes", "champion", "1")
        await asyncio.sleep(0.01)
        assert cluster.defaults() == {"shapes": "1"}
        control.alias("shapes", "champion", "2")
        await control.unload("shapes", "1")
        assert cluster.defaults() == {"shapes": "2"} and cluster.told[-1] == "drop shapes/1"

    cluster = Cluster()
    run(main())


def test_what_a_replica_can_not_load_changes_nothing(bundles: list[Path]) -> None:
    async def main() -> None:
        control = Control(cluster, Table())
        await control.load("shapes", "1", bundles[0])
        before = cluster.table
        cluster.answers = [None, Refusal("unavailable", "no room")]
        with pytest.raises(ServeError, match="no room"):
            await control.load("shapes", "2", bundles[1])
        assert cluster.table is before and control.table == before and len(cluster.shelf) == 1
        with pytest.raises(ServeError, match="no version '2'"):
            control.alias("shapes", "champion", "2")

    cluster = Cluster()
    run(main())


def test_a_bundle_of_two_versions_stays_until_both_are_gone(bundles: list[Path]) -> None:
    async def main() -> None:
        control = Control(cluster, Table())
        for version in ("1", "2"):
            await control.load("shapes", version, bundles[0])
        await control.unload("shapes", "1")
        assert cluster.shelf
        await control.unload("shapes")
        assert not cluster.shelf and not cluster.table.entries
        with pytest.raises(ServeError, match="no model"):
            await control.unload("shapes", "1")

    cluster = Cluster()
    run(main())


def test_what_the_application_was_started_with_stays(bundles: list[Path]) -> None:
    async def main() -> None:
        entry, _ = read_entry(ModelKey("other", "1"), bundles[2])
        cluster.shelf.add(entry.digest)
        control = Control(cluster, Table(entries=(entry,)))
        await control.load("shapes", "1", bundles[0])
        assert cluster.defaults() == {"other": "1", "shapes": "1"}

    cluster = Cluster()
    run(main())


def test_it_loads_by_version_and_bundle_only() -> None:
    async def main() -> None:
        with pytest.raises(ServeError) as error:
            await Control(Cluster(), Table()).load("shapes")
        assert error.value.kind == "method"

    run(main())


def test_a_folder_that_is_no_bundle_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(UserError):
            await Control(Cluster(), Table()).load("shapes", "1", tmp_path)

    run(main())
