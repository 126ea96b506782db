"""The registry: versions are bundles and nothing else, aliases move and go back, and every fault is told in words."""

from __future__ import annotations

import errno
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool
from tests.registry.carded import write_bundle

from eyas.artifacts.card import CARD, Card
from eyas.artifacts.measured import Accuracy, Latency
from eyas.artifacts.model_key import ModelKey
from eyas.errors import UserError
from eyas.mlflow_store import DATABASE
from eyas.registry import Event, Model, Registry, open_registry
from eyas.registry.artifacts import Artifacts
from eyas.registry.base import check_alias, check_name, parse_reference
from eyas.registry.record_reader import SqliteRecords
from eyas.registry.record_writer import SqliteWriter
from eyas.registry.store import ARTIFACTS, BundleRegistry


def hurried(place: Path) -> BundleRegistry:
    artifacts = Artifacts(place / ARTIFACTS)
    database = place / DATABASE
    return BundleRegistry(
        str(place), SqliteRecords(database, 0.05), SqliteWriter(database, artifacts, 0.05, 0.05), artifacts
    )


def test_versions_count_from_one_and_carry_their_bundle(registry: Registry, bundles: list[Path]) -> None:
    first, second = registry.add(bundles[0], "cars"), registry.add(bundles[1], "cars")
    assert (first.key, second.key) == (ModelKey("cars", "1"), ModelKey("cars", "2"))
    assert first.sha256 == Card.read(bundles[0]).sha256 != second.sha256
    assert json.loads(first.tags["card"])["files"] == Card.read(bundles[0]).files
    assert (first.tags["target"], first.tags["precision"]) == ("onnxruntime", "fp32")
    assert [model.name for model in registry.list()] == ["cars", "other"]
    found = registry.resolve("cars", "2")
    assert found.version == second and found.hashes == Card.read(bundles[1]).files
    assert (found.bundle / CARD).read_bytes() == (bundles[1] / CARD).read_bytes()


def test_what_was_measured_is_told(registry: Registry, tmp_path: Path) -> None:
    accuracy = Accuracy(map=0.4567, map_fp32=0.46, data="shapes", split="val", images=4)
    latency = Latency(
        device="a CPU", threads=2, batch=1, size=(64, 96), median_ms=1.234, p90_ms=2, versions={"onnxruntime": "1"}
    )
    bundle = write_bundle(tmp_path / "measured", accuracy=accuracy, latency=(latency,))
    tags = registry.add(bundle, "cars").tags
    assert (tags["mAP"], tags["latency"]) == ("0.4567", "1.23 ms (a CPU, 2 threads, batch 1)")
    bundle = write_bundle(tmp_path / "own", latency=(latency.model_copy(update={"threads": 0}),))
    assert (
        registry.add(bundle, "cars").tags["latency"] == "1.23 ms (a CPU, the engine's own number of threads, batch 1)"
    )


def test_the_same_bundle_is_the_same_version(registry: Registry, bundles: list[Path], tmp_path: Path) -> None:
    first = registry.add(bundles[0], "cars")
    again = shutil.copytree(bundles[0], tmp_path / "elsewhere")
    assert registry.add(again, "cars") == first
    assert registry.add(again, "vans").key == ModelKey("vans", "1")


def test_only_what_the_card_names_is_copied(registry: Registry, bundles: list[Path]) -> None:
    (bundles[0] / "notes.txt").write_text("mine")
    registry.add(bundles[0], "cars")
    copied = {path.name for path in registry.resolve("cars", "1").bundle.iterdir()}
    assert copied == {CARD, "manifest.json", "model.onnx"}


