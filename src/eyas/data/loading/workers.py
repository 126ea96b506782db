"""Batches in order, made here or by worker processes, on the GPU before they are asked for where there is one."""

from __future__ import annotations

import sys
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import torch

from eyas.data.loading.ahead import Ahead
from eyas.data.loading.batch import Batch, TensorBlock
from eyas.data.loading.batch_arrays import Maker, Task
from eyas.data.loading.block import OwnRoom
from eyas.errors import UserError
from eyas.machine.memory import available_memory

if TYPE_CHECKING:
    from eyas.data.loading.worker_group import LoaderWorkers, Member

WORKER_SECONDS = 600.0  # after so long without a batch from a worker the run ends
_END_SECONDS = 5.0  # what a process that can't even be killed is waited for


class Pipe:
    """Runs tasks in worker processes, or here when there are none, and gives their batches in order.

    The workers are started when they are first needed, and stay until `close`. Only the last iteration goes on.

    Args:
        make: makes the batches of a task.
        workers: worker processes; 0 for none.
        device: a CUDA device to give the batches on; None, or another device, leaves them on the host.
        task_bytes: how much the images of one task take.
        patience: seconds that a worker may need for a batch.
        box_multiple: the batches' blocks have room for a multiple of so many boxes.

    Raises:
        UserError: the batches on their way would not fit into the machine's memory.
    """

    def __init__(
        self,
        make: Maker,
        workers: int,
        device: torch.device | None,
        task_bytes: int,
        patience: float = WORKER_SECONDS,
        box_multiple: int = 1,
    ) -> None:
        if workers and sys.platform == "win32":
            warnings.warn(
                "Loader workers are not available on Windows: batches are made in this process.", stacklevel=2
            )
            workers = 0
        self.make = make
        self.workers = workers
        self.device = device if device is not None and device.type == "cuda" else None
        self.patience = patience
        self.box_multiple = box_multiple
        self.ahead = tasks_ahead(workers, task_bytes, available_memory()) if workers else 0
        self._workers: LoaderWorkers | None = None
        self._turn = 0  # numbers the tasks of all iterations
        self._run: object = None  # stands for the last iteration
        self._coming: Ahead | None = None

    @property
    def tasks_ahead(self) -> int:
        """How many tasks the workers have at most."""
        return self.ahead * self.workers

    def run(self, tasks: Iterable[Task]) -> Iterator[Batch]:
        """Have the first tasks begun with, and return an iterator of the batches of all.

        The tasks, which may have no end, are asked for as they are handed to the workers.

        Raises:
            UserError: what the maker raises; a worker can't be started, ended, or gave nothing for too long.
        """
        if self._coming is not None:
            self._coming.settle()  # its thread listens to the same workers
            self._coming = None
        self._run = this = object()
        made = self._by_workers(iter(tasks)) if self.workers else self._here(tasks)
        if self.device is not None:
            self._coming = Ahead(made, self.device)
            made = iter(self._coming)
        return self._given(made, this) if self.workers or self.device is not None else made

    def _given(self, made: Iterator[Batch], this: object) -> Iterator[Batch]:
        for batch in made:
            yield batch
            if self._run is not this:
                raise RuntimeError("The loader was closed, or iterated again before this iteration ended.")

    def _here(self, tasks: Iterable[Task]) -> Iterator[Batch]:
        room = OwnRoom(self.box_multiple)
        for task in tasks:
            for arrays in self.make(*task, room):
                yield Batch.of_block(TensorBlock.of(room.block(arrays)))

    def _by_workers(self, tasks: Iterator[Task]) -> Iterator[Batch]:
        """Have the workers make the batches in turns; the first tasks are given before this returns."""
        if self._workers is None:
            from eyas.data.loading.worker_group import LoaderWorkers

            self._workers = LoaderWorkers(self.make, self.workers, self.patience, self.box_multiple)
        given: deque[tuple[Member, int]] = deque()
        self._give(self._workers, tasks, given)
        return self._collected(self._workers, tasks, given)

    def _give(self, workers: LoaderWorkers, tasks: Iterator[Task], given: deque[tuple[Member, int]]) -> None:
        for task in islice(tasks, self.tasks_ahead - len(given)):
            member = workers.members[self._turn % self.workers]
            member.give(self._turn, task)
            given.append((member, self._turn))
            self._turn += 1

    def _collected(
        self, workers: LoaderWorkers, tasks: Iterator[Task], given: deque[tuple[Member, int]]
    ) -> Iterator[Batch]:
        """Yield the batches of the tasks; what an earlier iteration left undone is done and dropped."""
        try:
            while given:
                member, turn = given[0]
                for block in member.batches(turn):
                    yield Batch.of_block(TensorBlock.of(block))
                given.popleft()
                self._give(workers, tasks, given)
        except (UserError, OSError):
            if self._workers is workers:
                self._workers = None  # the next iteration begins with new workers
            workers.close()
            raise

    def close(self) -> None:
        """End the worker processes, whatever they are doing; iterating starts them again."""
        self._run = None
        workers, self._workers = self._workers, None
        coming, self._coming = self._coming, None
        if workers is not None:
            workers.kill()
        if coming is not None:
            coming.settle(_END_SECONDS)  # at once, where it waits for a worker: that is no more
        if workers is not None:
            workers.close()


def tasks_ahead(workers: int, task_bytes: int, free: int) -> int:
    """Return how many tasks a worker may be ahead, 1 or 2, so that what is on its way fits into memory.

    A third of what is free may be filled: the batches of training and of evaluation are on their way at the same time.

    Args:
        workers: number of workers.
        task_bytes: how much the images of one task take.
        free: bytes of memory that can be had.

    Raises:
        UserError: there is not enough even for one task a worker.
    """
    room = free // 3
    if workers * task_bytes > room:
        raise UserError(
            f"{workers} workers need {workers * task_bytes / 2**20:.0f} MiB of memory for batches in transit.",
            expected=f"at most {room / 2**20:.0f} MiB, a third of the free memory",
            fix="use fewer workers (data.workers) or smaller batches (data.batch_size)",
        )
    return 2 if 2 * workers * task_bytes <= room else 1
