"""The front of a cluster: retries that nobody notices, refusals as they are, deadlines, streams in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import TypeVar, cast

import numpy as np
import pytest

from eyas.artifacts.manifest import Manifest
from eyas.artifacts.model_key import ModelKey
from eyas.cluster import engine as module
from eyas.cluster.engine import ClusterEngine, NotTakenError, Refusal, ReplicaLostError
from eyas.cluster.routing_table import Entry, Table
from eyas.cluster.settings import ClusterSettings
from eyas.errors import UserError
from eyas.serve.api import Answer, Lane, ModelStatus, Request
from eyas.serve.errors import ServeError
from eyas.types import Detections

KEY = ModelKey("birds", "2")
OLD = ModelKey("birds", "1")
NO_MANIFEST = cast("Manifest", None)
TABLE = Table(entries=tuple(Entry(key, NO_MANIFEST, key.version) for key in (OLD, KEY)))
NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), ("owl",), 8, 8)
T = TypeVar("T")
Reply = Answer | Refusal | Exception


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry at once."""
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.0)


def run(coroutine: Coroutine[None, None, T]) -> T:
    """Return what the coroutine returns, within a time that no test needs."""
    return asyncio.run(asyncio.wait_for(coroutine, 120))


def request(name: str = "a", *, stream: str = "", lane: Lane = "interactive", timeout: float | None = None) -> Request:
    """Return a request for the model's default version."""
    return Request(name, "birds", "", (b"image",), stream=stream, lane=lane, timeout=timeout)


def answer(asked: Request) -> Answer:
    """Return an answer that tells who gave it."""
    return Answer(asked.id, ModelKey(asked.model, asked.version), (NOTHING,))


class Replicas:
    """Replicas that reply as they are told, one reply a try, and with an answer when there are no more replies.

    Args:
        replies: what they reply.
    """

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.asked: list[tuple[Request, str]] = []

    async def __call__(self, asked: Request, model: str) -> Answer | Refusal:
        self.asked.append((asked, model))
        reply: Reply = self.replies.pop(0) if self.replies else answer(asked)
        if isinstance(reply, Exception):
            raise reply
        return reply


def cluster(ask: Callable[[Request, str], Awaitable[Answer | Refusal]], **settings: float) -> ClusterEngine:
    """Return an engine in front of the replicas."""
    return ClusterEngine(ask, TABLE, replace(ClusterSettings(), **settings))


def test_the_replica_is_asked_for_the_version_that_was_routed_to() -> None:
    async def main() -> Answer:
        return await cluster(replicas).detect(request())

    replicas = Replicas()
    assert run(main()).model == KEY
    asked, model = replicas.asked[0]
    assert (asked.model, asked.version, model) == ("birds", "2", "birds/2")


@pytest.mark.parametrize(
    "lost", [ReplicaLostError("gone"), TimeoutError(), Refusal("unavailable", "A worker died under it, twice.")]
)
def test_a_lost_replica_is_not_noticed(lost: Reply) -> None:
    async def main() -> int:
        engine = cluster(Replicas(lost, lost), retries=2)
        found = await engine.detect(request())
        assert found.id == "a" and found.timing.total > 0
        return engine.retried

    assert run(main()) == 2


def test_a_request_is_run_as_often_as_declared_and_no_more() -> None:
    async def main() -> None:
        engine = cluster(replicas, retries=2)
        with pytest.raises(ServeError, match="lost") as error:
            await engine.detect(request())
        assert error.value.kind == "unavailable" and error.value.retry_after
        assert not engine.ready()

    replicas = Replicas(*[ReplicaLostError()] * 9)
    run(main())
    assert len(replicas.asked) == 3


@pytest.mark.parametrize("kind", ["overloaded", "unprocessable", "internal", "invalid"])
def test_a_refusal_is_passed_on_and_not_tried_again(kind: module.Kind) -> None:
    async def main() -> bool:
        engine = cluster(replicas)
        with pytest.raises(ServeError, match="words") as error:
            await engine.detect(request())
        assert (error.value.kind, error.value.retry_after) == (kind, 0.5)
        return engine.ready()

    replicas = Replicas(Refusal(kind, "words", 0.5))
    assert run(main()) is (kind != "overloaded")
    assert len(replicas.asked) == 1


