"""The places of a port: a part is kept for others, idle streams end first, probes are answered, requests take turns."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest

from eyas.serve.http import connections as module
from eyas.serve.http.connections import AT_ONCE, InTurns, Places, Turns

MOST = 16


@dataclass(eq=False)
class Fake:
    """A connection."""

    since: float | None
    ended: list[int] = field(default_factory=list)

    def idle(self) -> float | None:
        return self.since

    def end(self) -> None:
        self.ended.append(1)


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "monotonic", lambda: 100.0)


def entered(places: Places, client: str, count: int, since: float | None, *, stream: bool = False) -> list[Fake]:
    found = []
    for _ in range(count):
        made = Fake(since)
        assert places.enter(made, client)
        if stream:
            following = Fake(since)
            places.stream(made, following)
            made = following
        found.append(made)
    return found


def test_the_last_quarter_is_kept_for_others() -> None:
    places = Places(MOST)
    crowd = entered(places, "a", 14, None)
    assert [places.spare(each) for each in crowd] == [False] * 12 + [True] * 2
    assert not places.enter(Fake(None), "a")
    others = entered(places, "b", 4, None)
    assert not any(map(places.spare, others))


def test_a_client_alone_may_have_what_others_do_not_want_and_its_idle_ones_end_first() -> None:
    places = Places(MOST)
    idle = entered(places, "a", 12, 50.0, stream=True)
    new = entered(places, "a", 3, None)
    assert sum(len(each.ended) for each in idle) == 3 and not any(map(places.spare, new))


def test_streams_end_before_connections_and_the_longest_idle_first() -> None:
    places = Places(MOST)
    (connection,) = entered(places, "a", 1, 10.0)
    (late,) = entered(places, "b", 1, 60.0, stream=True)
    (early,) = entered(places, "c", 1, 50.0, stream=True)
    busy = [*entered(places, "d", 7, None), *entered(places, "e", 6, None)]
    for expected in (early, late, connection):
        entered(places, "f", 1, None)
        assert expected.ended
        expected.ended.clear()
    assert not any(each.ended for each in busy)


def test_who_has_just_come_or_is_answered_keeps_its_place() -> None:
    places = Places(MOST)
    fresh = [*entered(places, "a", 8, 99.5), *entered(places, "b", 8, None)]
    (spare,) = entered(places, "c", 1, None)
    assert places.spare(spare) and not any(each.ended for each in fresh)
    places.leave(fresh[0])
    assert not places.spare(spare), "there is room now"


def test_a_place_is_given_back_once() -> None:
    places = Places(2)
    for _ in range(3):
        one = Fake(None)
        places.enter(one, "a")
        places.leave(one)
        places.leave(one)
    assert places.enter(Fake(None), "a") and not places.spare(one)


def test_a_burst_of_connections_does_not_look_through_all_of_them_for_each() -> None:
    places, asked = Places(400), []

    @dataclass(eq=False)
    class Counted(Fake):
        def idle(self) -> float | None:
            asked.append(1)
            return self.since

    held = [Counted(99.9) for _ in range(300)]
    assert all(places.enter(each, "a") for each in held)
    entering = [places.enter(Fake(None), "a") for _ in range(300)]
    assert entering.count(True) == 25 and len(asked) <= 2 * 300


def test_so_many_begin_each_time_that_the_loop_looks_at_its_sockets() -> None:
    async def check() -> list[tuple[int, ...]]:
        turns, begun, seen = Turns(), [], []
        for number in range(3 * AT_ONCE + 1):
            turns.take(lambda number=number: begun.append(number))  # type: ignore[misc]
        while len(begun) < 3 * AT_ONCE + 1:
            seen.append(tuple(begun))
            await asyncio.sleep(0)
        return [*seen, tuple(begun)]

    seen = asyncio.run(check())
    assert seen[-1] == tuple(range(3 * AT_ONCE + 1)), "in order, and all of them"
    steps = [len(later) - len(before) for before, later in itertools.pairwise(seen)]
    assert len(seen[0]) == AT_ONCE
    assert max(steps) == AT_ONCE


def test_a_probe_waits_for_none_of_them() -> None:
    ended: list[str] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        ended.append(scope["path"])

    async def check() -> None:
        whole = InTurns(app, Turns())
        paths = ["/v1/detect"] * (4 * AT_ONCE) + ["/livez"]
        await asyncio.gather(*(whole({"type": "http", "path": path}, None, None) for path in paths))  # type: ignore[arg-type]

    asyncio.run(check())
    assert ended.index("/livez") == AT_ONCE
    assert len(ended) == 4 * AT_ONCE + 1
