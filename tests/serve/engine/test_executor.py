"""The executor between the scheduler and the workers: batches, retries after a death, places freed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
import pytest

from eyas.serve.engine.executor import Executor, Ticket
from eyas.serve.errors import Refused, ServeError
from eyas.serve.scheduler.latency import LatencyProfile
from eyas.serve.scheduler.types import Lane
from eyas.serve.workers.base import Broken, Done, ImageResult, Lost, Ran, Ready, Task
from eyas.types import DETECT, Detections

NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), ("a",), 1, 1)


class FakeWorker:
    """Keeps its batch until told what became of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.batches: list[tuple[Sequence[Task], Done]] = []

    async def start(self, lost: Callable[[Lost], None]) -> Ready:
        """Be ready."""
        return Ready("", ((1, 0.01),), 0)

    def submit(self, tasks: Sequence[Task], done: Done) -> None:
        """Keep the batch."""
        self.batches.append((tasks, done))

    def memory(self) -> int:
        """Hold nothing."""
        return 0

    async def stop(self, grace: float) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Find nothing in the last batch."""
        tasks, done = self.batches[-1]
        done(Ran(tuple(ImageResult(NOTHING) for _ in tasks), 0.01))


def executor_with(*workers: FakeWorker, max_batch: int = 4) -> tuple[Executor, list[bytes]]:
    """Return a executor that feeds the workers, and the list of the images of dead batches."""
    dead: list[Any] = []
    executor = Executor(lambda tasks, _: dead.extend(task.image for task in tasks))
    for worker in workers:
        executor.add("m", worker, LatencyProfile(0.01, 0.0001), 30.0, max_batch)
    return executor, dead


def submit(executor: Executor, *images: bytes) -> Ticket:
    """Submit a request for images."""
    ticket = Ticket([Task(each, DETECT) for each in images], asyncio.get_running_loop().create_future())
    executor.submit("m", ticket, Lane.INTERACTIVE, "", None)
    return ticket


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine."""
    asyncio.run(asyncio.wait_for(coroutine, 120))


def sizes(worker: FakeWorker) -> list[int]:
    """Return the sizes of the batches that the worker got."""
    return [len(tasks) for tasks, _ in worker.batches]


def test_what_waits_goes_out_together_when_the_worker_is_free() -> None:
    async def check() -> None:
        worker = FakeWorker("w")
        executor, _ = executor_with(worker)
        tickets = [submit(executor, b"a"), submit(executor, b"b", b"c"), submit(executor, b"d")]
        assert sizes(worker) == [1]
        worker.finish()
        assert sizes(worker) == [1, 3] and tickets[0].done.done() and not tickets[1].done.done()
        worker.finish()
        assert all(ticket.done.done() for ticket in tickets) and tickets[1].batch == 3

    run(check())


def test_a_death_costs_the_running_batch_one_retry_alone_and_nobody_else_anything() -> None:
    async def check() -> None:
        worker = FakeWorker("w")
        executor, dead = executor_with(worker)
        first, waiting = submit(executor, b"a"), submit(executor, b"c")
        assert sizes(worker) == [1]
        executor.lose("w", Lost("dead"))
        assert dead == [b"a"] and not first.done.done()
        second = FakeWorker("w2")
        executor.add("m", second, LatencyProfile(0.01, 0.0001), 30.0, 4)
        assert [task.image for task in second.batches[0][0]] == [b"a"], "run again, alone"
        executor.lose("w2", Lost("dead"))
        with pytest.raises(ServeError, match="died") as error:
            await first.done
        assert error.value.kind == "unavailable" and dead == [b"a", b"a"]
        third = FakeWorker("w3")
        executor.add("m", third, LatencyProfile(0.01, 0.0001), 30.0, 4)
        third.finish()
        await waiting.done

    run(check())


def test_a_broken_batch_is_run_again_one_by_one() -> None:
    async def check() -> None:
        worker = FakeWorker("w")
        executor, dead = executor_with(worker)
        block = submit(executor, b"x")
        good, bad = submit(executor, b"a"), submit(executor, b"b")
        worker.finish()
        await block.done
        worker.batches[-1][1](Broken("no"))
        assert sizes(worker) == [1, 2, 1]
        worker.finish()
        worker.batches[-1][1](Broken("no"))
        await good.done
        with pytest.raises(ServeError) as error:
            await bad.done
        assert error.value.kind == "internal" and dead == []

    run(check())