@pytest.mark.parametrize("kind", ["overloaded", "deadline"])
def test_who_lost_its_replica_gets_time_and_is_not_given_up_for_load(kind: module.Kind) -> None:
    async def main() -> None:
        found = await cluster(replicas, retries=2, patience=5.0).detect(request())
        assert found.id == "a"

    replicas = Replicas(ReplicaLostError("gone"), Refusal(kind, "words", 0.5))
    run(main())
    assert [asked.timeout for asked, _ in replicas.asked] == [None, 4.0, 4.0]


def test_who_was_accepted_and_did_not_get_its_turn_gets_more_time() -> None:
    async def main() -> int:
        engine = cluster(replicas, retries=2, patience=5.0)
        assert (await engine.detect(request())).id == "a"
        return engine.retried

    replicas = Replicas(Refusal("deadline", "too late"), Refusal("overloaded", "busy"))
    assert run(main()) == 2
    assert [asked.timeout for asked, _ in replicas.asked] == [None, 4.0, 4.0]


@pytest.mark.parametrize("late", [request(timeout=9.0), request(stream="s", lane="stream")], ids=["own time", "frame"])
def test_who_is_not_wanted_late_is_told_that_it_is_late(late: Request) -> None:
    async def main() -> None:
        with pytest.raises(ServeError, match="too late") as error:
            await cluster(replicas).detect(late)
        assert error.value.kind == "deadline"

    replicas = Replicas(Refusal("deadline", "too late"))
    run(main())
    assert len(replicas.asked) == 1


@pytest.mark.parametrize("last", [Refusal("overloaded", "busy"), Refusal("deadline", "too late")])
def test_who_was_accepted_is_told_that_all_tries_failed(last: Refusal) -> None:
    async def main() -> None:
        with pytest.raises(ServeError, match="lost") as error:
            await cluster(replicas, retries=1).detect(request())
        assert error.value.kind == "unavailable"

    replicas = Replicas(ReplicaLostError("gone"), last)
    run(main())
    assert len(replicas.asked) == 2


def test_what_no_replica_has_taken_uses_up_no_try() -> None:
    async def main() -> tuple[int, int]:
        engine = cluster(replicas, retries=0)
        assert (await engine.detect(request())).id == "a"
        return engine.retried, engine.passed_over

    replicas = Replicas(*[NotTakenError("silent")] * 5)
    assert run(main()) == (0, 5)
    assert [asked.timeout for asked, _ in replicas.asked] == [None] * 6


def test_what_no_replica_takes_at_all_fails_in_the_end() -> None:
    async def ask(_asked: Request, _model: str) -> Answer | Refusal:
        await asyncio.sleep(0.1)
        raise NotTakenError

    async def main() -> None:
        engine = cluster(ask, retries=1, patience=2.0)
        with pytest.raises(ServeError) as error:
            await engine.detect(request())
        assert error.value.kind == "unavailable" and engine.passed_over > 2

    run(main())


def test_a_bug_of_a_replica_is_not_spread_to_the_others() -> None:
    replicas = Replicas(ValueError("bug"))
    with pytest.raises(ValueError, match="bug"):
        run(_detect(replicas))
    assert len(replicas.asked) == 1


async def _detect(replicas: Replicas) -> Answer:
    return await cluster(replicas).detect(request())


def test_a_silent_replica_counts_as_lost_when_patience_ends() -> None:
    async def ask(asked: Request, model: str) -> Answer | Refusal:
        tries.append(model)
        if len(tries) == 1:
            await asyncio.Event().wait()
        return answer(asked)

    async def main() -> None:
        await cluster(ask, patience=0.5).detect(request())

    tries: list[str] = []
    run(main())
    assert len(tries) == 2


def test_the_requests_own_time_is_the_end_and_each_try_gets_what_is_left() -> None:
    async def ask(asked: Request, _model: str) -> Answer | Refusal:
        assert asked.timeout is not None
        left.append(asked.timeout)
        await asyncio.sleep(0.1)
        raise ReplicaLostError

    async def main() -> None:
        with pytest.raises(ServeError) as error:
            await cluster(ask, retries=1000).detect(request(timeout=2.0))
        assert error.value.kind == "deadline"

    left: list[float] = []
    run(main())
    assert 1.0 < left[0] <= 2.0 and left == sorted(left, reverse=True) and len(left) > 2


def test_a_client_that_goes_away_cancels_at_the_replica() -> None:
    async def ask(_asked: Request, _model: str) -> Answer | Refusal:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        raise AssertionError

    async def main() -> None:
        engine = cluster(ask)
        task = asyncio.create_task(engine.detect(request()))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await engine.drain()  # nothing is open any more

    begun, seen = asyncio.Event(), list[str]()
    run(main())
    assert seen == ["cancelled"]


