"""Batches on their way to the GPU, with streams that stand in for CUDA's: one ahead, in one copy, never too early."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from tests.data.makers import Counting
from tests.data.streams import FakeCuda

from eyas.data.loading.ahead import Ahead
from eyas.data.loading.batch import Batch, TensorBlock
from eyas.data.loading.block import OwnRoom
from eyas.data.loading.workers import Pipe
from eyas.errors import UserError

CUDA = torch.device("cuda:3")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return FakeCuda(monkeypatch)


class Source:
    """Gives batches 0, 1, 2, ... and notes which were asked for, and in which thread."""

    def __init__(self, end: int = 5, fails: int = -1) -> None:
        self.end, self.fails = end, fails
        self.asked: list[int] = []
        self.came = threading.Semaphore(0)

    def __iter__(self) -> Iterator[Batch]:
        room = OwnRoom()
        for number in range(self.end):
            self.asked.append(number)
            self.came.release()
            if number == self.fails:
                raise UserError("A thing is missing.")
            [arrays] = Counting()(7, (number,), False, room)
            yield Batch.of_block(TensorBlock.of(room.block(arrays)))

    def wait(self) -> None:
        assert self.came.acquire(timeout=300)


def test_a_batch_is_there_when_it_is_given_and_the_next_is_on_its_way(cuda: FakeCuda) -> None:
    source = Source()
    ahead = Ahead(iter(source), CUDA)
    source.wait()  # without being asked for anything
    given: list[Batch] = []
    for batch in ahead:
        # On the device, whatever the host sees: the trainer's stream has the copy behind it, and no copy but this one.
        assert batch.labels[:2].tolist() == [len(given), 7]
        assert (batch.images == len(given)).all()
        assert batch.on_host() is not batch and torch.equal(batch.on_host().labels, batch.labels)
        given.append(batch)
        if len(given) < 5:
            source.wait()
            ahead.settle()
            assert source.asked == list(range(len(given) + 1))
    assert [int(batch.labels[0]) for batch in given] == [0, 1, 2, 3, 4]
    assert cuda.pinned == 5 and cuda.devices == [CUDA] and cuda.threads == {"eyas-ahead_0"}
    memory = [batch.block.memory.data_ptr() for batch in given if batch.block is not None]
    assert cuda.recorded == [(address, cuda.current) for address in memory]


def test_an_error_comes_after_the_batches_before_it(cuda: FakeCuda) -> None:
    batches = iter(Ahead(iter(Source(fails=2)), CUDA))
    assert [int(next(batches).labels[0]) for _ in range(2)] == [0, 1]
    with pytest.raises(UserError, match="A thing is missing"):
        next(batches)


def test_a_pipe_gives_batches_on_a_cuda_device_and_goes_on_anew(cuda: FakeCuda) -> None:
    for workers in (0, 2):
        piped = Pipe(Counting(), workers, CUDA, 12)
        first = piped.run([(0, (number,), False) for number in range(40)])
        assert [int(next(first).labels[0]) for _ in range(3)] == [0, 1, 2]
        second = piped.run([(1, (number,), False) for number in range(6)])  # while a batch of the first is on its way
        assert [batch.labels[:2].tolist() for batch in second] == [[number, 1] for number in range(6)]
        with pytest.raises(RuntimeError, match="iterated again"):
            next(first)
        piped.close()


def test_closing_does_not_wait_for_a_batch_that_is_being_made(cuda: FakeCuda, tmp_path: object) -> None:
    piped = Pipe(Counting(at=1, how="sleep", marker=f"{tmp_path}/sleeps"), 1, CUDA, 12)
    batches = piped.run([(0, (0,), False), (0, (1,), False)])
    assert int(next(batches).labels[0]) == 0
    piped.close()  # its thread waits for a worker that sleeps for ever
    with pytest.raises(RuntimeError, match="closed"):
        next(batches)


@pytest.mark.parametrize("device", [None, torch.device("cpu"), torch.device("mps")])
def test_only_cuda_has_batches_made_ahead_in_a_thread(device: torch.device | None) -> None:
    made = Pipe(Counting(), 0, device, 12)
    threads = threading.active_count()
    [batch] = made.run([(0, (4,), False)])
    assert batch.images.device.type == "cpu" and int(batch.labels[0]) == 4
    assert threading.active_count() == threads
