"""The budget of bytes: all of it, a client's half, and who gives way."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas.serve import budget as module
from eyas.serve.budget import Budget
from eyas.serve.errors import ServeError


def test_bytes_are_given_back_at_the_end() -> None:
    budget = Budget(100)
    with contextlib.closing(budget.hold("a")) as held:
        held.take(30)
        held.give(10)
        assert (budget.used, held.size) == (20, 20)
    assert budget.used == 0
    held.close()
    assert budget.used == 0


def test_a_client_has_half_and_all_have_all() -> None:
    budget = Budget(100)
    one, two, three = budget.hold("a"), budget.hold("a"), budget.hold("b")
    one.take(30)
    with pytest.raises(ServeError) as caught:
        two.take(21)
    assert (caught.value.kind, caught.value.retry_after) == ("unavailable", 1.0)
    two.take(20)
    three.take(50)
    with pytest.raises(ServeError):
        budget.hold("c").take(1)
    one.close()
    budget.hold("c").take(30)


def test_who_stands_still_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 10.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    ended: list[str] = []
    budget = Budget(100)
    slow = budget.hold("a", lambda: ended.append("slow"))
    slower = budget.hold("b", lambda: ended.append("slower"))
    whole = budget.hold("c", lambda: ended.append("whole"))
    slower.take(30, more=True)
    whole.take(20, more=True)
    whole.take(10)  # it is complete: its request is worked on
    now = 10.1
    slow.take(30, more=True)
    now = 10.5
    with pytest.raises(ServeError):
        budget.hold("d").take(20)
    assert ended == [], "nobody has stood still for long"
    now = 11.05
    budget.hold("d").take(20)
    assert ended == ["slower"] and budget.used == 80
    now = 20.0
    budget.hold("e").take(45)
    assert ended == ["slower", "slow"]
    with pytest.raises(ServeError):
        budget.hold("f").take(45)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60), st.booleans(), st.booleans()), max_size=40))
def test_the_sum_is_never_exceeded(steps: list[tuple[int, int, bool, bool]]) -> None:
    budget = Budget(100)
    held = [budget.hold(client, lambda: None) for client in "abca"]
    for number, count, more, close in steps:
        with contextlib.suppress(ServeError):
            held[number].take(count, more=more)
        if close:
            held[number].close()
        assert 0 <= budget.used == sum(each.size for each in held) <= 100
        assert held[0].size + held[3].size <= 50
