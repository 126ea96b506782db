"""Reading ahead: order, how much is begun before it is wanted, errors in their place, and an end at any time."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.fakes import write_jpeg

from eyas.errors import UserError
from eyas.read_ahead import ahead, prefetched, read_images


def readers() -> int:
    return sum(thread.name.startswith("eyas-read") for thread in threading.enumerate())


@pytest.mark.parametrize(("depth", "threads"), [(1, 1), (2, 2), (7, 3), (50, 4)])
def test_results_come_in_order_and_not_too_early(depth: int, threads: int) -> None:
    begun: list[int] = []
    lock = threading.Lock()

    def double(item: int) -> int:
        with lock:
            begun.append(item)
        return 2 * item

    results = ahead(double, itertools.count(), threads, depth)
    for number in range(20):
        assert next(results) == 2 * number
        assert len(begun) <= number + 1 + depth
    results.close()  # type: ignore[attr-defined]
    assert readers() == 0


def test_an_error_is_raised_in_its_place() -> None:
    results = ahead(lambda item: 1 // (3 - item), range(9))
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert readers() == 0


def test_what_is_made_one_after_another_is_made_ahead() -> None:
    taken = threading.Event()

    def make() -> Iterator[int | None]:
        yield None
        yield 1
        taken.set()
        yield 2
        raise ValueError("out of luck")

    items = prefetched(make(), 3)
    assert next(items) is None
    assert taken.wait(60)  # though nobody has asked for it
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ValueError, match="out of luck"):
        next(items)
    assert list(prefetched(iter(range(5)), 2)) == [0, 1, 2, 3, 4] and list(prefetched(iter(()), 2)) == []
    assert next(prefetched(itertools.count(), 2)) == 0
    assert readers() == 0


def test_images_that_cant_be_read_come_as_their_errors(tmp_path: Path) -> None:
    good = write_jpeg(tmp_path / "a.jpg", np.full((8, 9, 3), 255, np.uint8))
    (tmp_path / "b.jpg").write_bytes(b"no image")
    first, second, third, fourth = read_images([good, tmp_path / "b.jpg", tmp_path / "gone.jpg", good], depth=2)
    assert not isinstance(first, UserError) and first.shape == (8, 9, 3)
    assert isinstance(second, UserError) and isinstance(third, UserError)
    assert not isinstance(fourth, UserError) and np.array_equal(first, fourth)