def test_drain_waits_for_what_was_accepted_and_accepts_no_more() -> None:
    async def ask(asked: Request, _model: str) -> Answer | Refusal:
        await go.wait()
        return answer(asked)

    async def main() -> None:
        engine = cluster(ask)
        accepted = asyncio.create_task(engine.detect(request()))
        await asyncio.sleep(0)
        drained = asyncio.create_task(engine.drain())
        await asyncio.sleep(0)
        with pytest.raises(ServeError, match="shutting down"):
            await engine.detect(request("b"))
        assert not engine.ready() and not drained.done()
        go.set()
        assert (await accepted).id == "a"
        await drained

    go = asyncio.Event()
    run(main())


def test_the_newest_frame_waits_and_the_answers_come_in_order() -> None:
    async def ask(asked: Request, _model: str) -> Answer | Refusal:
        started.append(asked.id)
        await go.wait()
        return answer(asked)

    async def main() -> None:
        engine = cluster(ask)

        def frame(name: str, stream: str = "s") -> asyncio.Task[Answer]:
            return asyncio.create_task(engine.detect(request(name, stream=stream, lane="stream")))

        first, second = frame("1"), frame("2")
        await asyncio.sleep(0.01)
        third, other = frame("3"), frame("x", "t")
        await asyncio.sleep(0.01)
        assert started == ["1", "x"]  # another stream does not wait
        with pytest.raises(ServeError, match="newer frame") as error:
            await second
        assert error.value.kind == "cancelled"
        go.set()
        assert [(await each).id for each in (first, third, other)] == ["1", "3", "x"]
        assert started == ["1", "x", "3"]
        assert (await frame("4")).id == "4"  # nothing is left behind

    go, started = asyncio.Event(), list[str]()
    run(main())


def test_a_waiting_frame_that_is_cancelled_leaves_its_place() -> None:
    async def ask(asked: Request, _model: str) -> Answer | Refusal:
        await go.wait()
        return answer(asked)

    async def main() -> None:
        engine = cluster(ask)
        tasks = [asyncio.create_task(engine.detect(request(n, stream="s", lane="stream"))) for n in "12"]
        await asyncio.sleep(0.01)
        tasks[1].cancel()
        await asyncio.wait([tasks[1]])
        go.set()
        assert (await tasks[0]).id == "1"
        assert (await engine.detect(request("3", stream="s", lane="stream"))).id == "3"

    go = asyncio.Event()
    run(main())


def test_a_table_is_there_at_once_and_what_was_routed_before_is_waited_for() -> None:
    async def ask(asked: Request, model: str) -> Answer | Refusal:
        models.append(model)
        if model == "birds/1":
            await go.wait()
        return answer(asked)

    async def main() -> None:
        engine = cluster(ask)
        await engine.show(Table(1, TABLE.entries, {"birds": {"champion": "1"}}))
        before = asyncio.create_task(engine.detect(request()))
        await asyncio.sleep(0)
        shown = asyncio.create_task(engine.show(Table(3, TABLE.entries[1:], {"birds": {"champion": "2"}})))
        await asyncio.sleep(0)
        assert (await engine.detect(request())).model == KEY
        overtaken = asyncio.create_task(engine.show(Table(2, TABLE.entries, {"birds": {"champion": "1"}})))
        await asyncio.sleep(0)
        assert (await engine.detect(request())).model == KEY and models == ["birds/1", "birds/2", "birds/2"]
        await asyncio.sleep(0.1)
        assert not shown.done()
        go.set()
        assert (await before).model == OLD
        await asyncio.gather(shown, overtaken)

    go, models = asyncio.Event(), list[str]()
    run(main())


def test_the_engine_itself_changes_nothing() -> None:
    async def main() -> None:
        engine = cluster(Replicas())
        for call in (engine.load("birds"), engine.unload("birds")):
            with pytest.raises(ServeError) as error:
                await call
            assert error.value.kind == "method"
        assert engine.models() == (ModelStatus(OLD, "ready"), ModelStatus(KEY, "ready", default=True))
        with pytest.raises(ServeError, match="no model 'fish'"):
            await engine.detect(replace(request(), model="fish"))

    run(main())


@pytest.mark.parametrize(
    "bad",
    [
        {"min_replicas": 0}, {"min_replicas": 3, "max_replicas": 2}, {"cpus": -1.0}, {"models": 0}, {"retries": -1},
        {"patience": 0.0}, {"gpus": float("nan")},
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UserError):
        replace(ClusterSettings(), **bad)
