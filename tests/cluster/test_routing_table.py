"""Bundles as bytes: the same bundle elsewhere, a changed one refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.serve.bundles import write_bundle

from eyas.artifacts.manifest import Manifest
from eyas.artifacts.model_key import ModelKey
from eyas.artifacts.packing import digest, unpack
from eyas.cluster.routing_table import Table, model_id, read_entry
from eyas.errors import UserError


def test_a_bundle_is_the_same_after_the_journey(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "shapes")
    entry, files = read_entry(ModelKey("shapes", "1"), folder)
    there = unpack(files, tmp_path / "node" / entry.digest)
    assert Manifest.read(there) == entry.manifest == Manifest.read(folder)
    assert {path.name: path.read_bytes() for path in there.iterdir()} == files
    assert entry.id == model_id(entry.key) == "shapes/1"


def test_bundles_are_told_apart_by_any_byte(tmp_path: Path) -> None:
    _, one = read_entry(ModelKey("a", "1"), write_bundle(tmp_path / "a"))
    _, two = read_entry(ModelKey("a", "2"), write_bundle(tmp_path / "b" / "a", scale=0.5))
    assert digest(one) != digest(two) and digest(one) == digest(dict(reversed(one.items())))


def test_a_changed_bundle_is_refused_before_it_travels(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "shapes")
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError):
        read_entry(ModelKey("shapes", "1"), folder)


def table(tmp_path: Path, *names: str) -> Table:
    """Return a table of versions, each NAME/VERSION, of the same bundle."""
    folder = write_bundle(tmp_path / "shapes")
    return Table(entries=tuple(read_entry(ModelKey(*name.split("/")), folder)[0] for name in names))


def test_the_newest_version_is_the_default(tmp_path: Path) -> None:
    found = table(tmp_path, "b/10", "a/1", "b/9").statuses()
    assert [model_id(each.key) for each in found] == ["a/1", "b/9", "b/10"]
    assert [each.default for each in found] == [True, False, True]
    assert all(each.state == "ready" and each.manifest is not None for each in found)


def test_the_champion_is_the_default_and_aliases_are_told(tmp_path: Path) -> None:
    aliases = {"b": {"champion": "9", "challenger": "10", "tested": "10"}}
    found = replace(table(tmp_path, "b/10", "a/1", "b/9"), aliases=aliases).statuses()
    assert [(each.default, each.aliases) for each in found] == [
        (True, ()), (True, ("champion",)), (False, ("challenger", "tested")),
    ]  # fmt: skip


def test_a_replica_holds_first_what_aliases_point_to(tmp_path: Path) -> None:
    pointed = replace(table(tmp_path, "b/10", "a/1", "b/9"), aliases={"b": {"champion": "9"}})
    assert [each.id for each in pointed.first(2)] == ["b/9", "b/10"]
    assert [each.id for each in pointed.first(9)] == ["b/9", "b/10", "a/1"]
