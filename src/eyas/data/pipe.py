"""Worker processes that make batches: tasks in, batches out in order, the pictures through shared memory."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from eyas import signals
from eyas.data.batch import Batch
from eyas.errors import UserError

Task = tuple[int, tuple[int, ...]]  # an epoch and the numbers of the batches to make in it
Maker = Callable[[int, tuple[int, ...]], Iterator[Batch]]


Made = list[Batch] | UserError


class _Worker(Dataset[Made]):
    """What runs in a worker process: a task in, its batches out, or what the user must mend first."""

    def __init__(self, make: Maker) -> None:
        self.make = make

    def __getitem__(self, task: Task) -> Made:
        """Return the batches of a task; an error is returned too, for torch would wrap it in a traceback."""
        try:
            return list(self.make(*task))
        except UserError as error:
            return error


class _Tasks(Sampler[Task]):
    """The tasks of the coming epoch; set anew before each."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []

    def __iter__(self) -> Iterator[Task]:
        """Yield the tasks in order."""
        return iter(self.tasks)

    def __len__(self) -> int:
        """Return the number of tasks."""
        return len(self.tasks)


class Pipe:
    """Runs tasks in worker processes, or here when there are none, and gives their batches in order.

    Args:
        make: makes the batches with given numbers of a given epoch.
        workers: worker processes; 0 for none.
        pin_memory: give batches in page-locked memory.
        task_bytes: how much the pictures of one task take.

    Raises:
        UserError: the batches on their way would not fit into the machine's shared memory.
    """

    def __init__(self, make: Maker, workers: int, pin_memory: bool, task_bytes: int) -> None:
        self.make = make
        self.pin_memory = pin_memory
        self.tasks = _Tasks()
        self.loader: DataLoader[Made] | None = None
        if workers:
            self.loader = DataLoader(
                _Worker(make),
                sampler=self.tasks,
                batch_size=None,
                num_workers=workers,
                collate_fn=_same,
                pin_memory=pin_memory,
                worker_init_fn=_one_thread,
                persistent_workers=True,
                prefetch_factor=tasks_ahead(workers, task_bytes),
                # Forked workers share the index and the caches with this process instead of copying them.
                multiprocessing_context="fork" if sys.platform == "linux" else None,
            )

    def run(self, tasks: list[Task]) -> Iterator[Batch]:
        """Yield the batches of the tasks."""
        if self.loader is None:
            for task in tasks:
                for batch in self.make(*task):
                    yield batch.pin_memory() if self.pin_memory else batch
            return
        self.tasks.tasks = tasks
        for made in self.loader:
            if isinstance(made, UserError):
                raise made
            yield from made

    def close(self) -> None:
        """End the worker processes."""
        if self.loader is not None:
            self.loader._iterator = None


def _same(batches: Made) -> Made:
    """Return the argument: batches are made whole in the workers."""
    return batches


def _one_thread(_: int) -> None:
    """Keep a worker to one thread, and away from OpenCV's threads, which do not survive a fork."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    _leave_ending_to_parent()


def _leave_ending_to_parent() -> None:
    """End this worker when its parent says so, and not by a signal that all processes of a job are sent.

    A terminal, `timeout` and systemd send such: the parent then still needs its workers for the step that it ends.
    """
    for number in signals.NUMBERS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if sys.platform != "linux":
        return
    parent = os.getppid()
    # Who sent a signal can be asked only while it is blocked, so a thread waits for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def tasks_ahead(workers: int, task_bytes: int, shared: Path = Path("/dev/shm")) -> int:
    """Return how many tasks a worker may be ahead, 1 or 2, so that what is on its way fills half of the shared memory.

    A worker that finds the shared memory full is killed by the system with nothing but "bus error".

    Raises:
        UserError: there is not enough even for one task a worker.
    """
    if not shared.is_dir():
        return 2  # not Linux: the system has no such limit
    room = shutil.disk_usage(shared).free // 2
    if workers * task_bytes > room:
        raise UserError(
            f"{workers} workers need {workers * task_bytes / 2**20:.0f} MiB of shared memory for batches on their way.",
            expected=f"at most {room / 2**20:.0f} MiB, half of what is free",
            where=str(shared),
            fix="use fewer workers or smaller batches; in a container give it more: docker run --shm-size=4g",
        )
    return 2 if 2 * workers * task_bytes <= room else 1
