"""A writer that is killed after any of its steps: the next call goes on, and nothing that was there is lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.registry.carded import write_bundle

from eyas.errors import UserError
from eyas.mlflow_store import DATABASE
from eyas.registry import Registry, open_registry
from eyas.registry.store import ARTIFACTS

# Imports MLflow once, then lets one child after another do the same work, each ended at a later step than the one
# before: without a destructor, a rollback or a flush, as by SIGKILL. Steps are SQL statements, their commits, and
# names that are given in the file system. Prints how many steps there are, and then a line a child.
SCRIPT = """
import os, shutil, sys
from pathlib import Path
import mlflow.store.model_registry.sqlalchemy_store
from sqlalchemy import event
from sqlalchemy.engine import Engine
from eyas.registry import open_registry

start, place, work, share = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])

def child(folder, last):
    steps = 0
    def step(*_):
        nonlocal steps
        steps += 1
        if steps == last:
            os._exit(9)
    event.listen(Engine, "before_cursor_execute", step)
    event.listen(Engine, "commit", step)
    sys.addaudithook(lambda name, _: step() if name in ("os.rename", "shutil.copyfile", "os.mkdir") else None)
    registry = open_registry(folder)
    exec(work)
    return steps

def forked(folder, last):
    if Path(start).is_dir():
        shutil.copytree(start, folder)
    read, write = os.pipe()
    number = os.fork()
    if not number:
        os.write(write, str(child(folder, last)).encode())
        os._exit(0)
    os.close(write)
    code = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    return code, os.read(read, 99)

code, steps = forked(place + "/whole", -1)
assert code == 0, code
total = int(steps)
print(total, flush=True)
share = min(share, total)
chosen = sorted({round(1 + i * (total - 1) / (share - 1)) for i in range(share)})
for last in chosen:
    code, _ = forked(f"{place}/{last}", last)
    print(last, code, flush=True)
"""


def killed(start: Path, place: Path, work: str, share: int) -> list[Path]:
    """Return the folders of registries whose writer was ended, each at another of at most `share` steps."""
    place.mkdir()
    command = [sys.executable, "-c", SCRIPT, str(start), str(place), work, str(share), "0"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    total, *lines = done.stdout.split("\n")[:-1]
    assert int(total) > 3 and all(line.endswith(" 9") for line in lines) and len(lines) >= min(share, int(total))
    return [place / line.split()[0] for line in lines]


def test_killed_while_it_is_made(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    for place in killed(tmp_path / "none", tmp_path / "places", f"registry.add(Path({str(bundle)!r}), 'cars')", 6):
        registry = open_registry(place)
        assert registry.list() == () or [len(model.versions) for model in registry.list()] in ([0], [1])
        if not (place / DATABASE).exists() and place.name != "1":
            continue  # no file of that name: as the first one, with which it is tried; MLflow takes seconds
        version = registry.add(bundle, "cars")
        assert version.key.version == "1" and registry.promote("cars", "1") == version
        assert registry.resolve("cars").version == version
        assert not list(place.glob(".*.tmp*"))


@pytest.mark.parametrize(
    "work", ["registry.add(Path({bundle!r}), 'cars')", "registry.promote('other', '2')", "registry.rollback('other')"]
)
def test_killed_in_a_later_call(made: Path, tmp_path: Path, work: str) -> None:
    start = shutil.copytree(made, tmp_path / "start")
    bundle = write_bundle(tmp_path / "bundle", "second")
    registry = open_registry(start)
    registry.add(bundle, "other")
    registry.promote("other", "1")
    if "rollback" in work:
        registry.promote("other", "2")
    before = registry.show("other")
    third = write_bundle(tmp_path / "third", "third")
    for place in killed(start, tmp_path / "places", work.format(bundle=str(third)), 8):
        registry = open_registry(place)
        found = registry.show("other")
        assert found.versions == before.versions and found.aliases["champion"] in ("1", "2")
        assert registry.resolve("other", "1").version == before.versions[0]
        assert registry.add(third, "cars").key.version == "1"
        if "rollback" in work and found.aliases["champion"] == "2":
            assert registry.rollback("other").key.version == "1"
        assert registry.promote("other", "2").key.version == "2"
        assert registry.rollback("other").key.version == "1", "the alias's history is what it was"


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "CREATE TABLE experiments (experiment_id INTEGER)",
        "CREATE TABLE registered_models (name VARCHAR(256))",
        "CREATE TABLE registered_models (name VARCHAR(256)); CREATE TABLE model_versions (name VARCHAR(256));"
        "CREATE TABLE registered_model_aliases (name VARCHAR(256)); CREATE TABLE alembic_version (version_num TEXT);"
        "INSERT INTO alembic_version VALUES ('451aebb31d03')",
    ],
    ids=["empty", "first table", "models", "all but the last migrations"],
)
def test_tables_that_were_left_half_made_are_made_anew(tmp_path: Path, sql: str) -> None:
    place = tmp_path / "registry"
    place.mkdir()
    (place / DATABASE).touch()
    if sql:
        with closing(sqlite3.connect(place / DATABASE)) as database:
            database.executescript(sql)
    registry = open_registry(place)
    assert registry.list() == ()
    with pytest.raises(UserError, match="has no model 'cars'"):
        registry.show("cars")
    assert registry.add(write_bundle(tmp_path / "bundle"), "cars").key.version == "1"


@pytest.mark.parametrize("data", [b"not a database" * 999, b"\0" * 4096, b"SQLite format 3\0" + b"\xff" * 4096])
def test_what_is_no_database_is_told_and_left_alone(tmp_path: Path, data: bytes) -> None:
    place = tmp_path / "registry"
    place.mkdir()
    (place / DATABASE).write_bytes(data)
    registry = open_registry(place)
    for call in (registry.list, lambda: registry.add(write_bundle(tmp_path / "bundle"), "cars")):
        with pytest.raises(UserError):
            call()
    assert (place / DATABASE).read_bytes() == data


def test_a_database_of_somebody_else_with_something_in_it_is_kept(tmp_path: Path) -> None:
    place = tmp_path / "registry"
    place.mkdir()
    with closing(sqlite3.connect(place / DATABASE)) as database:
        database.executescript("CREATE TABLE experiments (x INTEGER); INSERT INTO experiments VALUES (1)")
    open_registry(place).add(write_bundle(tmp_path / "bundle"), "cars")
    with closing(sqlite3.connect(place / DATABASE)) as database:
        assert database.execute("SELECT x FROM experiments").fetchall() == [(1,)]


def test_copies_that_were_left_by_a_killed_process_go(registry: Registry, place: Path, tmp_path: Path) -> None:
    old, new = (place / ARTIFACTS / f".adding-{name}" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"half")
    os.utime(old, (1e9, 1e9))
    registry.add(write_bundle(tmp_path / "bundle"), "cars")
    assert not old.exists() and new.exists(), "another process may be writing the new one"
