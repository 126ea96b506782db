"""Worker processes for the parts: one dies, its part is done again; an image that ends two of them is left out."""

from __future__ import annotations

import queue
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from eyas.child_process import Child, Ended, exit_words
from eyas.errors import UserError
from eyas.machine.memory import total_memory
from eyas.predict.job import Saved
from eyas.predict.parts import Part, to_line
from eyas.predict.work import PredictSettings
from eyas.predict.worker import OUT_OF_MEMORY

_DEATHS = 20  # of workers on one part, then something else is wrong than a few images


@dataclass
class _Task:
    """A part on its way.

    Attributes:
        part: which.
        without: position to leave out -> what it did to the process, None while nothing went wrong with the part.
        at: the position of the last tick.
        deaths: how many workers ended on it.
    """

    part: Part
    without: Mapping[int, str] | None = None
    at: int = 0
    deaths: int = 0


@dataclass
class _Worker:
    """A process, and what it is doing."""

    child: Child
    ready: bool = False
    task: _Task | None = field(default=None)


def _did(code: int, memory: int) -> str:
    if code == OUT_OF_MEMORY:
        return f"Processing the image needs more than {memory / 1e6:.0f} MB of memory."
    if code == -signal.SIGKILL:
        return "The process working on the image was killed twice, most likely for lack of memory."
    return f"The image crashed the process working on it twice ({exit_words(code)})."


class Pool:
    """Processes that do parts; leaving its `with` block ends them.

    Args:
        settings: what decides the results.
        out: the job's output; workers save into its job's folder.
        workers: how many processes.
        threads: of each one's engine.
        device: "auto", "cpu" or "cuda".
    """

    def __init__(self, settings: PredictSettings, out: Path, workers: int, threads: int, device: str = "auto") -> None:
        self._memory = total_memory() // max(1, workers)
        self._first = {
            "settings": asdict(settings), "threads": threads, "device": device, "out": str(out), "memory": self._memory,
        }  # fmt: skip
        self._inbox: queue.SimpleQueue[tuple[Child, bytes]] = queue.SimpleQueue()
        self._workers: list[_Worker] = []
        self._num = workers

    def run(self, parts: Iterator[Part], tick: Callable[[int], None]) -> Iterator[Saved]:
        """Do the parts and yield what was saved, as it comes.

        Args:
            parts: taken one by one, as workers become free.
            tick: called with the number of images that were done since it was last called.

        Raises:
            UserError: the bundle can't be loaded, the disk is full, or workers end without an image to blame.
        """
        again: list[_Task] = []
        task = self._next(again, parts)
        while task is not None or any(worker.task for worker in self._workers):
            while task is not None and (worker := self._free()) is not None:
                worker.task = task
                task.at = 0
                worker.child.send({"part": to_line(task.part), "without": task.without})
                task = self._next(again, parts)
            child, line = self._inbox.get()
            worker = next(each for each in self._workers if each.child is child)
            saved = self._hear(worker, line, again, tick)
            if saved is not None:
                yield saved
            task = task or self._next(again, parts)

    def _next(self, again: list[_Task], parts: Iterator[Part]) -> _Task | None:
        if again:
            return again.pop()
        part = next(parts, None)
        return None if part is None else _Task(part)

    def _free(self) -> _Worker | None:
        """Return a worker with nothing to do, a new one if there are not enough; None if all are at work."""
        for worker in self._workers:
            if worker.task is None:
                return worker
        if len(self._workers) == self._num:
            return None
        child = Child("eyas.predict.worker", inbox=self._inbox, quiet=False)
        child.send(self._first)
        self._workers.append(_Worker(child))
        return self._workers[-1]

    def _hear(self, worker: _Worker, line: bytes, again: list[_Task], tick: Callable[[int], None]) -> Saved | None:
        """Take one message of a worker, or its end."""
        try:
            message = worker.child.read(line)
        except Ended as end:
            self._ended(worker, end.code, again)
            return None
        task = worker.task
        if message == "ready":
            worker.ready = True
        elif task is not None and isinstance(message, int):
            tick(max(0, message - task.at))
            task.at = max(task.at, message)
        elif task is not None:
            worker.task = None
            saved = Saved(**message)
            tick(saved.images - task.at)
            return saved
        return None

    def _ended(self, worker: _Worker, code: int, again: list[_Task]) -> None:
        """Have the part of a worker that ended done again, with care."""
        worker.child.close()
        self._workers.remove(worker)
        task = worker.task
        if task is None:
            return
        task.deaths += 1
        if not worker.ready or task.deaths > _DEATHS:
            raise UserError(
                f"The worker processes keep exiting (exit code {code}).",
                where=task.part.path,
                fix="free some memory or use fewer workers: --workers 1; finished work is kept",
            )
        if task.without is not None:
            task.without = {**task.without, task.at: _did(code, self._memory)}
        else:
            task.without = {}
        again.append(task)

    def __enter__(self) -> Pool:
        """Return the pool itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes; what they have not saved is done again another time."""
        for worker in self._workers:
            worker.child.close()
