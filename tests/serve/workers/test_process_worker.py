"""Worker processes: what they answer, and every way in which they end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.serve.bundles import CLASSES, jpeg, make_image, write_bundle

from eyas.child_process import address_space
from eyas.serve.errors import Refused
from eyas.serve.workers.base import (
    Broken,
    ImageResult,
    Lost,
    Outcome,
    Ran,
    Task,
    WorkerFailed,
    WorkerSpec,
    too_much_memory,
)
from eyas.serve.workers.process_worker import ProcessWorker
from eyas.serve.workers.protocol import FromWorker, MessageReader, pack
from eyas.types import Thresholds

LOW = Thresholds(confidence=0.05)
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> WorkerSpec:
    """What the workers serve."""
    return WorkerSpec(write_bundle(tmp_path_factory.mktemp("supervisor") / "b"), threads=1, max_batch=2)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine."""
    asyncio.run(asyncio.wait_for(coroutine, 120))


class Watched:
    """A worker, and what became of it."""

    def __init__(self, spec: WorkerSpec, **options: Any) -> None:
        self.worker = ProcessWorker("w", spec, CLASSES, **options)
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def start(self) -> Watched:
        """Start it."""
        await self.worker.start(self._tell)
        return self

    def _tell(self, lost: Lost) -> None:
        self.told = lost.told
        self.lost.set_result(lost.reason)

    def submit(self, *images: Any, **options: Any) -> asyncio.Future[Outcome]:
        """Submit a batch."""
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.worker.submit([Task(each, LOW, **options) for each in images], outcome.set_result)
        return outcome

    async def scores(self, *images: Any) -> list[float]:
        """Return the first score of each image."""
        ran = await self.submit(*images)
        assert isinstance(ran, Ran)
        return [round(float(each.detections.scores[0]), 1) for each in ran.results if isinstance(each, ImageResult)]


def alive(pid: int) -> bool:
    """Return whether there is such a process, zombies included."""
    return Path(f"/proc/{pid}").exists()


def open_files() -> int:
    """Return how many files this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("shared", [1 << 20, 0])
def test_answers_and_stops_and_leaves_nothing(spec: WorkerSpec, shared: int) -> None:
    async def check() -> None:
        before = open_files()
        watched = await Watched(spec, shared_bytes=shared).start()
        pid = watched.worker.pid
        assert await watched.scores(jpeg(204), make_image(102)) == [0.8, 0.4]
        large = np.full((1200, 1200, 3), 51, np.uint8)  # 4 MB, more than the shared memory
        assert await watched.scores(large, jpeg(204)) == [0.2, 0.8]
        ran = await watched.submit(jpeg(), b"nonsense", annotate=True)
        assert isinstance(ran, Ran) and isinstance(ran.results[1], Refused)
        assert isinstance(ran.results[0], ImageResult) and ran.results[0].annotated[:2] == b"\xff\xd8"
        assert 10 << 20 < watched.worker.memory() < 1 << 30
        await watched.worker.stop(5.0)
        await watched.worker.stop(5.0)
        assert not alive(pid) and watched.worker.memory() == 0 and not watched.lost.done()
        await asyncio.sleep(0)  # the transport closes its socket in the loop's next round
        assert open_files() == before

    run(check())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_death_in_mid_batch_is_told_at_once(spec: WorkerSpec, number: signal.Signals) -> None:
    async def check() -> None:
        before = open_files()
        watched = await Watched(spec).start()
        os.kill(watched.worker.pid, signal.SIGSTOP)
        outcome = watched.submit(jpeg())
        os.kill(watched.worker.pid, number)
        os.kill(watched.worker.pid, signal.SIGCONT)
        assert number.name in await watched.lost
        assert not outcome.done() and not alive(watched.worker.pid)
        await asyncio.sleep(0)
        assert open_files() == before

    run(check())


def test_a_worker_that_hangs_is_killed(spec: WorkerSpec) -> None:
    async def check() -> None:
        watched = await Watched(replace(spec, batch_seconds=0.2)).start()
        os.kill(watched.worker.pid, signal.SIGSTOP)
        outcome = watched.submit(jpeg())
        assert "more than 0.2 s" in await watched.lost
        assert not outcome.done() and not alive(watched.worker.pid)

    run(check())


def test_an_image_that_wants_too_much_memory_is_refused_by_the_worker_that_goes_on(spec: WorkerSpec) -> None:
    async def check() -> None:
        watched = await Watched(replace(spec, memory=32 << 20)).start()
        limit = address_space(watched.worker.pid)
        ran = await watched.submit(jpeg(204, 0, 4000, 5000), jpeg(204))  # 60 MB of pixels
        assert isinstance(ran, Ran), ran
        first, second = ran.results
        assert isinstance(first, Refused) and first.kind in ("too_large", "unprocessable")
        assert isinstance(second, ImageResult)
        assert address_space(watched.worker.pid) <= limit + (32 << 20)
        await watched.worker.stop(1.0)

    run(check())


@pytest.mark.parametrize("damage", ["missing", "changed", "no network"])
def test_a_bundle_that_cannot_be_opened_is_told_in_words(tmp_path: Path, damage: str) -> None:
    async def check() -> None:
        folder = tmp_path / "b"
        if damage != "missing":
            write_bundle(folder)
            (folder / "model.onnx").write_bytes(b"" if damage == "changed" else b"\x08\x07")
        if damage == "no network":
            from eyas.artifacts.card import hash_file

            manifest = (folder / "manifest.json").read_text("utf-8")
            wrong = hash_file(folder / "model.onnx")
            import json

            fields = json.loads(manifest)
            fields["files"]["model.onnx"] = wrong
            (folder / "manifest.json").write_text(json.dumps(fields), "utf-8")
        watched = Watched(WorkerSpec(folder, threads=1))
        with pytest.raises(
            WorkerFailed, match={"missing": "is not a bundle", "changed": "changed"}.get(damage, "open")
        ):
            await watched.start()
        await watched.worker.stop(0.0)
        assert not alive(watched.worker.pid)

    run(check())


def test_a_worker_that_does_not_get_warm_is_killed(spec: WorkerSpec) -> None:
    async def check() -> None:
        watched = Watched(replace(spec, start_seconds=0.01))
        with pytest.raises(WorkerFailed, match=r"not ready within 0\.01 s"):
            await watched.start()
        await watched.worker.stop(0.0)
        assert not alive(watched.worker.pid)

    run(check())


def test_a_worker_that_talks_nonsense_is_killed(spec: WorkerSpec) -> None:
    async def check() -> None:
        watched = await Watched(spec).start()
        watched.submit(jpeg())
        watched.worker.data_received(b"x" * 100)
        assert "an invalid message" in await watched.lost

    run(check())


FRONT = """
import asyncio, sys
from pathlib import Path
from eyas.serve.workers.base import WorkerSpec
from eyas.serve.workers.process_worker import ProcessWorker

