"""When work is captured and replayed, and that it goes on where it can't be."""

from __future__ import annotations

import contextlib

import pytest
import torch

from eyas.training import graph as graph_module
from eyas.training.graph import WARM_UP, CudaGraphs

from .emulated_graph import emulate

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    emulate(monkeypatch)


class Adding:
    """Adds a tensor to a sum, and counts how often the Python code ran."""

    def __init__(self) -> None:
        self.calls = 0
        self.sum, self.value = torch.zeros(()), torch.ones(())

    def __call__(self) -> None:
        self.calls += 1
        self.sum += self.value * 2


def test_every_call_counts_once_and_the_later_ones_run_no_python() -> None:
    graphs, work = CudaGraphs(CPU, pytest.fail), Adding()
    for number in range(1, 9):
        work.value.fill_(number)
        graphs("one", work)
        assert float(work.sum) == number * (number + 1)
    assert work.calls == WARM_UP + 1 and graphs.captured == 1


def test_each_key_has_a_graph_of_its_own() -> None:
    graphs, works = CudaGraphs(CPU, pytest.fail), [Adding(), Adding()]
    for _ in range(5):
        for key, work in enumerate(works):
            graphs(key, work)
    assert graphs.captured == 2 and [float(work.sum) for work in works] == [10.0, 10.0]


def fail_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The function itself does what is not allowed; the end of the capture then fails too, and hides that."""
    capture = torch.cuda.graph

    @contextlib.contextmanager
    def broken(*args, **kwargs):
        with capture(*args, **kwargs):
            try:
                yield
                raise ValueError("a loss that looks at its values\nand more")
            finally:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "graph", broken)


def fail_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args, **kwargs):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(torch.cuda, "graph", broken)


def allow_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_module, "MOST", 0)


@pytest.mark.parametrize(
    ("fail", "why"),
    [(fail_inside, "a loss that looks at its values"), (fail_for_memory, "no memory left"), (allow_none, "0 of them")],
)
def test_what_can_not_be_captured_goes_on_without_and_says_why_once(
    fail, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams: list[object] = []
    monkeypatch.setattr(torch.cuda, "set_stream", streams.append)
    said: list[str] = []
    graphs, work = CudaGraphs(CPU, said.append), Adding()
    fail(monkeypatch)
    for number in range(1, 8):
        graphs("one", work)
        assert float(work.sum) == 2 * number
    assert (graphs.captured == 0 and said == [graphs.why] and said[0].endswith(why)) or why in said[0]
    assert "\n" not in said[0]
    assert len(streams) == (0 if fail is allow_none else 1)  # a capture that failed leaves its stream behind


def test_graphs_that_there_are_stay_when_a_further_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    graphs, good, late = CudaGraphs(CPU, said.append), Adding(), Adding()
    for _ in range(5):
        graphs("good", good)
    fail_for_memory(monkeypatch)
    for _ in range(5):
        graphs("late", late)
        graphs("good", good)
    assert graphs.captured == 1 and len(said) == 1
    assert (float(good.sum), float(late.sum)) == (20.0, 10.0)
    assert (good.calls, late.calls) == (WARM_UP + 1, 5)


def test_graphs_make_room_for_a_step_that_has_none_beside_them() -> None:
    said: list[str] = []
    graphs, good = CudaGraphs(CPU, said.append), Adding()
    large = Adding()

    def needs_much() -> None:
        if graphs.captured:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        large()

    for _ in range(5):
        graphs("good", good)
    for _ in range(5):
        graphs("large", needs_much)
        graphs("good", good)
    assert (float(good.sum), float(large.sum)) == (20.0, 10.0)
    assert graphs.captured == 0 and len(said) == 1 and "too little memory" in said[0]


def test_without_graphs_a_step_that_is_too_large_is_the_callers_matter() -> None:
    def too_large() -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        CudaGraphs(CPU, pytest.fail)("large", too_large)