def test_an_alias_moves_and_goes_back(registry: Registry, bundles: list[Path], place: Path) -> None:
    for bundle in bundles:
        registry.add(bundle, "cars")
    for number in ("1", "2", "3"):
        registry.promote("cars", number)
    registry.promote("cars", "1", "challenger")
    assert registry.resolve("cars").version.key.version == "3"
    assert registry.rollback("cars").key.version == "2"
    assert open_registry(place).resolve("cars", "@champion").version.key.version == "2"
    assert registry.rollback("cars").key.version == "1"
    with pytest.raises(UserError, match="version 1 is its first"):
        registry.rollback("cars")
    registry.promote("cars", "3")
    assert registry.rollback("cars").key.version == "1"
    model = registry.show("cars")
    assert model.aliases == {"champion": "1", "challenger": "1"}
    history = [(event.action, event.version) for event in model.events if event.alias == "champion"]
    up, back = "promote", "rollback"
    assert history == [(up, "1"), (up, "2"), (up, "3"), (back, "2"), (back, "1"), (up, "3"), (back, "1")]
    with pytest.raises(UserError, match="it is not set"):
        registry.rollback("other")


def test_a_writer_that_ended_halfway_has_changed_nothing() -> None:
    def model(present: str) -> Model:
        events = tuple(Event("champion", number, "promote", "", "") for number in ("1", "2", "3"))
        return Model("cars", (), {"champion": present}, events)

    assert model("3").stack("champion") == ["1", "2", "3"]
    assert model("2").stack("champion") == ["1", "2"]  # "3" was written down only
    assert model("9").stack("champion") == ["1", "2", "9"]  # set by another program
    assert model("3").stack("challenger") == []


def test_what_is_not_there(registry: Registry, bundles: list[Path], tmp_path: Path) -> None:
    registry.add(bundles[0], "cars")
    with pytest.raises(UserError, match=r"no model 'car' \(did you mean 'cars'\?\)"):
        registry.show("car")
    with pytest.raises(UserError, match="no version 7"):
        registry.promote("cars", "7")
    with pytest.raises(UserError, match="no alias 'champion'"):
        registry.resolve("cars")
    with pytest.raises(UserError, match="There is no folder"):
        registry.add(tmp_path / "gone", "cars")
    (bundles[1] / CARD).unlink()
    with pytest.raises(UserError, match=r"no file card\.json"):
        registry.add(bundles[1], "cars")
    assert open_registry(tmp_path / "empty").list() == ()
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "..", "-a", "a" * 129, "a b", "ä"])
def test_odd_names(name: str) -> None:
    with pytest.raises(UserError, match="is not a valid model name"):
        check_name(name)


@pytest.mark.parametrize("alias", ["", "latest", "v1", "a b", "A", "1"])
def test_odd_aliases(alias: str) -> None:
    with pytest.raises(UserError, match="is not a valid alias"):
        check_alias(alias)


def test_references() -> None:
    assert parse_reference("cars") == ("cars", "")
    assert parse_reference("cars:3") == ("cars", "3")
    assert parse_reference("cars@champion") == ("cars", "@champion")
    with pytest.raises(UserError, match="'x' is not a version"):
        parse_reference("cars:x")


def test_a_changed_bundle_is_not_added(registry: Registry, bundles: list[Path]) -> None:
    with (bundles[0] / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match=r"model\.onnx was changed"):
        registry.add(bundles[0], "cars")
    assert [model.name for model in registry.list()] == ["other"]


def test_a_spoiled_copy_is_not_promoted_until_it_is_added_again(registry: Registry, bundles: list[Path]) -> None:
    registry.add(bundles[0], "cars")
    registry.promote("cars", "1")
    path = registry.resolve("cars", "1").bundle / "model.onnx"
    registry.add(bundles[1], "cars")
    registry.promote("cars", "2")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="copy of the bundle is damaged"):
        registry.resolve("cars", "1")
    with pytest.raises(UserError, match="copy of the bundle is damaged"):
        registry.rollback("cars")
    shutil.rmtree(path.parent)
    with pytest.raises(UserError, match="copy of the bundle is missing"):
        registry.promote("cars", "1")
    assert registry.show("cars").aliases == {"champion": "2"}
    path.parent.mkdir()
    assert registry.add(bundles[0], "cars").key.version == "1"
    assert registry.rollback("cars").key.version == "1"
    assert sorted(entry.name for entry in path.parent.parent.iterdir() if entry.name.startswith(".")) == []


