"""The group: as many workers as wanted, the dead replaced, the superfluous stopped when they are free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.serve.bundles import jpeg, write_bundle

from eyas.serve.workers import worker_group
from eyas.serve.workers.base import Done, ImageResult, Lost, Ran, Ready, Task, Worker, WorkerFailed, WorkerSpec
from eyas.serve.workers.inprocess import ThreadWorker
from eyas.serve.workers.worker_group import WorkerGroup
from eyas.types import DETECT

READY = Ready("engine", ((1, 0.01),), 0)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dead are replaced at once."""
    monkeypatch.setattr(worker_group, "FIRST_WAIT", 0.001)


class Dummy:
    """A worker that can be killed by the test, and that may refuse to start."""

    def __init__(self, name: str, log: list[str], broken: bool = False) -> None:
        self.name = name
        self.log = log
        self.broken = broken
        self.die: Callable[[Lost], None] = lambda reason: None

    async def start(self, lost: Callable[[Lost], None]) -> Ready:
        """Be ready at once, or fail."""
        await asyncio.sleep(0)
        if self.broken:
            raise WorkerFailed("no engine")
        self.die = lost
        return READY

    def submit(self, tasks: Sequence[Task], done: Done) -> None:
        """Do nothing."""

    def memory(self) -> int:
        """Return a number."""
        return 7

    async def stop(self, grace: float) -> None:
        """Note it."""
        self.log.append(f"stop {self.name}")


class Slow:
    """A dummy that starts in a way of its own."""

    def __init__(
        self, worker: Worker, start: Callable[[Any, Callable[[Lost], None]], Coroutine[Any, Any, Ready]]
    ) -> None:
        self.worker, self.begin = worker, start
        self.name, self.submit, self.memory, self.stop = worker.name, worker.submit, worker.memory, worker.stop

    async def start(self, lost: Callable[[Lost], None]) -> Ready:
        """Start in that way."""
        return await self.begin(self.worker, lost)


class Yard:
    """A group of dummies, and what happened to them in order."""

    def __init__(self, broken: Callable[[int], bool] = lambda number: False) -> None:
        self.log: list[str] = []
        self.made: list[Dummy] = []
        self.broken = broken
        self.group = WorkerGroup("m", self.make, self.joined, self.lost, self.release)

    def make(self, name: str) -> Worker:
        """Return a dummy."""
        self.made.append(Dummy(name, self.log, self.broken(len(self.made) + 1)))
        return self.made[-1]

    def joined(self, worker: Worker, ready: Ready) -> None:
        """Note it."""
        self.log.append(f"join {worker.name}")

    def lost(self, name: str, _: Lost) -> None:
        """Note it."""
        self.log.append(f"lose {name}")

    async def release(self, name: str) -> None:
        """Note it."""
        self.log.append(f"release {name}")

    async def until(self, event: str) -> None:
        """Wait for an event."""
        while event not in self.log:
            await asyncio.sleep(0.001)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine."""
    asyncio.run(asyncio.wait_for(coroutine, 120))


def test_the_dead_are_replaced_and_the_superfluous_finish_first() -> None:
    async def check() -> None:
        yard = Yard()
        await yard.group.start(2)
        await yard.until("join m#2")
        assert (yard.group.running, yard.group.wanted, yard.group.memory()) == (2, 2, 14)
        yard.made[0].die(Lost("killed"))
        assert yard.log[-1] == "lose m#1", "it gets no further batch from this moment on"
        await yard.until("join m#3")
        yard.group.resize(1)
        await yard.until("stop m#2")
        assert yard.log.index("release m#2") < yard.log.index("stop m#2")
        assert (yard.group.running, yard.group.wanted) == (1, 1)
        await yard.group.stop(1.0)
        assert yard.log[-1] == "stop m#3" and yard.group.running == 0

    run(check())


def test_a_first_worker_that_does_not_start_is_told_and_leaves_nothing() -> None:
    async def check() -> None:
        yard = Yard(broken=lambda number: True)
        with pytest.raises(WorkerFailed, match="no engine"):
            await yard.group.start(1)
        assert yard.group.wanted == 0 and yard.log == ["stop m#1"]

    run(check())


def test_the_first_that_is_warm_is_enough_whoever_it_is() -> None:
    async def check() -> None:
        yard, stopped = Yard(), asyncio.Event()
        start = Dummy.start

        async def slow(worker: Dummy, lost: Callable[[Lost], None]) -> Ready:
            if worker is yard.made[0]:
                await stopped.wait()
            return await start(worker, lost)

        yard.group = WorkerGroup("m", lambda name: Slow(yard.make(name), slow), yard.joined, yard.lost, yard.release)
        await yard.group.start(2)
        assert yard.log == ["join m#2"]
        stopped.set()
        await yard.until("join m#1")
        await yard.group.stop(0.0)

    run(check())


def test_a_later_one_that_does_not_start_is_tried_again() -> None:
    async def check() -> None:
        yard = Yard(broken=lambda number: number in (2, 3))
        await yard.group.start(1)
        yard.made[0].die(Lost("killed"))
        await yard.until("join m#4")
        await yard.group.stop(0.0)

    run(check())


def test_the_wait_doubles_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    async def check() -> None:
        yard = Yard(broken=lambda number: number > 1)
        await yard.group.start(1)
        monkeypatch.setattr(worker_group.asyncio, "sleep", noted)
        yard.made[0].die(Lost("killed"))
        while len([each for each in waits if each]) < 12:
            await sleep(0)
        await yard.group.stop(0.0)

    monkeypatch.setattr(worker_group, "FIRST_WAIT", 0.1)
    run(check())
    assert [each for each in waits if each][:12] == [0.1 * 2**n for n in range(7)] + [10.0] * 5


def test_a_worker_on_a_thread_runs_batches_and_tells_why_it_does_not_start(tmp_path: Path) -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        worker = ThreadWorker("w", WorkerSpec(write_bundle(tmp_path / "b"), threads=1, max_batch=2))
        ready = await worker.start(lambda reason: None)
        assert [size for size, _ in ready.latencies] == [1, 2] and "ONNX Runtime" in ready.description
        outcome = loop.create_future()
        worker.submit([Task(jpeg(), DETECT)], outcome.set_result)
        ran = await outcome
        assert isinstance(ran, Ran) and isinstance(ran.results[0], ImageResult)
        await worker.stop(1.0)
        with pytest.raises(WorkerFailed, match="is not a bundle"):
            await ThreadWorker("x", WorkerSpec(tmp_path / "nothing")).start(lambda reason: None)

    run(check())
