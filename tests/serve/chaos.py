"""The real server under everything at once: kills, hangs, spoiled artefacts, alias flips, slow and broken clients.

`run` starts `eyas serve --registry PLACE` as a process, lets clients ask it while faults come at random, ends it with
SIGTERM under load, and returns what happened as a `Report`; `Report.faults` says which invariants were broken.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import statistics
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.serve.bundles import jpeg, write_bundle
from tests.serve.processes import children, open_files, private, shared_memories, state, wait_until
from tests.serve.started import Started, started

from eyas.artifacts.card import Card
from eyas.artifacts.layout import MANIFEST
from eyas.mlflow_store import DATABASE
from eyas.registry import open_registry
from eyas.registry.store import ARTIFACTS

NAME = "m"
VERSIONS = ("1", "2", "3")
DECLARED = frozenset({200, 408, 422, 429, 503, 504})
GROWTH = 0.05  # of memory, from after the warm-up to the end
WORKERS = 2
BATCH_SECONDS = 1.0
WARM_SECONDS = 15.0  # of a worker's life that are its warm-up
START_SECONDS = 10.0  # a worker may be stopped while it starts


def make_registry(folder: Path) -> Path:
    """Make a registry with three versions, the first of which is the champion, and return its folder."""
    registry = open_registry(folder / "registry")
    for number in VERSIONS:
        bundle = write_bundle(folder / f"v{number}", scale=1.0 / int(number))
        Card.write(bundle, "bundle", [MANIFEST, "model.onnx"], version="0", created="2026-01-01T00:00:00+00:00")
        registry.add(bundle, NAME)
    registry.promote(NAME, "1")
    return folder / "registry"


@dataclass(frozen=True)
class Plan:
    """How a run goes; times in seconds.

    Attributes:
        seconds: how long clients, good and bad, go on.
        warm_up: after which memory is first looked at.
        calm: at the end, without faults: long enough for workers to show whether they grow.
        pause: between two faults, on average.
        seed: of what is drawn.
    """

    seconds: float
    warm_up: float
    calm: float = 0.0
    pause: float = 1.0
    seed: int = 0


@dataclass
class Report:
    """What happened.

    Attributes:
        seconds: how long clients and faults went on, warm-up included.
        statuses: answers of the well-behaved clients, by status; 0 for a connection that broke without an answer.
        versions: who answered.
        done: faults by kind.
        wrong: answers that were not their requests'.
        twice: requests with more than one line in the event log, or an answer and none.
        front: medians of its private memory in bytes: after the warm-up, and at the end.
        workers: means over the workers that lived for long enough of what each held first, and last.
        lives: how many these were.
        files: the front's open files at rest: before and after.
        left: processes that outlived the server.
        shared: pieces of shared memory that the front holds at rest: before and after.
        code: exit code after SIGTERM under load.
        refused: requests that came after the end, and were not accepted.
    """

    seconds: float
    statuses: Counter[int] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    front: tuple[float, float] = (0.0, 0.0)
    workers: tuple[float, float] = (0.0, 0.0)
    lives: int = 0
    files: tuple[int, int] = (0, 0)
    left: list[int] = field(default_factory=list)
    shared: tuple[int, int] = (0, 0)
    code: int | None = None
    refused: int = 0

    def faults(self) -> list[str]:
        """Return the invariants that were broken, in words."""
        undeclared = {status: count for status, count in self.statuses.items() if status not in DECLARED}
        told = [f"undeclared ends: {undeclared}"] if undeclared else []
        told += [f"wrong answers: {self.wrong[:5]}"] if self.wrong else []
        told += [f"not exactly one line in the log: {self.twice[:5]} of {len(self.twice)}"] if self.twice else []
        for name, (before, after) in (("front", self.front), ("workers", self.workers)):
            told += [f"{name} grew from {before:.0f} to {after:.0f} bytes"] if after > before * (1 + GROWTH) else []
        told += [f"open files: {self.files}"] if self.files[1] > self.files[0] else []
        told += [f"processes left: {self.left}"] if self.left else []
        told += [f"shared memory: {self.shared}"] if self.shared[1] > self.shared[0] else []
        told += [f"exit code {self.code}"] if self.code != 0 else []
        return told


# ---------------------------------------------------------------------------------------------------- clients


class World:
    """The server, the registry and the clients of one run."""

    def __init__(self, server: Started, registry: Path, plan: Plan) -> None:
        self.server, self.registry, self.pid = server, registry, server.process.pid
        self.random = random.Random(plan.seed)
        self.report = Report(plan.seconds)
        self.over, self.ending = threading.Event(), threading.Event()
        self.lock = threading.Lock()
        self.answered: set[str] = set()
        self.workers: set[int] = set()
        self.memory: list[tuple[float, int, dict[int, int]]] = []  # time, the front's, each worker's
        host, _, port = server.address("REST").removeprefix("http://").rpartition(":")
        self.address = (host, int(port))
        with contextlib.closing(sqlite3.connect(registry / DATABASE)) as database:
            rows = database.execute("SELECT version, source FROM model_versions WHERE name = ?", (NAME,)).fetchall()
        hashes = {path.name for path in (registry / ARTIFACTS).iterdir()}
        self.files = {
            str(version): next(registry / ARTIFACTS / each / "model.onnx" for each in hashes if each in source)
            for version, source in rows
        }
        self.champion = "1"

    # well-behaved clients

    def ask(self, client: int) -> None:
        """Ask again and again, each request with an id of its own, and hold the answer against it."""
        connection, number = http.client.HTTPConnection(*self.address, timeout=60), 0
        while not self.over.is_set():
            number += 1
            name, red = f"c{client}-{number}", 40 + (client * 37 + number) % 200
            broken = number % 17 == 0
            body = jpeg(red, number % 2)[: 400 if broken else None]
            head = {"Content-Type": "image/jpeg", "X-Request-Id": name}
            try:
                connection.request("POST", "/v1/detect?conf=0.01", body, head)
                answer = connection.getresponse()
                status, document = answer.status, json.loads(answer.read())
            except (OSError, http.client.HTTPException):
                connection.close()
                with self.lock:
                    if self.ending.is_set():
                        self.report.refused += 1  # it came after the end, or its answer is missed in the log below
                        return
                    self.report.statuses[0] += 1
                continue
            self._note(name, red, broken, status, document)
            if status != 200:
                time.sleep(0.05)
        connection.close()

    def _note(self, name: str, red: int, broken: bool, status: int, document: dict[str, Any]) -> None:
        """Write down an answer, and whether it belongs to its request."""
        with self.lock:
            self.report.statuses[status] += 1
            self.answered.add(name)
            if status != 200:
                return
            version = document["model"]["version"]
            self.report.versions[version] += 1
            score = document["detections"][0]["score"] if document["detections"] else 0.0
            if document["id"] != name or broken or abs(score - red / 255 / int(version)) > 0.03:
                self.report.wrong.append(f"{name}: {document}")

    # bad clients

    def disturb(self) -> None:
        """Be a slow or a broken client, again and again."""
        kinds = (self._drip, self._hang_up, self._rubbish, self._idle)
        while not self.over.is_set():
            kind = self.random.choice(kinds)
            with contextlib.suppress(OSError), socket.create_connection(self.address, timeout=60) as connection:
                kind(connection)
                self.report.done[kind.__name__.strip("_")] += 1
            time.sleep(0.05)

    def _head(self, length: int) -> bytes:
        lines = ("POST /v1/detect HTTP/1.1", "Host: localhost", "Content-Type: image/jpeg", f"Content-Length: {length}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def _drip(self, connection: socket.socket) -> None:
        connection.sendall(self._head(5000))
        for _ in range(self.random.randrange(10)):
            connection.sendall(b"\xff")
            time.sleep(0.02)

    def _hang_up(self, connection: socket.socket) -> None:
        body = jpeg()
        connection.sendall(self._head(len(body)) + body)  # and it does not wait for the answer

    def _rubbish(self, connection: socket.socket) -> None:
        connection.sendall(self.random.randbytes(300))
        connection.recv(1000)

    def _idle(self, connection: socket.socket) -> None:
        time.sleep(0.2)

    # faults

    def break_things(self, pause: float, seconds: float) -> None:
        """Wait, do something bad, and wait for the next, for so many seconds."""
        kinds = (self._flip, self._kill, self._stop, self._flip, self._spoil)
        step = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.over.wait(pause * self.random.uniform(0.5, 1.5)):
            kind = kinds[step % len(kinds)]
            step += 1
            if kind():
                self.report.done[kind.__name__.strip("_")] += 1

    def _signal(self, number: signal.Signals) -> bool:
        found = children(self.pid)
        if not found:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.random.choice(found), number)
        return True

    def _kill(self) -> bool:
        return self._signal(signal.SIGKILL)

    def _stop(self) -> bool:
        return self._signal(signal.SIGSTOP)

    def _flip(self) -> bool:
        target = self.random.choice([each for each in VERSIONS if each != self.champion])
        before = self.report.versions[target]
        self._point(target)
        wait_until(lambda: self.over.is_set() or self.report.versions[target] > before, 6.0)
        return True

    def _spoil(self) -> bool:
        """Let the champion be a version whose file is spoiled or gone, then go back to another, and mend it."""
        target = self.random.choice([each for each in VERSIONS if each != self.champion])
        before, path = self.champion, self.files[target]
        if target in {version for version in self._serving() if version}:
            return False  # its workers would find the file spoiled when they are started again
        whole = path.read_bytes()
        if self.random.random() < 0.5:
            path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        else:
            path.unlink()
        self._point(target)
        self.over.wait(1.5)
        self._point(before)
        path.write_bytes(whole)
        return True

    def _serving(self) -> list[str]:
        """Return the versions that are not unloaded."""
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        try:
            connection.request("GET", "/v1/models")
            models = json.loads(connection.getresponse().read())["models"]
        except (OSError, http.client.HTTPException):
            return list(VERSIONS)
        finally:
            connection.close()
        return [each["version"] for each in models if each["state"] not in ("unloaded", "failed")]

    def _point(self, version: str) -> None:
        """Set the alias as another program would, with no check."""
        with contextlib.closing(sqlite3.connect(self.registry / DATABASE, timeout=10)) as database, database:
            database.execute("UPDATE registered_model_aliases SET version = ? WHERE name = ?", (version, NAME))
        self.champion = version

    # measuring

    def watch(self) -> None:
        """Take memory and children four times a second."""
        while not self.over.wait(0.25):
            found = children(self.pid)
            self.workers.update(found)
            sizes = {each: size for each in found if (size := private(each))}
            self.memory.append((time.monotonic(), private(self.pid), sizes))


def run(folder: Path, registry: Path, plan: Plan) -> Report:
    """Start the server, break everything, end it under load, and return what happened."""
    words = ["--registry", str(registry), "--workers", str(WORKERS), "--threads", "1", "--slo", "10000"]
    words += [
        "--batch-seconds",
        str(BATCH_SECONDS),
        "--start-seconds",
        str(START_SECONDS),
        "--events",
        str(folder / "events"),
    ]
    with started(folder, *words) as server:
        world = World(server, registry, plan)
        report, pid = world.report, server.process.pid
        resting, shared = len(open_files(pid)), shared_memories(pid)
        asking = [threading.Thread(target=world.ask, args=(number,)) for number in range(4)]
        others = [threading.Thread(target=world.disturb), threading.Thread(target=world.watch)]
        breaking = threading.Thread(target=world.break_things, args=(plan.pause, plan.seconds - plan.calm))
        begin = time.monotonic()
        for thread in (*asking, *others, breaking):
            thread.start()
        time.sleep(plan.seconds)
        measured = time.monotonic()
        world.over.set()
        for thread in (*asking, *others, breaking):
            thread.join(90)
        _measure(world, begin + plan.warm_up, measured)
        at_rest: list[int] = []  # what looks at the registry or writes the log has a file open for a moment

        def rests() -> bool:
            at_rest.append(len(open_files(pid)))
            return len(children(world.pid)) == WORKERS and at_rest[-1] <= resting

        wait_until(rests)
        report.files, report.shared = (resting, at_rest[-1]), (shared, shared_memories(pid))
        _end_under_load(world)
    wait_until(lambda: not any(map(state, world.workers)), 5.0)
    report.left = [pid for pid in world.workers if state(pid)]
    _read_log(world, folder / "events" / "events.jsonl")
    return report


def _measure(world: World, warm: float, end: float) -> None:
    """Compare the front's medians of the first and last fifth after the warm-up, and each worker with itself."""
    length = (end - warm) / 5
    fronts = [
        [front for time, front, _ in world.memory if begin <= time <= begin + length] for begin in (warm, end - length)
    ]
    world.report.front = statistics.median(fronts[0]), statistics.median(fronts[1])
    lives: dict[int, list[tuple[float, int]]] = {}
    for now, _, workers in world.memory:
        for pid, size in workers.items():
            lives.setdefault(pid, []).append((now, size))
    first, last = [], []
    for life in lives.values():
        sizes = [size for now, size in life if now - life[0][0] > WARM_SECONDS]
        if len(sizes) >= 4 * WARM_SECONDS:
            first.append(statistics.median(sizes[:8]))
            last.append(statistics.median(sizes[-8:]))
    world.report.lives = len(first)
    world.report.workers = (statistics.mean(first), statistics.mean(last)) if first else (0.0, 0.0)