def test_a_locked_registry(place: Path, bundles: list[Path]) -> None:
    registry = hurried(place)
    registry.add(bundles[0], "cars")
    with closing(sqlite3.connect(place / DATABASE)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for work in (registry.list, lambda: registry.add(bundles[1], "cars")):
            with pytest.raises(UserError, match="Another program has locked the registry"):
                work()
        other.rollback()
    with hurried(place)._writer.writing(), pytest.raises(UserError, match="Another program has locked the registry"):
        registry.promote("cars", "1")
    assert registry.promote("cars", "1").key.version == "1"


@contextmanager
def full_database() -> Iterator[None]:
    """Let SQLite's files not grow, as on a disk that is full."""

    def limit(connection: Any, record: Any) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    event.listen(Pool, "connect", limit)
    try:
        yield
    finally:
        event.remove(Pool, "connect", limit)


def test_a_full_disk_under_the_database(place: Path, tmp_path: Path) -> None:
    registry = open_registry(place)
    with full_database(), pytest.raises(UserError, match=r"The disk is full: the registry is unchanged"):
        for number in range(200):
            registry.add(write_bundle(tmp_path / str(number), f"{number}", details={"text": "x" * 900}), "cars")
    added = len(registry.show("cars").versions)
    # With room again: another connection, since that one keeps its limit.
    assert hurried(place).add(tmp_path / str(added), "cars").key.version == str(added + 1)


def test_a_full_disk_under_the_copies(registry: Registry, bundles: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(UserError, match="The disk is full: the bundle could not be copied"):
        registry.add(bundles[0], "cars")
    monkeypatch.undo()
    folder = Path(registry.location) / ARTIFACTS
    assert len(list(folder.iterdir())) == 1  # of the model `other`; nothing half is left
    assert registry.add(bundles[0], "cars").key.version == "1"


def test_a_damaged_registry(place: Path, bundles: list[Path]) -> None:
    (place / DATABASE).write_bytes(b"this is no database" * 100)
    for work in (open_registry(place).list, lambda: open_registry(place).add(bundles[0], "cars")):
        with pytest.raises(UserError, match="damaged: it is not a database"):
            work()


@pytest.mark.parametrize("text", ["sqlite:///x.db", "s3://bucket/x"])
def test_a_place_that_is_none(text: str) -> None:
    with pytest.raises(UserError, match="is not a registry"):
        open_registry(text)


PROMOTE = """
import sys
from eyas.registry import open_registry
registry = open_registry(sys.argv[1])
for i in range(10):
    registry.promote("cars", str(1 + (i + int(sys.argv[2])) % 3))
"""


def test_two_processes_promote_at_once(place: Path, bundles: list[Path]) -> None:
    registry = open_registry(place)
    for bundle in bundles:
        registry.add(bundle, "cars")
    command = [sys.executable, "-c", PROMOTE, str(place)]
    running = [subprocess.Popen([*command, str(start)], stderr=subprocess.PIPE) for start in (0, 1)]
    ended = [(process.communicate()[1].decode(), process.returncode) for process in running]
    assert [code for _, code in ended] == [0, 0], ended
    model = registry.show("cars")
    stack = model.stack("champion")
    assert len(model.events) >= 10
    assert model.events[-1].version == model.aliases["champion"] == stack[-1]
    # What one wrote, the other saw: no promotion repeats the version before it, and the way back is whole.
    assert all(a != b for a, b in pairwise(stack)) and len(stack) == len(model.events)
    assert registry.rollback("cars").key.version == stack[-2]


def test_reading_does_not_load_mlflow(place: Path) -> None:
    code = (
        "import sys\nfrom eyas.cli.main import main\n"
        f"assert main(['registry', 'show', 'other:1', '--registry', {str(place)!r}]) == 0\n"
        "assert not {'mlflow', 'sqlalchemy', 'onnxruntime'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
