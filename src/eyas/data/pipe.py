"""Batches in order, made here or by worker processes, page-locked if the trainer wants them so."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch

from eyas.data.batch import Batch
from eyas.data.batch_arrays import Maker, Task, own_memory
from eyas.data.cache import available_memory
from eyas.errors import UserError

if TYPE_CHECKING:
    from eyas.data.crew import Crew

WORKER_SECONDS = 600.0  # after so long without a batch from a worker the run ends


class Pipe:
    """Runs tasks in worker processes, or here when there are none, and gives their batches in order.

    The workers are started when they are first needed, and stay until `close`. Only the last iteration goes on.

    Args:
        make: makes the batches with given numbers of a given epoch.
        workers: worker processes; 0 for none.
        pin_memory: give batches in page-locked memory, where there is a GPU.
        task_bytes: how much the pictures of one task take.
        patience: seconds that a worker may need for a batch.

    Raises:
        UserError: the batches on their way would not fit into the machine's memory.
    """

    def __init__(
        self, make: Maker, workers: int, pin_memory: bool, task_bytes: int, patience: float = WORKER_SECONDS
    ) -> None:
        if workers and sys.platform == "win32":
            warnings.warn("Windows has no loader workers: batches are made in this process.", stacklevel=2)
            workers = 0
        self.make = make
        self.workers = workers
        self.pin_memory = pin_memory and torch.cuda.is_available()
        self.patience = patience
        self.ahead = tasks_ahead(workers, task_bytes, available_memory()) if workers else 0
        self._crew: Crew | None = None
        self._turn = 0  # numbers the tasks of all iterations

    def run(self, tasks: list[Task]) -> Iterator[Batch]:
        """Yield the batches of the tasks.

        Raises:
            UserError: what the maker raises; a worker ended, or gave nothing for too long.
        """
        made = self._here(tasks) if not self.workers else self._by_workers(tasks)
        return _pinned(made) if self.pin_memory else made

    def _here(self, tasks: list[Task]) -> Iterator[Batch]:
        """Make the batches in this process."""
        for task in tasks:
            for arrays in self.make(*task, own_memory):
                yield Batch.of(arrays)

    def _by_workers(self, tasks: list[Task]) -> Iterator[Batch]:
        """Have the workers make the batches: task i is done by worker i modulo their number."""
        if self._crew is None:
            from eyas.data.crew import Crew

            self._crew = Crew(self.make, self.workers, self.patience)
        crew, first = self._crew, self._turn
        self._turn = last = first + len(tasks)  # what an earlier iteration left undone is done and dropped
        members = crew.members
        given = 0
        try:
            for number in range(len(tasks)):
                while given < min(len(tasks), number + self.ahead * self.workers):
                    members[given % self.workers].give(first + given, tasks[given])
                    given += 1
                for arrays in members[number % self.workers].batches(first + number):
                    yield Batch.of(arrays)
                    if self._turn != last or self._crew is not crew:
                        raise RuntimeError("The loader was closed or iterated anew before this iteration had ended.")
        except (UserError, OSError):
            self.close()  # the next iteration begins with new workers
            raise

    def close(self) -> None:
        """End the worker processes; iterating starts them again."""
        if self._crew is not None:
            self._crew.close()
            self._crew = None


def _pinned(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield the batches page-locked: a thread does it, a batch ahead of the trainer."""

    def take() -> Batch | None:
        batch = next(batches, None)
        return None if batch is None else batch.pin_memory()

    # Page-locked memory belongs to a device, and a new thread would begin with the first one.
    with ThreadPoolExecutor(1, "pin", torch.cuda.set_device, (torch.cuda.current_device(),)) as pool:
        coming = pool.submit(take)
        while (batch := coming.result()) is not None:
            coming = pool.submit(take)
            yield batch


def tasks_ahead(workers: int, task_bytes: int, free: int) -> int:
    """Return how many tasks a worker may be ahead, 1 or 2, so that what is on its way fills half of the free memory.

    Args:
        workers: number of workers.
        task_bytes: how much the pictures of one task take.
        free: bytes of memory that can be had.

    Raises:
        UserError: there is not enough even for one task a worker.
    """
    room = free // 2
    if workers * task_bytes > room:
        raise UserError(
            f"{workers} workers need {workers * task_bytes / 2**20:.0f} MiB of memory for batches on their way.",
            expected=f"at most {room / 2**20:.0f} MiB, half of what is free",
            fix="use fewer workers (data.workers) or smaller batches (data.batch_size)",
        )
    return 2 if 2 * workers * task_bytes <= room else 1