def _end_under_load(world: World) -> None:
    """Tell the server to end while clients ask."""
    world.over.clear()
    world.workers.update(children(world.pid))
    asking = [threading.Thread(target=world.ask, args=(100 + number,)) for number in range(4)]
    for thread in asking:
        thread.start()
    time.sleep(0.5)
    world.ending.set()
    world.server.process.send_signal(signal.SIGTERM)
    with contextlib.suppress(Exception):
        world.report.code = world.server.process.wait(60)
    for thread in asking:
        thread.join(60)
    world.over.set()


def _read_log(world: World, path: Path) -> None:
    """Hold the event log against what the clients got: one line for each answered request, none without an answer."""
    files = sorted(path.parent.glob("events*"))
    lines = [json.loads(line) for each in files if each.is_file() for line in each.read_text().splitlines()]
    counts = Counter(line["id"] for line in lines if line["event"] == "detect" and line["id"].startswith("c"))
    ids = {name for name in counts if name.partition("-")[0][1:].isdecimal()}
    world.report.twice = sorted(
        [name for name in world.answered if counts[name] != 1] + [name for name in ids if name not in world.answered]
    )


def copy_registry(made: Path, folder: Path) -> Path:
    """Return a copy of a registry, to be spoiled."""
    return shutil.copytree(made, folder / "registry")