async def main():
    worker = ProcessWorker("w", WorkerSpec(Path(sys.argv[1]), threads=1), ("red", "blue"))
    await worker.start(print)
    print(worker.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("hung", [False, True])
def test_workers_end_with_a_front_that_was_killed(spec: WorkerSpec, hung: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", FRONT, str(spec.bundle)], stdout=subprocess.PIPE, text=True) as front:
        assert front.stdout is not None
        pid = int(front.stdout.readline())
        if hung:
            os.kill(pid, signal.SIGSTOP)
        front.kill()
    wait_until(lambda: not alive(pid) or "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3])


def wait_until(true: Callable[[], bool]) -> None:
    """Wait up to some seconds until the condition holds."""
    import time

    for _ in range(400):
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def test_works_in_the_loop_of_uvloop(spec: WorkerSpec) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def check() -> None:
        watched = await Watched(spec).start()
        assert await watched.scores(jpeg(204)) == [0.8]
        os.kill(watched.worker.pid, signal.SIGKILL)
        assert "SIGKILL" in await watched.lost
        again = await Watched(spec).start()
        await again.worker.stop(5.0)
        assert not alive(again.worker.pid)

    uvloop.run(asyncio.wait_for(check(), 120))


def test_a_batch_for_a_worker_that_has_just_died_is_given_back_with_it(spec: WorkerSpec) -> None:
    """Its connection is closed before its death is known; uvloop raises when something is written then."""
    uvloop = pytest.importorskip("uvloop")

    async def play() -> None:
        watched = await Watched(spec).start()
        os.kill(watched.worker.pid, signal.SIGSTOP)  # it dies slowly
        assert watched.worker._transport is not None
        watched.worker._transport.abort()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not watched.lost.done()
        outcome = watched.submit(make_image())
        os.kill(watched.worker.pid, signal.SIGKILL)
        assert "SIGKILL" in await watched.lost
        assert not outcome.done()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(play(), 120))


@pytest.mark.parametrize(
    ("number", "told"), [(signal.SIGSEGV, "crashed on the image"), (signal.SIGABRT, "crashed"), (signal.SIGKILL, "")]
)
def test_what_an_image_did_is_told_unless_it_was_killed(spec: WorkerSpec, number: int, told: str) -> None:
    async def check() -> None:
        watched = await Watched(spec).start()
        os.kill(watched.worker.pid, number)
        await watched.lost
        assert (told in watched.told.message) if told and watched.told else watched.told is None

    run(check())


def test_a_batch_for_which_there_is_no_memory_says_so() -> None:
    (broken,) = MessageReader(FromWorker).feed(pack(Broken("MemoryError: ", too_much_memory(2 << 30))))
    assert broken.told.kind == "too_large" and "more memory than the 2147 MB" in broken.told.message