def test_one_refused_image_ends_its_request_and_frees_the_places_of_the_others() -> None:
    async def check() -> None:
        worker = FakeWorker("w")
        executor, _ = executor_with(worker, max_batch=1)
        ticket, other = submit(executor, b"a", b"b", b"c"), submit(executor, b"d")
        worker.batches[-1][1](Ran((Refused("unprocessable", "no image"),), 0.0))
        with pytest.raises(ServeError, match="Image 1 of 3: no image"):
            await ticket.done
        assert [task.image for task in worker.batches[-1][0]] == [b"d"]
        worker.finish()
        await other.done

    run(check())


def test_of_a_partial_request_the_poisonous_image_alone_fails() -> None:
    async def check() -> None:
        worker = FakeWorker("w")
        executor, dead = executor_with(worker)
        block = submit(executor, b"x")
        tasks = [Task(each, DETECT) for each in (b"a", b"b", b"c", b"d")]
        refused = {1: Refused("invalid", "known before")}
        ticket = Ticket(tasks, asyncio.get_running_loop().create_future(), True, refused)
        executor.submit("m", ticket, Lane.INTERACTIVE, "", None)
        worker.finish()
        await block.done
        assert [task.image for task in worker.batches[-1][0]] == [b"a", b"c", b"d"]
        executor.lose("w", Lost("dead"))
        for number in range(2):  # run again, each alone; the first kills a second worker
            executor.add("m", following := FakeWorker(f"w{number}"), LatencyProfile(0.01, 0.0001), 30.0, 4)
            if not number:
                executor.lose(following.name, Lost("dead"))
        following.finish()
        assert not ticket.done.done()
        following.batches[-1][1](Ran((Refused("unprocessable", "no image"),), 0.0))
        await ticket.done
        kinds = [each.kind if isinstance(each, Refused) else each for each in ticket.results]
        assert kinds == ["unavailable", "invalid", ImageResult(NOTHING), "unprocessable"]
        assert dead == [b"a", b"c", b"d", b"a"]

    run(check())


def test_a_request_is_admitted_whole_or_not_at_all() -> None:
    async def check() -> None:
        executor = Executor(lambda tasks, _: None, max_waiting=3)
        worker = FakeWorker("w")
        executor.add("m", worker, LatencyProfile(0.01, 0.0), 30.0, 1)
        running = submit(executor, b"x")
        with pytest.raises(ServeError) as error:
            submit(executor, b"a", b"b", b"c", b"d")
        assert error.value.kind == "overloaded" and open_items(executor) == 1
        worker.finish()
        await running.done
        assert sizes(worker) == [1]

    run(check())


def open_items(executor: Executor) -> int:
    """Return how many items wait or run."""
    return executor.scheduler.stats(asyncio.get_running_loop().time())["m"].open


def test_releasing_waits_for_the_batch_and_gives_no_other() -> None:
    async def check() -> None:
        worker, other = FakeWorker("w"), FakeWorker("v")
        executor, _ = executor_with(worker)
        running = submit(executor, b"a")
        released = asyncio.create_task(executor.release("w"))
        await asyncio.sleep(0)
        assert not released.done()
        executor.add("m", other, LatencyProfile(0.01, 0.0001), 30.0, 4)
        waits = submit(executor, b"b")
        assert sizes(worker) == [1] and sizes(other) == [1]
        worker.finish()
        other.finish()
        await asyncio.gather(released, running.done, waits.done)
        assert sizes(worker) == [1]

    run(check())


def test_batches_are_timed_more_finely_than_the_loop_counts() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def check() -> None:
        worker = FakeWorker("w")
        executor, _ = executor_with(worker, max_batch=1)
        for _ in range(20):
            ticket = submit(executor, b"a")
            time.sleep(0.0004)  # less than the millisecond in which uvloop counts
            worker.finish()
            assert ticket.ended - ticket.dispatched >= 0.0004

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(check())


def test_what_an_image_alone_did_to_its_worker_is_told_to_its_client() -> None:
    async def check() -> None:
        told = Refused("unprocessable", "The image took longer than 30 s, twice.")
        executor, _ = executor_with(FakeWorker("w"))
        ticket = submit(executor, b"a")
        executor.lose("w", Lost("dead", told))
        executor.add("m", FakeWorker("w2"), LatencyProfile(0.01, 0.0001), 30.0, 4)
        executor.lose("w2", Lost("dead", told))
        with pytest.raises(ServeError, match="longer than 30 s") as error:
            await ticket.done
        assert error.value.kind == "unprocessable" and ticket.blamed

    run(check())
