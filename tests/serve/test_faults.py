"""Workers that die, hang and are poisoned: every accepted request is answered as declared."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.serve.bundles import jpeg, write_bundle

from eyas.artifacts.model_key import ModelKey
from eyas.serve.api import Answer, Request
from eyas.serve.engine.engine import LocalEngine
from eyas.serve.engine.settings import EngineSettings
from eyas.serve.errors import ServeError
from eyas.serve.workers.base import Done, Task
from eyas.serve.workers.process_worker import ProcessWorker

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
SETTINGS = EngineSettings(workers=2, threads=1, goal=60.0)
POISON = jpeg(13, 14)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine."""
    asyncio.run(asyncio.wait_for(coroutine, 120))


def request(image: bytes | None = None, version: str = "") -> Request:
    """Return a request for one image."""
    return Request("r", "", version, (jpeg() if image is None else image,), timeout=60.0)


def children() -> list[int]:
    """Return the numbers of the worker processes that this process has, zombies included.

    Other tests of the same run may have left it other children, multiprocessing's resource tracker for one.
    """
    tasks = Path("/proc/self/task").iterdir()
    pids = [int(pid) for task in tasks for pid in (task / "children").read_text("ascii").split()]
    return [pid for pid in pids if may_be_worker(pid)]


def may_be_worker(pid: int) -> bool:
    """Return whether a process is a worker, or a zombie, of which nobody can tell."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return not words or b"eyas.serve.workers" in words


def open_files() -> int:
    """Return how many files this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two versions: the second one's scores are half of the first one's."""
    folder = tmp_path_factory.mktemp("faults")
    return write_bundle(folder / "one"), write_bundle(folder / "two", scale=0.5)


async def until_running(engine: LocalEngine, num: int) -> None:
    """Wait until so many workers are warm."""
    while sum(each.workers for each in engine.stats().values()) < num:
        await asyncio.sleep(0.01)


def test_a_killed_worker_costs_no_answer(bundles: tuple[Path, Path]) -> None:
    async def check() -> None:
        before = open_files()
        async with LocalEngine(SETTINGS) as engine:
            await engine.load("m", bundle=bundles[0])
            await until_running(engine, 2)
            accepted = [asyncio.create_task(engine.detect(request())) for _ in range(60)]
            await asyncio.sleep(0)
            os.kill(children()[0], signal.SIGKILL)
            assert all(isinstance(each, Answer) for each in await asyncio.gather(*accepted))
            await until_running(engine, 2)
            assert len(engine.quarantine) == 0
        await asyncio.sleep(0)
        assert children() == [] and open_files() <= before

    run(check())


def test_an_image_that_kills_is_run_twice_and_never_again(
    bundles: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, runs = ProcessWorker.submit, []

    def killing(self: ProcessWorker, tasks: Sequence[Task], done: Done) -> None:
        if any(task.image == POISON for task in tasks):
            runs.append(len(tasks))
            os.kill(self.pid, signal.SIGKILL)
        submit(self, tasks, done)

    monkeypatch.setattr(ProcessWorker, "submit", killing)

    async def check() -> None:
        async with LocalEngine(SETTINGS) as engine:
            await engine.load("m", bundle=bundles[0])
            poisoned = asyncio.create_task(engine.detect(request(POISON)))
            others = [asyncio.create_task(engine.detect(request())) for _ in range(20)]
            assert all(isinstance(each, Answer) for each in await asyncio.gather(*others))
            with pytest.raises(ServeError, match="died") as error:
                await poisoned
            assert error.value.kind == "unavailable" and len(runs) == 2 and runs[-1] == 1
            with pytest.raises(ServeError, match="not retried") as error:
                await engine.detect(request(POISON))
            assert error.value.kind == "unprocessable" and len(runs) == 2
            await until_running(engine, 1)
            assert isinstance(await engine.detect(request()), Answer)

    run(check())


@pytest.mark.parametrize(
    ("number", "told"), [(signal.SIGSEGV, "crashed on the image"), (signal.SIGSTOP, r"took longer than 0\.5 s")]
)
def test_the_client_is_told_what_its_image_did(
    bundles: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, number: int, told: str
) -> None:
    submit = ProcessWorker.submit

    def hurt(self: ProcessWorker, tasks: Sequence[Task], done: Done) -> None:
        if any(task.image == POISON for task in tasks):
            os.kill(self.pid, number)
        submit(self, tasks, done)

    monkeypatch.setattr(ProcessWorker, "submit", hurt)

    async def check() -> None:
        async with LocalEngine(EngineSettings(workers=1, threads=1, goal=60.0, batch_seconds=0.5)) as engine:
            await engine.load("m", bundle=bundles[0])
            with pytest.raises(ServeError, match=told) as error:
                await engine.detect(request(POISON))
            assert error.value.kind == "unprocessable"
            with pytest.raises(ServeError, match=f"{told}.*not retried"):
                await engine.detect(request(POISON))
            assert len(engine.quarantine) == 1
            await until_running(engine, 1)
            assert isinstance(await engine.detect(request()), Answer), "no other image is kept out"

    run(check())


def test_a_hung_worker_is_replaced_and_its_batch_run_again(bundles: tuple[Path, Path]) -> None:
    async def check() -> None:
        settings = EngineSettings(workers=1, threads=1, goal=60.0, batch_seconds=0.5)
        async with LocalEngine(settings) as engine:
            await engine.load("m", bundle=bundles[0])
            (pid,) = children()
            os.kill(pid, signal.SIGSTOP)
            assert isinstance(await engine.detect(request()), Answer)
            assert pid not in children()

    run(check())


def test_versions_are_swapped_under_load_with_nothing_lost(bundles: tuple[Path, Path]) -> None:
    async def check() -> None:
        settings = EngineSettings(workers=1, threads=1, goal=60.0)
        async with LocalEngine(settings) as engine:
            await engine.load("m", bundle=bundles[0])
            engine.alias("m", "champion", "1")
            answered: list[ModelKey] = []
            over = False

            async def client() -> None:
                while not over:
                    answered.append((await engine.detect(request())).model)

            clients = [asyncio.create_task(client()) for _ in range(4)]
            await engine.load("m", bundle=bundles[1])
            engine.alias("m", "champion", "2")
            flipped = len(answered)
            await engine.unload("m", "1")
            while len(answered) < flipped + 20:
                await asyncio.sleep(0.001)
            over = True
            await asyncio.gather(*clients)
            assert [key.version for key in answered[flipped:]].count("1") <= len(clients), "they were accepted before"
            assert len(children()) == 1, "the old version's process has ended"

    run(check())


def test_whatever_happens_every_request_is_answered_as_declared(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    """Kills, hangs, corrupt artefacts, broken images and alias flips, one after the other, under load."""
    broken = write_bundle(tmp_path / "broken")
    (broken / "model.onnx").write_bytes(b"no network")
    settings = EngineSettings(workers=1, threads=1, goal=60.0, batch_seconds=0.5)

    async def check() -> None:
        before, ends = open_files(), Counter[str]()
        async with LocalEngine(settings) as engine:
            await engine.load("m", bundle=bundles[0])
            await engine.load("m", bundle=bundles[1])
            asked, over = 0, False

            async def client(number: int) -> None:
                nonlocal asked
                while not over:
                    asked += 1
                    image = jpeg()[:500] if asked % 7 == 0 else jpeg(100 + number)
                    try:
                        ends[(await engine.detect(request(image))).model.version] += 1
                    except ServeError as error:
                        ends[error.kind] += 1
                        await asyncio.sleep(0.01)

            clients = [asyncio.create_task(client(number)) for number in range(4)]
            for step in range(6):
                engine.alias("m", "champion", "12"[step % 2])
                if step % 3 != 2:
                    os.kill(children()[step % len(children())], (signal.SIGKILL, signal.SIGSTOP)[step % 2])
                else:
                    with pytest.raises(ServeError, match="changed"):
                        await engine.load("m", "3", broken)
                await until_running(engine, 2)
                seen = ends.total()
                while ends.total() < seen + 20:
                    await asyncio.sleep(0.005)
            over = True
            await asyncio.gather(*clients)
            assert ends.total() == asked, "each was answered once"
            assert set(ends) <= {"1", "2", "unprocessable", "unavailable"}, ends
            assert ends["1"] and ends["2"] and ends["unprocessable"]
        await asyncio.sleep(0)
        assert children() == [] and open_files() <= before

    run(check())
